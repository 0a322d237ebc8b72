"""Methods that look at no score: uniform draws and what a draw is restricted to."""

from __future__ import annotations

import numpy as np

from liit.errors import InputError
from liit.selection.arrays import Ints, as_labels
from liit.selection.budget import allocate
from liit.selection.clusters import cluster_members
from liit.selection.problem import Problem
from liit.selection.registry import register_selector
from liit.selection.result import Choice


@register_selector("random", description="uniform draw from the whole pool, without replacement")
def random(problem: Problem) -> Choice:
    """Uniform draw from the whole pool, without replacement."""
    return _drawn(problem, np.zeros(problem.n, dtype=np.int64), f"drawn uniformly from {problem.n} rows")


@register_selector("all", description="every row (a uniform draw where the budget is smaller than the pool)")
def everything(problem: Problem) -> Choice:
    """Every row; where the budget is smaller than the pool, a uniform draw."""
    whole = problem.budget == problem.n
    text = "all rows are selected" if whole else f"the budget is smaller than the pool: drawn from {problem.n} rows"
    return _drawn(problem, np.zeros(problem.n, dtype=np.int64), text)


@register_selector("new-only", needs=("new",), description="uniform draw from the new rows; old ones only to fill up")
def new_only(problem: Problem) -> Choice:
    """Uniform draw from the rows of this step (`features["new"]`, N booleans); old rows only to fill the budget up.

    Raises:
        InputError: `new` is not boolean.
    """
    new = problem.column("new")
    if new.dtype.kind != "b" and not (new.dtype.kind in "iu" and np.isin(new, (0, 1)).all()) and problem.n:
        raise InputError(f"new must be booleans, got an array of {new.dtype}")
    old = (~new.astype(bool)).astype(np.int64)
    choice = _drawn(problem, old, "new")
    filled = int(old[choice.chosen].sum())
    total = int((old == 0).sum())
    choice.why = lambda at: [
        "old, drawn because the new rows do not fill the budget" if old[p] else f"drawn uniformly from {total} new rows"
        for p in at
    ]
    choice.info = {"new": total, "filled_with_old": filled}
    return choice


@register_selector("random-balanced", needs=("source",), description="even budgets over sources, uniform inside each")
def random_balanced(problem: Problem) -> Choice:
    """Even budgets over the sources (`features["source"]`, N labels), a uniform draw inside each.

    Raises:
        InputError: `source` is not one label per row.
    """
    labels = as_labels(problem.column("source"), "source", problem.n)
    names = [str(name) for name in np.unique(problem.column("source"))]
    sizes = np.bincount(labels, minlength=len(names))
    shares = allocate(sizes, problem.budget)
    draws = problem.draws(0)
    chosen = [m[np.argsort(draws[m], kind="stable")][:s] for m, s in zip(cluster_members(labels), shares, strict=True)]
    texts = [f"source {n} keeps {s} of {size}" for n, s, size in zip(names, shares, sizes, strict=True)]
    return Choice(
        chosen=np.concatenate(chosen) if chosen else np.zeros(0, dtype=np.int64),
        why=lambda at: [f"{texts[labels[p]]}; drawn uniformly" for p in at],
        why_not=lambda at: [f"{texts[labels[p]]}; not drawn" for p in at],
        info={"budgets": dict(zip(names, shares.tolist(), strict=True))},
    )


def _drawn(problem: Problem, late: Ints, text: str) -> Choice:
    """The first rows by random number, rows with a larger `late` after all others."""
    chosen = np.lexsort((problem.draws(0), late))[: problem.budget]
    return Choice(
        chosen=chosen.astype(np.int64),
        why=lambda at: [text] * len(at),
        why_not=lambda at: ["not drawn"] * len(at),
    )
