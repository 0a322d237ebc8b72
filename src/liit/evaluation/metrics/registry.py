"""The names by which a continuum file asks for a metric."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from liit.errors import InputError


@dataclass(frozen=True, slots=True)
class Score:
    """What one prediction is worth.

    Attributes:
        value: between 0 (wrong) and 1 (right).
        wrong_format: the prediction is not of the expected form, so it says little about what the model knows.
    """

    value: float
    wrong_format: bool = False


@dataclass(frozen=True, slots=True)
class SkillResult:
    """One skill's entry in `evaluation.json`.

    Attributes:
        metric: name of the metric.
        score: mean value over the rows.
        n: number of rows.
        wrong_format: how many of them had the wrong form.
    """

    metric: str
    score: float
    n: int
    wrong_format: int


Metric = Callable[[str, str], Score]

_METRICS: dict[str, tuple[Metric, str]] = {}


def metric(name: str) -> Callable[[Metric], Metric]:
    """Register a function `(prediction, reference) -> Score` under a name; its docstring's first line describes it.

    Args:
        name: what a continuum file writes in `metric:`.

    Returns:
        A decorator that leaves the function as it is.

    Raises:
        InputError: the name is taken by another function.
    """

    def register(function: Metric) -> Metric:
        if name in _METRICS and _METRICS[name][0] is not function:
            raise InputError(f"metric: the name {name!r} is already registered; choose another name")
        _METRICS[name] = (function, (function.__doc__ or "").strip().partition("\n")[0])
        return function

    return register


def metrics() -> dict[str, str]:
    """Every registered metric's name and one-line description, in alphabetical order."""
    return {name: _METRICS[name][1] for name in sorted(_METRICS)}


def get_metric(name: str) -> Metric:
    """Find a metric by its name.

    Raises:
        InputError: there is none; the message names the nearest one and lists all.
    """
    if name not in _METRICS:
        near = difflib.get_close_matches(name, _METRICS, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise InputError(f"metric: {name!r} is unknown; {hint}known metrics: {', '.join(sorted(_METRICS))}")
    return _METRICS[name][0]


def score_skill(name: str, predictions: Sequence[str], references: Sequence[str]) -> tuple[SkillResult, list[Score]]:
    """Score all rows of one skill.

    Args:
        name: a registered metric.
        predictions: what the model said, one string per row.
        references: the expected answers, as many.

    Returns:
        The skill's summary and the score of every row, in the order given.

    Raises:
        InputError: unknown metric, no rows, lengths that differ, or a reference the metric cannot read.
    """
    function = get_metric(name)
    if len(predictions) != len(references):
        raise InputError(f"predictions: {len(predictions)} given for {len(references)} references; give as many")
    if not references:
        raise InputError("references: none given, so there is nothing to score; give at least one row")
    scores = [function(prediction, reference) for prediction, reference in zip(predictions, references, strict=True)]
    mean = sum(score.value for score in scores) / len(scores)
    wrong_format = sum(score.wrong_format for score in scores)
    return SkillResult(metric=name, score=mean, n=len(scores), wrong_format=wrong_format), scores
