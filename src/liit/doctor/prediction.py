"""What an extraction will take, and afterwards how that compares with what it took."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from liit.config import FeatureSettings
from liit.doctor.arithmetic import SINGLE, both_passes, extraction_flops, row_bytes, store_bytes, working_memory
from liit.doctor.calibration import Calibration, Watch
from liit.doctor.shape import ModelShape
from liit.doctor.workload import Workload
from liit.features.extraction import SHARD_ROWS
from liit.features.plan import plan_passes
from liit.features.report import ExtractionReport
from liit.model.vision import VisionCache, VisionInputs
from liit.model.vision_cache import SHARD_IMAGES

LIBRARIES = 0.7e9  # bytes that Python and its libraries take in main memory
KNOWN_COPIES = 2  # of the last step's features, as they are read and as they are predicted
COPIES = 3  # of what a shard holds before it is written: as computed, as stored, as written


@dataclass(frozen=True, slots=True)
class Prediction:
    """What an extraction will take.

    Attributes:
        features: what is computed.
        rows: that will be scored.
        refused: rows that will be refused because they do not fit the model.
        looked_at: rows whose lengths the prediction was made from.
        passes: in words.
        image_calls: model calls (batches) with images.
        blind_calls: model calls of the no-image pass.
        backward_calls: backward passes.
        tokens: real tokens of the passes with images.
        blind_tokens: real tokens of the no-image pass.
        padded_tokens: of both, padding included.
        tower_images: images that the vision tower will see.
        flops: floating-point operations of the decoder and its head.
        seconds: wall time; None when nothing was measured.
        basis: what the time follows from, in words.
        at_least: the time is a lower bound, from the rate of a bare matrix product.
        peak_memory: bytes where the model lives: this process, or the GPU.
        bytes_written: of the feature store, ids and hashes included.
        vision_bytes: that the cache of vision features will grow by.
    """

    features: tuple[str, ...]
    rows: int
    refused: int
    looked_at: int
    passes: str
    image_calls: int
    blind_calls: int
    backward_calls: int
    tokens: int
    blind_tokens: int
    padded_tokens: int
    tower_images: int
    flops: float
    seconds: float | None
    basis: str
    at_least: bool
    peak_memory: float
    bytes_written: int
    vision_bytes: int

    def as_dict(self) -> dict[str, Any]:
        """Everything as JSON-serialisable values."""
        return asdict(self)


def predict_extraction(
    shape: ModelShape,
    work: Workload,
    features: Sequence[str],
    settings: FeatureSettings,
    *,
    calibration: Calibration | None = None,
    matrix_rate: float | None = None,
    missing_images: int = 0,
    image_bytes: float = 0.0,
    base_memory: float | None = None,
    known: float = 0.0,
) -> Prediction:
    """Say what an extraction will take.

    Args:
        shape: of the model, from `shape_of`.
        work: the rows, from `look_at`.
        features: standard feature names.
        settings: of the extraction.
        calibration: a measurement with this very model, from `calibrate_extraction`.
        matrix_rate: operations per second of a matrix product here, when there is no calibration.
        missing_images: images whose vision features have to be computed.
        image_bytes: that the kept features of one image take; 0 when they are not kept.
        base_memory: bytes taken before it starts; the weights and the libraries unless given.
        known: rows whose features are taken over or predicted from the last step's, which are held in memory.

    Raises:
        InputError: an unknown feature or a layer that the model does not have.
    """
    plan = plan_passes(features, settings, shape.layers)
    batches = both_passes(plan, shape, work, settings)
    given, blind = batches.given, batches.blind
    flops = extraction_flops(plan, shape, *batches).total
    seconds, basis = _time(flops, calibration, matrix_rate, missing_images)
    if calibration is not None:
        memory = calibration.peak_memory
    else:
        base = shape.parameters * shape.width if base_memory is None else base_memory
        memory = base + working_memory(plan, shape, work, settings, batches.widest)
    if shape.device == "cpu":  # elsewhere these lie in main memory, not beside the model
        memory += LIBRARIES if calibration is None and base_memory is None else 0
        shard = min(SHARD_ROWS, work.rows)
        tried = 0 if calibration is None else calibration.rows
        memory += COPIES * image_bytes * max(0, min(missing_images, SHARD_IMAGES) - tried)
        memory += KNOWN_COPIES * known * row_bytes(plan.features, shape, settings, SINGLE)
        if calibration is not None:
            memory += COPIES * max(0, shard - tried) * row_bytes(plan.features, shape, settings, SINGLE)
    on_disk = store_bytes(work.rows, plan.features, shape, settings)
    return Prediction(
        features=plan.features,
        rows=work.rows,
        refused=work.refused,
        looked_at=work.looked_at,
        passes=_passes(plan.forward_layers, plan.backward_layers, plan.blind_layers, shape.layers),
        image_calls=round(given.calls),
        blind_calls=round(blind.calls),
        backward_calls=round(given.calls) if plan.backward_layers else 0,
        tokens=round(given.tokens),
        blind_tokens=round(blind.tokens),
        padded_tokens=round(given.padded + blind.padded),
        tower_images=missing_images + round(blind.images),
        flops=flops,
        seconds=seconds,
        basis=basis,
        at_least=calibration is None,
        peak_memory=memory,
        bytes_written=round(on_disk),
        vision_bytes=round(missing_images * image_bytes),
    )


def _time(
    flops: float, calibration: Calibration | None, matrix_rate: float | None, images: int
) -> tuple[float | None, str]:
    if calibration is not None:
        seconds = calibration.overhead + flops / calibration.flops_per_second + images * calibration.seconds_per_image
        return seconds, f"{calibration.rows} rows scored on this machine"
    if matrix_rate is not None:
        return (
            flops / matrix_rate,
            "the rate of a matrix product on this machine, vision tower and all else not counted",
        )
    return None, "nothing measured"


def _passes(forward: int, backward: int, blind: int, layers: int) -> str:
    """For example: forward with images, backward through the upper 16 of 32 layers, forward without images."""
    if not forward and not blind:
        return "none: known from the tokens alone"
    parts = []
    if forward:
        parts.append(
            "forward with images" + (f" through the lower {forward} of {layers} layers" if forward < layers else "")
        )
    if backward:
        parts.append(f"backward through the upper {backward} of {layers} layers")
    if blind:
        parts.append("forward without images")
    return ", ".join(parts)


@dataclass(frozen=True, slots=True)
class Compared:
    """One quantity, predicted and as it was; `ratio` is fact over prediction, None where that is 0."""

    name: str
    unit: str
    predicted: float
    fact: float

    @property
    def ratio(self) -> float | None:
        """Fact over prediction."""
        return self.fact / self.predicted if self.predicted else None


FACTS = {
    "scored": ("rows", "rows"),
    "image_calls": ("model calls with images", "calls"),
    "blind_calls": ("model calls without images", "calls"),
    "backward_calls": ("backward passes", "calls"),
    "tokens": ("tokens with images", "tokens"),
    "blind_tokens": ("tokens without images", "tokens"),
    "padded_tokens": ("tokens with padding", "tokens"),
    "tower_images": ("images through the vision tower", "images"),
    "bytes_written": ("features on disk", "bytes"),
}


def compare(prediction: Prediction, report: ExtractionReport, watch: Watch | None = None) -> list[Compared]:
    """Put what was predicted beside what happened.

    Args:
        prediction: made before.
        report: of the extraction, ``store.report``.
        watch: its time and memory; without it the report's own clock counts, and memory is left out.
    """
    if not (prediction.rows or report.scored):
        return []  # everything was there
    predicted: Mapping[str, Any] = {**prediction.as_dict(), "scored": prediction.rows}
    rows = [Compared(name, unit, predicted[key], getattr(report, key)) for key, (name, unit) in FACTS.items()]
    if prediction.seconds is not None:
        rows.append(Compared("time", "seconds", prediction.seconds, report.seconds if watch is None else watch.seconds))
    if watch is not None:
        rows.append(Compared("peak memory", "memory", prediction.peak_memory, watch.peak_memory))
    return [row for row in rows if row.predicted or row.fact]


def missing_of(vision: VisionInputs, images: Sequence[Any]) -> int:
    """How many of some images the vision tower will have to see: those that are not kept, each once."""
    return len(vision.missing(images)) if isinstance(vision, VisionCache) else 0
