"""Both procedures on the same samples: do they agree, and how long do they take."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from extraction_subjects import Subject
from official_extraction import CachedRademacher, OfficialExtraction, Projector, RedrawnRademacher

import liit
from liit.config import FeatureSettings
from liit.data.sample import Sample
from liit.features import FeatureStore
from liit.features.sketch import SignedFold
from liit.model.vision import Pixels, VisionCache, VisionInputs

WORK = Path("runs/benchmark-extraction")
SCORES = ("log_perplexity", "blind_log_perplexity", "image_grounding", "el2n", "entropy", "grad_norm")
EVERYTHING = ("gradient", "embedding", *SCORES)
DIM, SEED = 8192, 0
SCORE_TOLERANCE, GRADIENT_TOLERANCE = 1e-4, 1e-5


class DisagreementError(RuntimeError):
    """The two procedures do not compute the same numbers, so their times are not comparable."""


def liit_extraction(
    subject: Subject,
    samples: Sequence[Sample],
    features: Sequence[str],
    vision: VisionInputs,
    progress: Callable[[int], None] | None = None,
    **settings: Any,
) -> FeatureStore:
    """One extraction by liit: zeroed pixels as the official code has them, into a new store."""
    out = Path(tempfile.mkdtemp(dir=WORK)) / "features"
    chosen = FeatureSettings(**{"blind": "zeros", "dim": DIM, **settings})
    return liit.extract(subject.vlm, samples, features, out, chosen, seed=SEED, vision=vision, progress=progress)


def official(
    subject: Subject,
    samples: Sequence[Sample],
    projector: Projector | None,
    *,
    scores: bool = True,
    check: bool = False,
) -> tuple[dict[str, torch.Tensor], dict[str, float]]:
    """The official side: features, and CPU seconds by what was done."""
    procedure = OfficialExtraction(subject.vlm, subject.facts["layer"], projector, scores=scores)
    procedure.keep_gradients = check
    return procedure(samples, Path(tempfile.mkdtemp(dir=WORK)) / "official"), dict(procedure.seconds)


def agreement(
    subject: Subject, samples: Sequence[Sample], gradient_tolerance: float = GRADIENT_TOLERANCE
) -> dict[str, float]:
    """Largest relative differences between the two procedures, before any storage in 16 bits.

    A sketch as long as the gradient is a signed permutation of it, so the whole gradient is compared, as it is stored.

    Raises:
        DisagreementError: they differ by more than 1e-4 in a score or the tolerance, 1e-5, in a gradient.
    """
    expected, _ = official(subject, samples, None, check=True)
    length = subject.facts["gradient_length"]
    store = liit_extraction(subject, samples, EVERYTHING, Pixels(subject.vlm), dim=length, dtype="float32")
    found = store.view([sample.id for sample in samples])
    expected["image_grounding"] = (expected["blind_log_perplexity"] - expected["log_perplexity"]).exp()
    out: dict[str, float] = {}
    for name in SCORES:
        ours, theirs = found[name].astype(float), expected[name].cpu().double().numpy()
        if not np.array_equal(np.isnan(ours), np.isnan(theirs)):
            raise DisagreementError(f"{name}: missing for different samples")
        out[name] = float(np.nanmax(np.abs(ours - theirs) / np.abs(theirs)))
    exact = SignedFold(length, length, SEED)([expected["exact_gradient"].cpu()]).double().numpy()
    for name, theirs in (("gradient", exact), ("embedding", expected["embedding"].cpu().double().numpy())):
        difference = np.linalg.norm(found[name] - theirs, axis=1) / np.linalg.norm(theirs, axis=1)
        out[name] = float(difference.max())
    wrong = [
        n for n, v in out.items() if v > (gradient_tolerance if n in ("gradient", "grad_norm") else SCORE_TOLERANCE)
    ]
    if wrong:
        raise DisagreementError(", ".join(f"{name} differs by {out[name]:.1e}" for name in wrong))
    return out


def kept_states(subject: Subject, samples: Sequence[Sample], features: Sequence[str]) -> dict[str, float]:
    """What keeping the tower's outputs in float16 changes: largest relative difference from pixels, by feature."""
    cache = VisionCache(subject.vlm, Path(tempfile.mkdtemp(dir=WORK)))
    stores = [
        liit_extraction(subject, samples, features, vision, dtype="float32") for vision in (Pixels(subject.vlm), cache)
    ]
    out: dict[str, float] = {}
    for name in features:
        exact, kept = (np.atleast_2d(store[name].astype(float).T).T for store in stores)
        scale = np.linalg.norm(exact, axis=1)
        out[name] = float(np.nanmax(np.linalg.norm(kept - exact, axis=1) / scale))
    return out


