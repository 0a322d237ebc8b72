"""What the methods that look at no score share: a uniform draw, in which some rows may come before others."""

from __future__ import annotations

import numpy as np

from liit.errors import InputError
from liit.selection.arrays import Bools, Ints
from liit.selection.problem import Problem
from liit.selection.result import Choice


def drawn(problem: Problem, late: Ints, text: str) -> Choice:
    """The first rows by random number, rows with a larger `late` after all others."""
    chosen = np.lexsort((problem.draws(0), late))[: problem.budget]
    return Choice(
        chosen=chosen.astype(np.int64),
        why=lambda at: [text] * len(at),
        why_not=lambda at: ["not drawn"] * len(at),
    )


def new_rows(problem: Problem) -> Bools:
    """Which rows came with this step (feature `new`), in canonical order.

    Raises:
        InputError: `new` is not N booleans (0 and 1 are accepted).
    """
    new = problem.column("new")
    if new.dtype.kind != "b" and not (new.dtype.kind in "iu" and np.isin(new, (0, 1)).all()) and problem.n:
        raise InputError(f"new must be booleans, got an array of {new.dtype}")
    return new.astype(bool)
