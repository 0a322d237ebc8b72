"""One-pass extraction against the official procedure on a GPU: LLaVA-1.5-7B's shapes with random weights, bfloat16.

    python benchmarks/extraction_gpu.py                 a few minutes on one card of 80 GB or more
    python benchmarks/extraction_gpu.py --model small --device cpu    whether it runs; nothing is kept

The adapter has the type of the weights, as in training under autocast. Wall times, because the card works beside the
processor; both procedures in one process, in turn, median of rounds, from samples to files on disk, images seen before.
liit's batches have its default budget for a GPU. Before anything is timed both must agree, in float32, which bfloat16
weights are read into without loss. A dense projection of 10 million numbers to 8192 takes 164 GB in 16 bits, so there
is no row with a kept one.

The share of the card: operations of liit's scoring pass, counted as `liit doctor` counts them (decoder and head; no
sketch, no vision tower), for each second of the whole extraction, over the rate of one large matrix product.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from extraction_speed import (
    EVERYTHING,
    SEED,
    WORK,
    agreement,
    clear_scratch,
    liit_extraction,
    official,
    ratios,
    timed_rounds,
)
from extraction_subjects import Subject, llava_7b, small_card
from official_extraction import Projector, RedrawnRademacher

from liit.config import FeatureSettings, LoraSettings
from liit.data.sample import Sample
from liit.doctor.arithmetic import both_passes, extraction_flops
from liit.doctor.calibration import matrix_rate, watched
from liit.doctor.shape import shape_of
from liit.doctor.workload import look_at
from liit.features.plan import plan_passes
from liit.features.settings import batch_tokens
from liit.model.chat import ChatEncoder
from liit.model.vision import VisionCache

RESULTS = Path(__file__).parent / "results" / "extraction_gpu.json"
Keep = Callable[[dict[str, Any]], None]
SUBJECTS: dict[str, Callable[[torch.device], Subject]] = {"llava-1.5-7b": llava_7b, "small": small_card}
KEPT = "llava-1.5-7b"  # whose results are kept
DIM, CHECKED = 8192, 6
GRADIENT_TOLERANCE = 1e-4  # float32 through 32 layers, with a card's order of summation


def measure(model: str, device: torch.device, rows: int, rounds: int, keep: Keep = lambda _: None) -> dict[str, Any]:
    """Everything that the page shows, of one model on one device.

    Args:
        model: one of `SUBJECTS`.
        device: where it goes.
        rows: samples.
        rounds: of timing.
        keep: called with all that is known whenever there is more, so that a limit of time loses only the rest.

    Raises:
        DisagreementError: the two procedures do not compute the same numbers.
    """
    subject = SUBJECTS[model](device)
    samples = subject.samples(rows)
    with in_float32(subject):
        agreed = agreement(subject, samples[:CHECKED], GRADIENT_TOLERANCE)
    clear_scratch()
    cache = VisionCache(subject.vlm, WORK / "kept" / subject.vlm.base_id)
    cache.fill(image for sample in samples for image in sample.images)
    rate = matrix_rate(torch.bfloat16, device)
    out: dict[str, Any] = {
        "model": subject.facts, "rows": rows, "rounds": rounds, "agreement": agreed, "matrix_rate": rate,
        "batch_tokens": batch_tokens(FeatureSettings(), device),
    }  # fmt: skip
    keep(out)
    for part, features in (("features", EVERYTHING), ("sketch", ("gradient",))):
        out[part] = compare(subject, samples, features, cache, rounds)
        seconds = out[part]["ms_per_sample"]["liit, images kept"] * rows / 1e3
        work = operations(subject, samples, features)
        out[part] |= {"operations": work, "share_of_matrix_rate": round(work / seconds / rate, 3)}
        keep(out)
    return out


def compare(
    subject: Subject, samples: Sequence[Sample], features: Sequence[str], cache: VisionCache, rounds: int
) -> dict[str, Any]:
    """Both procedures in turn, and the memory that liit takes."""
    scores = features == EVERYTHING
    projectors: dict[str, Projector | None] = {
        "official, no projection": None,
        "official, signs redrawn": RedrawnRademacher(subject.facts["gradient_length"], DIM, SEED),
    }
    methods: dict[str, Callable[[], Any]] = {
        name: lambda projector=projector: official(subject, samples, projector, scores=scores)  # type: ignore[misc]
        for name, projector in projectors.items()
    }
    methods["liit, images kept"] = lambda: liit_extraction(subject, samples, features, cache)
    for work in methods.values():
        work()  # kernels are chosen, memory is taken
        clear_scratch()
    with watched(subject.vlm.device) as watch:
        methods["liit, images kept"]()
    clear_scratch()
    seconds = timed_rounds(methods, rounds, time.perf_counter)
    return {
        "ms_per_sample": {n: round(1e3 * float(np.median(v)) / len(samples), 3) for n, v in seconds.items()},
        "ratio_images_kept": ratios(seconds, "liit, images kept"),
        "peak_memory_gb": round(watch.peak_memory / 1e9, 2),
    }


def operations(subject: Subject, samples: Sequence[Sample], features: Sequence[str]) -> float:
    """Floating-point operations of liit's passes over these samples."""
    shape, settings = shape_of(subject.vlm, LoraSettings()), FeatureSettings(blind="zeros")
    plan = plan_passes(features, settings, shape.layers)
    work = look_at(ChatEncoder(subject.vlm), samples, blind=plan.blind)
    return float(extraction_flops(plan, shape, *both_passes(plan, shape, work, settings)).total)


@contextmanager
def in_float32(subject: Subject) -> Iterator[None]:
    """Weights in float32 while the block runs; then in the type that they had, with the values that they had."""
    convolutions = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    tensors = [t for t in (*subject.vlm.base.parameters(), *subject.vlm.base.buffers()) if t.dtype == torch.bfloat16]
    for tensor in tensors:
        tensor.data = tensor.data.float()
    try:
        yield
    finally:
        for tensor in tensors:
            tensor.data = tensor.data.bfloat16()
        torch.backends.cudnn.allow_tf32 = convolutions


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", choices=sorted(SUBJECTS), default="llava-1.5-7b")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    chosen = parser.parse_args()
    device = torch.device(chosen.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        sys.exit(
            "no GPU that torch can use; expected one of 80 GB or more. To try the script: --model small --device cpu"
        )
    from liit.model.quiet import quiet_libraries

    quiet_libraries()
    WORK.mkdir(parents=True, exist_ok=True)
    clear_scratch()

    def keep(found: dict[str, Any]) -> None:
        if chosen.model == KEPT and device.type == "cuda":
            environment = {"gpu": torch.cuda.get_device_name(device), "torch": torch.__version__}
            RESULTS.write_text(json.dumps({"environment": environment, **found}, indent=1) + "\n")
        print(json.dumps(found, indent=1), flush=True)

    measure(chosen.model, device, chosen.rows, chosen.rounds, keep)
    clear_scratch()


if __name__ == "__main__":
    main()
