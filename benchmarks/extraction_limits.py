"""Time against the number of samples, fidelity of the sketch, and the work that is not done twice."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from extraction_speed import EVERYTHING, SEED, WORK, liit_extraction, official, timed_rounds
from extraction_subjects import Subject
from official_extraction import CachedRademacher
from scipy.stats import spearmanr
from torch import nn

import liit
from liit.config import FeatureSettings, LoraSettings
from liit.doctor.arithmetic import backward_flops, both_passes, extraction_flops, forward_flops
from liit.doctor.shape import shape_of
from liit.doctor.workload import look_at
from liit.features.plan import plan_passes
from liit.features.sketch import SignedFold
from liit.model.chat import ChatEncoder
from liit.model.lora import lora_parameters
from liit.model.vision import VisionCache

DIMS = (512, 2048, 8192)
SEEDS = 5


def run_scaling(subject: Subject, rows: int, rounds: int) -> dict[str, Any]:
    """CPU seconds for N, 2 N, 4 N and 8 N samples whose images were seen before."""
    samples = subject.samples(rows)
    cache = VisionCache(subject.vlm, WORK / "kept")
    cache.fill(image for sample in samples for image in sample.images)
    counts = [rows // 8, rows // 4, rows // 2, rows]
    liit_extraction(subject, samples[: counts[0]], EVERYTHING, cache)
    methods: dict[str, Callable[[], Any]] = {
        str(n): lambda n=n: liit_extraction(subject, samples[:n], EVERYTHING, cache)  # type: ignore[misc]
        for n in counts
    }
    seconds = {name: float(np.median(v)) for name, v in timed_rounds(methods, rounds).items()}
    slope = np.polyfit(np.log(counts), np.log(list(seconds.values())), 1)[0]
    return {
        "rounds": rounds,
        "ms_per_sample": {name: round(1e3 * value / int(name), 3) for name, value in seconds.items()},
        "slope": round(float(slope), 3),
    }


def run_arithmetic(subject: Subject, rows: int, rounds: int) -> dict[str, Any]:
    """Operations of both procedures on the decoder, vision tower and projection left out: what the ratio can be.

    Counted as `liit doctor` counts them. The official side runs the head at every position, forward and back.
    """
    del rounds
    work = look_at(ChatEncoder(subject.vlm), subject.samples(rows))
    shape = shape_of(subject.vlm, LoraSettings())
    settings = FeatureSettings(blind="zeros")
    single = replace(work, longest_pack=0)
    one, black = single.with_images(1), single.without_images(1, zeros=True)
    head = 2 * shape.vocabulary * shape.hidden
    once = forward_flops(shape, one, shape.layers, narrow=False) + head * (one.tokens - one.answers)
    back = backward_flops(shape, one, (0,), narrow=False) + head * (one.tokens - one.answers)
    blind = forward_flops(shape, black, shape.layers, narrow=False) + head * (black.tokens - black.answers)
    out: dict[str, Any] = {"rows": rows}
    for part, names, theirs in (("features", EVERYTHING, once + back + blind), ("sketch", ("gradient",), once + back)):
        plan = plan_passes(names, settings, shape.layers)
        ours = extraction_flops(plan, shape, *both_passes(plan, shape, work, settings)).total
        out[part] = {
            "official_forwards": round(theirs / once, 3),
            "liit_forwards": round(ours / once, 3),
            "ratio": round(theirs / ours, 3),
        }
    return out


def run_fidelity(subject: Subject, rows: int, rounds: int) -> dict[str, Any]:
    """Pairwise cosines of sketches against those of the exact gradients: liit's fold and the dense projection."""
    del rounds
    samples = subject.samples(rows)
    exact = official(subject, samples, None, scores=False, check=True)[0]["exact_gradient"]
    true = cosines(exact)
    length = exact.shape[1]
    out: dict[str, Any] = {"rows": rows, "seeds": SEEDS, "cosine_deviation": round(float(true.std()), 4)}
    for dim in DIMS:
        fold = [_fidelity(SignedFold(length, dim, seed)([exact]), true) for seed in range(SEEDS)]
        dense = [_fidelity(CachedRademacher(length, dim, seed)(exact), true) for seed in range(SEEDS)]
        out[str(dim)] = {"bound": round(1.1 / dim**0.5, 5), "fold": _mean(fold), "dense": _mean(dense)}
    cache = VisionCache(subject.vlm, WORK / "kept")
    store = liit_extraction(subject, samples, ("gradient",), cache)
    stored = store.view([sample.id for sample in samples])["gradient"].astype(np.float32)
    out["as_stored"] = _mean([_fidelity(torch.from_numpy(stored), true)])
    return out


