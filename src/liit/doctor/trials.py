"""A few batches of training and a few questions, timed and thrown away."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from liit.data.sample import Sample
from liit.doctor.calibration import passing_vision, watched
from liit.doctor.examine import ModelAtHand
from liit.evaluation.generate import generate_answers
from liit.lifelong.workbench import Workbench
from liit.model.vision import VisionInputs
from liit.training import fit

QUESTIONS = 64


@dataclass(frozen=True, slots=True)
class Rates:
    """Seconds of training and of answering, as tried here: a fixed part, and per token trained or question answered."""

    train_fixed: float = 0.0
    train_token: float = 0.0
    question: float = 0.0


def try_work(model: ModelAtHand, samples: Sequence[Sample], questions: Sequence[Sample]) -> Rates:
    """Train a few batches and answer a few questions; the adapter is made anew afterwards.

    Args:
        model: of the continuum; one without weights tries nothing.
        samples: training samples in random order.
        questions: of the evaluation sets.
    """
    if model.bench is None or model.vision is None:
        return Rates()
    asked = [questions[i] for i in np.random.default_rng(0).permutation(len(questions))[:QUESTIONS]]
    with tempfile.TemporaryDirectory(prefix="liit-doctor-") as scratch:
        vision = passing_vision(model.vlm, model.vision, Path(scratch))
        fixed, per_token = _try_training(model, model.bench, samples, vision)
        return Rates(fixed, per_token, _try_answering(model, model.bench, asked, vision))


def _try_training(
    model: ModelAtHand, bench: Workbench, samples: Sequence[Sample], vision: VisionInputs
) -> tuple[float, float]:
    """Seconds beside the batches, and seconds per token."""
    settings = model.continuum.training
    rows = [model.encoder.encode(sample) for sample in model.fitting(samples[: 3 * settings.batch_size])]
    few = rows[: settings.batch_size]
    trial = settings.model_copy(update={"epochs": 1, "learning_rate": 1e-9})  # costs the same, and cannot diverge
    seconds = []
    for chosen in (rows, few, rows):  # the first for what is only done once
        vlm = bench.with_adapter(None)
        bench.forget_adapter()
        with watched(vlm.device) as watch:
            fit(vlm, chosen, trial, vision=vision, seed=0)
        seconds.append(watch.seconds)
    tokens = [sum(len(row) for row in chosen) for chosen in (few, rows)]
    per_token = (seconds[2] - seconds[1]) / (tokens[1] - tokens[0]) if tokens[1] > tokens[0] else 0.0
    per_token = per_token if per_token > 0 else seconds[2] / tokens[1]
    return max(0.0, seconds[1] - per_token * tokens[0]), per_token


def _try_answering(model: ModelAtHand, bench: Workbench, asked: Sequence[Sample], vision: VisionInputs) -> float:
    """Seconds per question."""
    if not asked:
        return 0.0
    settings = model.continuum.evaluation
    with watched(model.vlm.device) as watch:
        generate_answers(
            bench.with_adapter(None), asked, vision=vision, batch_size=settings.batch_size,
            max_new_tokens=settings.max_new_tokens, encoder=model.encoder,
        )  # fmt: skip
    return watch.seconds / len(asked)
