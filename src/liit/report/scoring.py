"""How each step came by its features: which rows the model scored, which were predicted, which were taken over."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from liit.report.model import Run, Step
from liit.report.summary import aligned


@dataclass(frozen=True)
class Scoring:
    """The rows with features of one step; None for what its run has not recorded.

    Attributes:
        number: of the step.
        name: of the step.
        rows: with features.
        scored: of these, rows that the model, or the proxy, saw at this step.
        predicted: rows whose features follow from the last step's, by `features.rescore`.
        carried: rows that keep the last step's features, because the model that scores has not changed.
    """

    number: int
    name: str
    rows: int
    scored: int | None
    predicted: int | None
    carried: int | None


def scored_steps(run: Run) -> list[Scoring]:
    """The steps of a run that have features; none for methods that look at none."""
    return [scoring for step in run.steps if (scoring := _scoring(step)) is not None]


def scoring_text(runs: Sequence[Run]) -> str:
    """A table in plain text, one line per step of every run; empty when no run has features."""
    lines = [
        [run.label, f"{one.number} {one.name}", *map(_count, (one.scored, one.predicted, one.carried, one.rows))]
        for run in runs
        for one in scored_steps(run)
    ]
    return (
        aligned(["method", "step", "rows scored", "predicted", "taken over", "in all"], lines, left=2) if lines else ""
    )


def _scoring(step: Step) -> Scoring | None:
    facts = step.extract
    if facts is None or "rows" not in facts:
        return None
    rows = int(facts["rows"])
    predicted, carried = (None if facts.get(key) is None else int(facts[key]) for key in ("predicted", "carried"))
    if predicted is None or carried is None:  # of an older version: not known, so neither is what was scored
        return Scoring(step.number, step.name, rows, None, predicted, carried)
    return Scoring(step.number, step.name, rows, rows - predicted - carried, predicted, carried)


def _count(value: int | None) -> str:
    return "–" if value is None else f"{value:,}"
