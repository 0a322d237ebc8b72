"""Short measurements on this machine: how fast it multiplies matrices, and how fast this model scores its own rows."""

from __future__ import annotations

import resource
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import torch

from liit.config import FeatureSettings
from liit.data.sample import Sample
from liit.doctor.arithmetic import both_passes, extraction_flops
from liit.doctor.shape import ModelShape
from liit.doctor.workload import look_at
from liit.features import extract
from liit.features.extraction import SHARD_ROWS
from liit.features.plan import plan_passes
from liit.features.settings import batch_tokens
from liit.model.chat import ChatEncoder
from liit.model.memory import give_back
from liit.model.vision import VisionCache, VisionInputs
from liit.model.vlm import VLM

CALIBRATION_SECONDS = 10.0
BATCHES = 1  # of the shorter of the two measurements
TOWER_ROWS = 32  # whose images the vision tower is timed on
MATRIX = 2048


@dataclass
class Watch:
    """What a stretch of work took; filled in at its end.

    Attributes:
        seconds: wall time.
        peak_memory: bytes of this process at its fullest, or of the GPU's memory that torch held.
    """

    seconds: float = 0.0
    peak_memory: float = field(default=0.0)


@contextmanager
def watched(device: torch.device) -> Iterator[Watch]:
    """Measure what the block takes where the model lives."""
    watch = Watch()
    on_gpu = device.type == "cuda"
    if on_gpu:
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
    else:
        with suppress(OSError):  # Linux: forget the peak of loading the weights
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    start = time.perf_counter()
    try:
        yield watch
    finally:
        if on_gpu:
            torch.cuda.synchronize(device)
        watch.seconds = time.perf_counter() - start
        watch.peak_memory = torch.cuda.max_memory_allocated(device) if on_gpu else _peak_resident()


def _peak_resident() -> float:
    with suppress(OSError, StopIteration):
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        return 1024.0 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    return 1024.0 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def resident_memory(device: torch.device) -> float:
    """Bytes that this process, or torch on its GPU, holds now."""
    return float(torch.cuda.memory_allocated(device) if device.type == "cuda" else psutil.Process().memory_info().rss)


def matrix_rate(dtype: torch.dtype, device: torch.device) -> float:
    """Floating-point operations per second of a matrix product of this type: the best of a few tries."""
    side, products = (MATRIX, 1) if device.type == "cpu" else (4 * MATRIX, 10)  # a card is faster than one call to it
    a = torch.randn(side, side, device=device).to(dtype)
    best = 0.0
    for _ in range(4):
        with watched(device) as watch:
            for _ in range(products):
                a @ a
        best = max(best, products * 2 * side**3 / watch.seconds)
    del a
    give_back()
    return best


@dataclass(frozen=True, slots=True)
class Calibration:
    """How fast this model scores its own rows here.

    Attributes:
        rows: rows that were scored for it.
        flops_per_second: operations of the decoder per second of wall time, everything beside them included.
        overhead: seconds of one extraction beside that.
        seconds_per_image: of the vision tower, for images whose features are not kept yet; 0 when they cannot be kept,
            because they are then part of the rows' time.
        image_bytes: that the kept features of one image take.
        peak_memory: bytes at the fullest.
        seconds: that the measurement took.
    """

    rows: int
    flops_per_second: float
    overhead: float
    seconds_per_image: float
    image_bytes: float
    peak_memory: float
    seconds: float


