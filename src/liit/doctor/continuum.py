"""A whole continuum: what each step will extract, train and evaluate, and what the run will leave on disk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from liit.config import Continuum, EvaluationSet
from liit.data.sample import Sample
from liit.doctor.arithmetic import forward_flops, store_bytes, training_flops
from liit.doctor.calibration import CALIBRATION_SECONDS, Calibration
from liit.doctor.draw import Drawn, draw
from liit.doctor.examine import ModelAtHand, scored_again
from liit.doctor.prediction import Prediction, predict_extraction
from liit.doctor.trials import QUESTIONS, Rates, try_work
from liit.doctor.workload import Workload, look_at, mix
from liit.errors import InputError
from liit.features.settings import batch_tokens
from liit.lifelong.methods import Method, get_method
from liit.lifelong.stages import feature_names

ADAPTER_WIDTH = 4  # bytes of a LoRA parameter; they are float32 whatever the weights are
NOT_PREDICTED = "ingest, selection, pruning and the report"


@dataclass(frozen=True, slots=True)
class StepPrediction:
    """What one step will take; seconds are wall time.

    Attributes:
        name: of the step.
        new: samples that arrive.
        pool: samples that may be trained on, the new ones included.
        extraction: None for methods that look at no features.
        trained: samples times epochs.
        train_seconds: None when nothing was measured.
        questions: evaluated after the step.
        evaluate_seconds: None when nothing was measured.
    """

    name: str
    new: int
    pool: int
    extraction: Prediction | None
    trained: int
    train_seconds: float | None
    questions: int
    evaluate_seconds: float | None

    @property
    def seconds(self) -> float:
        """All of it that is predicted."""
        extraction = self.extraction.seconds if self.extraction is not None else 0.0
        return sum(part or 0.0 for part in (extraction, self.train_seconds, self.evaluate_seconds))


@dataclass(frozen=True, slots=True)
class ContinuumPrediction:
    """What a run will take.

    Attributes:
        method: its name.
        steps: in order.
        base_seconds: evaluation of the base model, before the first step.
        peak_memory: bytes where the model lives, in the largest extraction.
        feature_bytes: of all steps' features on disk.
        vision_bytes: of the cache of vision features.
        adapter_bytes: of all steps' adapters.
        bad: rows that will be set aside, by the share among those looked at.
        refused: rows that will not fit the model, in the same way.
        basis: what the times follow from, in words.
        at_least: the times are lower bounds.
    """

    method: str
    steps: tuple[StepPrediction, ...]
    base_seconds: float | None
    peak_memory: float
    feature_bytes: int
    vision_bytes: int
    adapter_bytes: int
    bad: int
    refused: int
    basis: str
    at_least: bool

    @property
    def seconds(self) -> float:
        """Of the whole run, as far as it is predicted."""
        return (self.base_seconds or 0.0) + sum(step.seconds for step in self.steps)

    @property
    def disk_bytes(self) -> int:
        """That the run and the cache will grow by."""
        return self.feature_bytes + self.vision_bytes + self.adapter_bytes

    def as_dict(self) -> dict[str, Any]:
        """Everything as JSON-serialisable values, sums included."""
        return {**asdict(self), "seconds": self.seconds, "disk_bytes": self.disk_bytes}


def predict_continuum(model: ModelAtHand, *, budget: float = CALIBRATION_SECONDS) -> ContinuumPrediction:
    """Predict a run of a continuum file.

    The datasets are read through once; of each, some rows drawn at random are looked at closely. Pruning is taken to
    thin out all steps alike, and the selection to be of the pool's mean length.

    Args:
        model: of the continuum.
        budget: seconds that trying the extraction may take; training and answering are tried on a batch or two.

    Raises:
        InputError: a dataset that cannot be read, or none of whose rows fits the model.
    """
    continuum = model.continuum
    method = get_method(continuum.method, continuum)
    scorer = model.scorer
    names = feature_names(method, continuum)
    arrivals = [_arrival(scorer, continuum, number, names) for number in range(len(continuum.steps))]
    questions = [(item, draw(item, continuum.seed, QUESTIONS)) for _, item in continuum.evaluation_sets()]
    drawn = [sample for arrival in arrivals for sample in arrival.samples]
    order = np.random.default_rng(continuum.seed).permutation(len(drawn))
    mixed = [drawn[i] for i in order]
    calibration = scorer.calibrate(mixed, names, budget) if names else None
    rates = try_work(model, mixed, [sample for _, drawn in questions for sample in drawn.samples])
    image_bytes = calibration.image_bytes if calibration is not None else scorer.image_bytes(mixed)
    steps = _steps(model, method, arrivals, questions, names, calibration, rates, image_bytes)
    extractions = [step.extraction for step in steps if step.extraction is not None]
    base = model.shape.parameters * model.shape.width if model.base_memory is None else model.base_memory
    trained = [step for step in steps if step.trained]
    return ContinuumPrediction(
        method=method.name,
        steps=tuple(steps),
        base_seconds=_answering(model, rates, questions),
        peak_memory=max((e.peak_memory for e in extractions), default=base),
        feature_bytes=sum(e.bytes_written for e in extractions),
        vision_bytes=round(image_bytes * sum(a.images for a in arrivals)),
        adapter_bytes=len(trained) * model.shape.lora_total * ADAPTER_WIDTH,
        bad=sum(arrival.bad for arrival in arrivals),
        refused=sum(arrival.work.refused for arrival in arrivals),
        basis=_basis(model, calibration),
        at_least=not model.run,
    )


@dataclass(frozen=True, slots=True)
class _Arrival:
    """A step's new samples."""

    samples: tuple[Sample, ...]
    work: Workload
    images: int
    bad: int


