"""Replay: the new data, and beside it a uniform sample of the old pool."""

from __future__ import annotations

import numpy as np

from liit.selection.options import as_share
from liit.selection.problem import Problem
from liit.selection.registry import register_selector
from liit.selection.result import Choice
from liit.selection.uniform import new_rows


@register_selector("replay", needs=("new",), description="uniform draws of new rows and of old rows, in fixed parts")
def replay(problem: Problem, *, share: float = 0.5) -> Choice:
    """Draw a part of the budget from the old rows and the rest from those of this step (`features["new"]`).

    Where one side has too few rows the other fills the budget up.

    Args:
        problem: feature `new` [N], booleans; budget, seed.
        share: part of the budget for old rows, from 0 to 1; rounded half up to a whole row.

    Returns:
        The choice.

    Raises:
        InputError: `new` is not boolean, or share out of range.
    """
    part = as_share(share, "share", zero=True)
    new = new_rows(problem)
    sides = {"old": np.flatnonzero(~new), "new": np.flatnonzero(new)}
    wanted = int(np.floor(part * problem.budget + 0.5))
    old = min(max(wanted, problem.budget - len(sides["new"])), len(sides["old"]))
    taken = {"old": old, "new": problem.budget - old}
    draws = problem.draws(0)
    chosen = [rows[np.argsort(draws[rows], kind="stable")][: taken[side]] for side, rows in sides.items()]
    texts = [f"drawn uniformly: {taken[side]} of {len(rows)} {side} rows" for side, rows in sides.items()]
    return Choice(
        chosen=np.concatenate(chosen).astype(np.int64),
        why=lambda at: [texts[int(new[p])] for p in at],
        why_not=lambda at: [f"not {texts[int(new[p])]}" for p in at],
        info={"share": part, "old": taken["old"], "new": taken["new"]},
    )
