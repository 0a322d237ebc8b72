"""What a random method could do with the compute that others spend on selecting.

At each step the operations of the most expensive selection buy training samples, at the price that random replay paid
for its own at that step and seed. So a run with these budgets takes, training alone, what that method takes to select
and train. What selection does outside the model, clustering above all, is not counted and buys nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from liit.lifelong.rundir import read_timings


@dataclass(frozen=True, slots=True)
class StageCosts:
    """Operations of one run, per step from 1; NaN where a stage ran that did not count them.

    Attributes:
        selection: of the extraction, 0 where there is none.
        training: of the training, 0 where there is none.
    """

    selection: tuple[float, ...]
    training: tuple[float, ...]


def stage_costs(run: Path, steps: int) -> StageCosts:
    """Read the operations of a run's stages.

    Args:
        run: the run directory.
        steps: how many steps the continuum has.
    """
    found: dict[tuple[int, str], float] = {}
    for row in read_timings(run):
        found[row["step"], row["stage"]] = float(row.get("flops", math.nan))
    selection, training = (
        tuple(found.get((number, stage), 0.0) for number in range(1, steps + 1)) for stage in ("extract", "train")
    )
    return StageCosts(selection, training)


def most_expensive(selection: Mapping[str, Sequence[float]]) -> str | None:
    """The method whose selection takes most operations; None when none is known to take any.

    Args:
        selection: operations by method, one number per seed.
    """
    totals = {name: sum(values) / len(values) for name, values in selection.items() if values}
    known = {name: total for name, total in totals.items() if total > 0}  # NaN is not
    return max(known, key=lambda name: known[name]) if known else None


def enlarged_budgets(
    budgets: Sequence[int], trained: Sequence[int], training: Sequence[float], selection: Sequence[float]
) -> tuple[int, ...]:
    """Budgets with which training alone takes what selection and training take.

    Args:
        budgets: of the steps.
        trained: samples that random replay trained on at each.
        training: operations that this took.
        selection: operations of the selection to be made up for.

    Returns:
        The budgets, rounded down.
    """
    return tuple(
        budget + math.floor(cost * count / price)
        for budget, count, price, cost in zip(budgets, trained, training, selection, strict=True)
    )