def timed_rounds(
    methods: dict[str, Callable[[], Any]], rounds: int, clock: Callable[[], float] = time.process_time
) -> dict[str, list[float]]:
    """Seconds of every method, `rounds` times in turn."""
    seconds: dict[str, list[float]] = {name: [] for name in methods}
    for _ in range(rounds):
        for name, work in methods.items():
            start = clock()
            work()
            seconds[name].append(clock() - start)
            clear_scratch()
    return seconds


def clear_scratch() -> None:
    """Throw away what the last measurement wrote."""
    for folder in WORK.glob("tmp*"):
        shutil.rmtree(folder)


def ratios(seconds: dict[str, list[float]], ours: str) -> dict[str, float]:
    """Median over rounds of each method's seconds over ours, taken inside each round."""
    return {
        name: round(float(np.median(np.asarray(values) / np.asarray(seconds[ours]))), 3)
        for name, values in seconds.items()
        if name != ours
    }


def projectors(subject: Subject, *, redrawn: bool = True) -> dict[str, Projector | None]:
    length = subject.facts["gradient_length"]
    found: dict[str, Projector | None] = {
        "official, no projection": None,
        "official, cached dense": CachedRademacher(length, DIM, SEED),
    }
    return {**found, "official, signs redrawn": RedrawnRademacher(length, DIM, SEED)} if redrawn else found


def compare(subject: Subject, rows: int, rounds: int, *, scores: bool, clock: Callable[[], float]) -> dict[str, Any]:
    """All features, or the gradient sketch alone, by both procedures."""
    samples = subject.samples(rows)
    features = EVERYTHING if scores else ("gradient",)
    checked = samples[: min(32, max(6, rows // 2))]
    agreed = agreement(subject, checked)
    cold_only = VisionCache(subject.vlm, WORK / "kept" / subject.vlm.base_id[:16])
    cold_only.fill(image for sample in samples for image in sample.images)
    phases: list[dict[str, float]] = []

    def theirs(projector: Projector | None) -> None:
        _, spent = official(subject, samples, projector, scores=scores)
        if projector is None:
            phases.append(spent)

    def cold() -> None:
        liit_extraction(subject, samples, features, VisionCache(subject.vlm, Path(tempfile.mkdtemp(dir=WORK))))

    methods: dict[str, Callable[[], Any]] = {
        name: lambda projector=projector: theirs(projector)  # type: ignore[misc]
        for name, projector in projectors(subject, redrawn=scores).items()
    }
    methods["liit, images seen first"] = cold
    methods["liit, images kept"] = lambda: liit_extraction(subject, samples, features, cold_only)
    clear_scratch()
    liit_extraction(subject, samples[:4], features, cold_only)  # imports and first touches
    seconds = timed_rounds(methods, rounds, clock)
    baseline = np.median(seconds["official, no projection"])
    return {
        "rows": rows,
        "rounds": rounds,
        "agreement": agreed,
        "kept_states": kept_states(subject, checked, [*SCORES, "gradient"]),
        "ms_per_sample": {name: round(1e3 * float(np.median(v)) / rows, 3) for name, v in seconds.items()},
        "ratio_images_kept": ratios(seconds, "liit, images kept"),
        "ratio_images_first": ratios(seconds, "liit, images seen first"),
        "official_share": {k: round(float(np.median([p[k] for p in phases]) / baseline), 3) for k in phases[0]},
    }


def run_features(subject: Subject, rows: int, rounds: int) -> dict[str, Any]:
    """All features against the official procedure, CPU time of one thread."""
    return compare(subject, rows, rounds, scores=True, clock=time.process_time)


def run_sketch(subject: Subject, rows: int, rounds: int) -> dict[str, Any]:
    """The gradient sketch alone against batch size 1, CPU time of one thread."""
    return compare(subject, rows, rounds, scores=False, clock=time.process_time)


def run_wall(subject: Subject, rows: int, rounds: int) -> dict[str, Any]:
    """All features, wall time on two threads; the share of the machine that others used is in the result."""
    torch.set_num_threads(2)
    return compare(subject, rows, rounds, scores=True, clock=time.perf_counter)
