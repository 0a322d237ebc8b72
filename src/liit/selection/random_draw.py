"""Random: a uniform draw from the whole pool."""

from __future__ import annotations

import numpy as np

from liit.selection.problem import Problem
from liit.selection.registry import register_selector
from liit.selection.result import Choice
from liit.selection.uniform import drawn


@register_selector("random", description="uniform draw from the whole pool, without replacement")
def random(problem: Problem) -> Choice:
    """Uniform draw from the whole pool, without replacement."""
    return drawn(problem, np.zeros(problem.n, dtype=np.int64), f"drawn uniformly from {problem.n} rows")