def cosines(vectors: torch.Tensor) -> np.ndarray:
    """Cosines of all pairs."""
    unit = torch.nn.functional.normalize(vectors.double())
    return (unit @ unit.T).numpy()[np.triu_indices(len(unit), 1)]


def _fidelity(sketches: torch.Tensor, true: np.ndarray) -> dict[str, float]:
    found = cosines(sketches)
    return {
        "rmse": float(np.sqrt(((found - true) ** 2).mean())),
        "pearson": float(np.corrcoef(found, true)[0, 1]),
        "spearman": float(spearmanr(found, true).statistic),
    }


def _mean(found: list[dict[str, float]]) -> dict[str, float]:
    mean = {name: round(float(np.mean([f[name] for f in found])), 5) for name in found[0]}
    spread = float(np.std([f["rmse"] for f in found], ddof=1)) if len(found) > 1 else 0.0
    return {**mean, "rmse_deviation": round(spread, 5)}


class Counter:
    """What really ran: calls of the decoder with their rows, and calls of the vision tower."""

    def __init__(self) -> None:
        self.calls = self.rows = self.tower = 0

    def facts(self) -> dict[str, int]:
        """The counts by name."""
        return {"model_calls": self.calls, "rows": self.rows, "tower_calls": self.tower}


@contextmanager
def counted(subject: Subject) -> Iterator[Counter]:
    """Count while the block runs, with hooks on the first decoder layer and the tower's first convolution."""
    counter = Counter()

    def decoder(_m: nn.Module, inputs: tuple[torch.Tensor, ...], options: dict[str, Any]) -> None:
        counter.calls += 1
        counter.rows += len(inputs[0] if inputs else options["hidden_states"])

    def tower(_m: nn.Module, _inputs: Any) -> None:
        counter.tower += 1

    first = next(m for m in subject.vlm.backbone.vision_tower.modules() if isinstance(m, nn.Conv2d))
    hooks = [
        subject.vlm.decoder_layers[0].register_forward_pre_hook(decoder, with_kwargs=True),
        first.register_forward_pre_hook(tower),
    ]
    try:
        yield counter
    finally:
        for hook in hooks:
            hook.remove()


def run_counts(subject: Subject, rows: int, rounds: int) -> dict[str, Any]:
    """Calls of the model: a second time, for new samples, and for a new checkpoint after a third has left the pool."""
    del rounds
    samples = subject.samples(rows)
    old, new, live = samples[: 2 * rows // 3], samples[2 * rows // 3 :], samples[: rows // 3] + samples[2 * rows // 3 :]
    cache = VisionCache(subject.vlm, Path(tempfile.mkdtemp(dir=WORK)))
    stores = Path(tempfile.mkdtemp(dir=WORK))

    def calls(given: list[Any], name: str) -> dict[str, int]:
        with counted(subject) as counter:
            liit.extract(subject.vlm, given, EVERYTHING, stores / name, FeatureSettings(), seed=SEED, vision=cache)
        return counter.facts()

    out = {
        "first": calls(old, "step"),
        "again": calls(old, "step"),
        "new_samples": calls(samples, "step"),
        "new_samples_alone": calls(new, "alone"),
    }
    with torch.no_grad():
        for parameter in lora_parameters(subject.vlm).values():
            parameter.mul_(1.5)
    subject.vlm.adapter_id = "random-2"
    out["new_checkpoint"] = calls(live, "next")
    sizes = {"old": len(old), "new": len(new), "live": len(live)}
    return {"samples": sizes, "images": len({i.sha256 for s in samples for i in s.images}), **out}
