"""From one score per row to a selection: the best ones, or an even coverage."""

from __future__ import annotations

import numpy as np

from liit.selection.arrays import Floats, Ints
from liit.selection.problem import Problem
from liit.selection.result import Choice

# Computed scores (cosines, leverages) are compared on this grid, relative to the largest: the last bits of a matrix
# product, which equal rows need not share, decide nothing.
_DECIMALS = 9


def settled(scores: Floats) -> Floats:
    """Scores rounded to 9 decimals of the largest, so that equal rows have equal scores."""
    largest = float(np.nanmax(np.abs(scores), initial=0.0)) if scores.size else 0.0
    return np.round(scores / largest, _DECIMALS) * largest if largest > 0 else scores


def best_first(problem: Problem, scores: Floats) -> Ints:
    """Positions by falling score, ties by arrival; rows without a score last, in random order."""
    known = ~np.isnan(scores)
    later = np.where(known, problem.arrival, 0)
    filler = np.where(known, 0.0, problem.draws(0))
    return np.lexsort((filler, later, -np.where(known, scores, 0.0), ~known)).astype(np.int64)


def take(problem: Problem, sequence: Ints, scores: Floats, expert: str, what: str) -> Choice:
    """The first of a sequence of all positions, best first.

    Args:
        problem: gives the budget.
        sequence: all positions, best first.
        scores: float64 [N], NaN where there is none.
        expert: name of the score for the table.
        what: what the score says, for the reasons.

    Returns:
        The choice; the rank of a row is its place in the sequence.
    """
    rank = np.empty(problem.n, dtype=np.int64)
    rank[sequence] = np.arange(1, problem.n + 1)
    known = ~np.isnan(scores)

    def text(p: int, verb: str) -> str:
        if not known[p]:
            return f"{verb}: {what} is missing, so it comes last, in random order"
        return f"{verb}: {what} {scores[p]:.6g} is number {rank[p]} of {problem.n}"

    return Choice(
        chosen=sequence[: problem.budget],
        why=lambda at: [text(int(p), "kept") for p in at],
        why_not=lambda at: [text(int(p), "left out") for p in at],
        score=scores,
        rank=np.where(known, rank, 0),
        expert=expert,
        info={"without_score": int((~known).sum())},
    )
