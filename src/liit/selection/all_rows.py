"""All: everything there is, the upper reference of a comparison."""

from __future__ import annotations

import numpy as np

from liit.selection.problem import Problem
from liit.selection.registry import register_selector
from liit.selection.result import Choice
from liit.selection.uniform import drawn


@register_selector("all", description="every row (a uniform draw where the budget is smaller than the pool)")
def everything(problem: Problem) -> Choice:
    """Every row; where the budget is smaller than the pool, a uniform draw."""
    whole = problem.budget == problem.n
    text = "all rows are selected" if whole else f"the budget is smaller than the pool: drawn from {problem.n} rows"
    return drawn(problem, np.zeros(problem.n, dtype=np.int64), text)
