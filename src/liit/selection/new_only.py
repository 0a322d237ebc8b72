"""New only: what sequential fine-tuning trains on."""

from __future__ import annotations

import numpy as np

from liit.selection.problem import Problem
from liit.selection.registry import register_selector
from liit.selection.result import Choice
from liit.selection.uniform import drawn, new_rows


@register_selector("new-only", needs=("new",), description="uniform draw from the new rows; old ones only to fill up")
def new_only(problem: Problem) -> Choice:
    """Uniform draw from the rows of this step (`features["new"]`, N booleans); old rows only to fill the budget up.

    Raises:
        InputError: `new` is not boolean.
    """
    old = ~new_rows(problem)
    choice = drawn(problem, old.astype(np.int64), "new")
    total = int((~old).sum())
    choice.why = lambda at: [
        "old, drawn because the new rows do not fill the budget" if old[p] else f"drawn uniformly from {total} new rows"
        for p in at
    ]
    choice.info = {"new": total, "filled_with_old": int(old[choice.chosen].sum())}
    return choice