def calibrate_extraction(
    vlm: VLM,
    samples: Sequence[Sample],
    features: Sequence[str],
    settings: FeatureSettings,
    shape: ModelShape,
    *,
    vision: VisionInputs,
    encoder: ChatEncoder,
    share: bool = True,
    share_images: bool = False,
    budget: float = CALIBRATION_SECONDS,
) -> Calibration:
    """Score a handful of rows with this very model, and throw the features away.

    Two extractions of different length tell what an operation takes and what comes on top. Where vision features can be
    kept, they are computed first, apart, into a cache that goes when the measurement ends.

    Args:
        vlm: the model with its adapter.
        samples: rows drawn at random, which the model can take.
        features: what will be computed.
        settings: how.
        shape: sizes of the model.
        vision: where vision inputs come from.
        encoder: of the model.
        share: rows that begin alike share the work on their beginning in the pass without images.
        share_images: rows of one image share the pass over it.
        budget: seconds that this may take, roughly; a few batches are always run.
    """
    start = time.perf_counter()
    plan = plan_passes(features, settings, shape.layers)
    tokens = BATCHES * batch_tokens(settings, vlm.device)
    few = max(1, min(len(samples), round(tokens / _mean_length(encoder, samples))))
    with tempfile.TemporaryDirectory(prefix="liit-doctor-") as scratch:
        source = passing_vision(vlm, vision, Path(scratch) / "vision")
        run = _Runs(vlm, features, settings, source, encoder, Path(scratch))
        pictured = [sample for sample in samples if sample.images][: TOWER_ROWS + 1]
        first = run.fill(pictured[:1])
        per_image = run.fill(pictured[1:]) or first
        run.fill(samples[:few])
        run.score(samples[:few])  # libraries and first touches
        short = run.score(samples[:few])
        more = min(len(samples), SHARD_ROWS, max(2 * few, int(few * budget / max(short.seconds, 1e-3) / 2)))
        run.fill(samples[few:more])
        long = run.score(samples[:more]) if more > few else short
        image_bytes = run.image_bytes()

    def flops(count: int) -> float:
        work = look_at(encoder, samples[:count], blind=plan.blind, share=share, share_images=share_images)
        return extraction_flops(plan, shape, *both_passes(plan, shape, work, settings)).total

    rate, overhead = _line(flops(few), short.seconds, flops(more), long.seconds)
    return Calibration(more, rate, overhead, per_image, image_bytes, run.peak_memory, time.perf_counter() - start)


def passing_vision(vlm: VLM, vision: VisionInputs, folder: Path) -> VisionInputs:
    """The same source of vision inputs, with a cache of its own in `folder` where it has one."""
    return VisionCache(vlm, folder) if isinstance(vision, VisionCache) else vision


def _mean_length(encoder: ChatEncoder, samples: Sequence[Sample]) -> float:
    lengths = [len(encoder.encode(sample)) for sample in samples[:64]]
    return sum(lengths) / len(lengths)


class _Runs:
    """Extractions whose results are thrown away."""

    def __init__(
        self,
        vlm: VLM,
        features: Sequence[str],
        settings: FeatureSettings,
        vision: VisionInputs,
        encoder: ChatEncoder,
        scratch: Path,
    ) -> None:
        self.vlm, self.features, self.settings = vlm, features, settings
        self.vision, self.encoder, self.scratch = vision, encoder, scratch
        self.count = 0
        self.peak_memory = 0.0

    def score(self, samples: Sequence[Sample]) -> Watch:
        """Extract into a new store."""
        self.count += 1
        out = self.scratch / f"features-{self.count}"
        with watched(self.vlm.device) as watch:
            extract(
                self.vlm, samples, self.features, out, self.settings, vision=self.vision, encoder=self.encoder
            )  # fmt: skip
        self.peak_memory = max(self.peak_memory, watch.peak_memory)
        return watch

    def fill(self, samples: Sequence[Sample]) -> float:
        """Compute the kept vision features of some rows; seconds per image, 0 where none are kept."""
        if not isinstance(self.vision, VisionCache):
            return 0.0
        before = self.vision.computed
        with watched(self.vlm.device) as watch:
            self.vision.fill_rows([sample.images for sample in samples if sample.images])
        self.peak_memory = max(self.peak_memory, watch.peak_memory)
        done = self.vision.computed - before
        return watch.seconds / done if done else 0.0

    def image_bytes(self) -> float:
        """Bytes on disk of the kept features of one image."""
        if not isinstance(self.vision, VisionCache) or not self.vision.computed:
            return 0.0
        return sum(file.stat().st_size for file in self.vision.directory.rglob("*")) / self.vision.computed


def _line(low: float, short: float, high: float, long: float) -> tuple[float, float]:
    """Operations per second, and seconds beside them, from two measurements."""
    if high > low and long > short:
        rate = (high - low) / (long - short)
        return rate, max(0.0, short - low / rate)
    return high / long, 0.0