def _arrival(model: ModelAtHand, continuum: Continuum, number: int, names: Sequence[str]) -> _Arrival:
    parts: list[Drawn] = [draw(part, continuum.seed + number) for part in continuum.steps[number].train]
    samples = tuple(sample for part in parts for sample in part.samples)
    if not samples:
        name = continuum.steps[number].name
        raise InputError(f"steps.{number}: of {name} none of the rows looked at can be used; liit ingest says why")
    shares = bool(names) and model.shares_images(names)
    work = look_at(
        model.encoder, samples, sum(part.rows for part in parts), share=model.share, share_images=shares
    )  # fmt: skip
    return _Arrival(samples, work, sum(part.images for part in parts), sum(part.bad for part in parts))


def _steps(
    model: ModelAtHand,
    method: Method,
    arrivals: Sequence[_Arrival],
    questions: Sequence[tuple[EvaluationSet, Drawn]],
    names: Sequence[str],
    calibration: Calibration | None,
    rates: Rates,
    image_bytes: float,
) -> list[StepPrediction]:
    continuum, steps = model.continuum, []
    kept: list[float] = []
    trained_last = 0.0
    clusters = _clusters(method, continuum)
    for number, step in enumerate(continuum.steps):
        new = arrivals[number].work.rows
        kept.append(float(new))
        pool = round(sum(kept))
        last = number == len(continuum.steps) - 1
        trains = last or not method.once
        extraction = None
        if names and trains:
            scorer, settings = model.scorer, continuum.features
            known = sum(kept[:-1])
            again = known if method.once else scored_again(known, trained_last, clusters, settings)
            scored = [*(rows * again / known for rows in kept[:-1]), kept[-1]] if known else kept
            extraction = predict_extraction(
                scorer.shape, mix([arrival.work for arrival in arrivals[: number + 1]], scored), names, settings,
                calibration=calibration, matrix_rate=scorer.scoring_rate,
                missing_images=arrivals[number].images, image_bytes=image_bytes, base_memory=scorer.base_memory,
                known=known - again,
            )  # fmt: skip
            on_disk = store_bytes(pool, extraction.features, scorer.shape, settings)  # rows that are not scored too
            extraction = replace(extraction, bytes_written=round(on_disk))
        rows = pool if method.once else min(continuum.budget_at(number + 1), new if method.new_only else pool)
        epochs = continuum.training.epochs
        if method.once and continuum.training.multitask_epochs is not None:
            epochs = continuum.training.multitask_epochs
        trained = rows * epochs if trains else 0
        trained_last = float(rows if trains else 0)
        mean = np.average([a.work.mean_length for a in arrivals[: number + 1]], weights=kept)
        steps.append(
            StepPrediction(
                step.name, new, pool, extraction, trained, _training(model, rates, trained, float(mean)),
                sum(d.rows for _, d in questions) if trains else 0,
                _answering(model, rates, questions) if trains else 0.0,
            )
        )  # fmt: skip
        if method.prunes and continuum.pruning.pool_size is not None and pool > continuum.pruning.pool_size:
            kept = [rows * continuum.pruning.pool_size / pool for rows in kept]
    return steps


def _clusters(method: Method, continuum: Continuum) -> int:
    """Clusters of a step: the number that is set, or the middle of those that are tried; 1 for a method without."""
    if not (method.prunes or {"k", "k_grid"} & set(method.part.info.options)):
        return 1
    grid = continuum.selection.k_grid
    return continuum.selection.k or grid[len(grid) // 2]


def _training(model: ModelAtHand, rates: Rates, rows: int, length: float) -> float | None:
    if not rows:
        return 0.0
    if model.run:
        return rates.train_fixed + rates.train_token * rows * length
    return training_flops(model.shape, rows * length, rows * length**2) / (model.rate or float("inf"))


def _answering(model: ModelAtHand, rates: Rates, questions: Sequence[tuple[EvaluationSet, Drawn]]) -> float | None:
    count = sum(drawn.rows for _, drawn in questions)
    if model.run:
        return rates.question * count
    work = [look_at(model.encoder, drawn.samples, drawn.rows, blind=False) for _, drawn in questions if drawn.samples]
    tokens = batch_tokens(model.continuum.features, model.shape.device)
    flops = sum(
        forward_flops(model.shape, part.with_images(tokens), model.shape.layers, narrow=True) for part in work
    )  # prompts and reference answers once; generating token by token costs more
    return flops / (model.rate or float("inf"))


def _basis(model: ModelAtHand, calibration: Calibration | None) -> str:
    if not model.run:
        return "the rate of a matrix product on this machine: lower bounds"
    rows = f"{calibration.rows} rows scored" if calibration is not None else "no rows scored"
    return f"{rows}, a few batches trained and a few questions answered on this machine"
