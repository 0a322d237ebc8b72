"""What the selectors by one stored score share: the ends of a ranking, its middle, or an even coverage of it."""

from __future__ import annotations

import numpy as np

from liit.selection.arrays import Floats, Ints
from liit.selection.options import as_flag, one_of
from liit.selection.problem import Problem
from liit.selection.ranking import best_first, take
from liit.selection.result import Choice
from liit.selection.sampling import draw, stratify

WHERE = ("top", "middle", "bottom")


def by_one_score(problem: Problem, feature: str, where: str, stratified: bool, bins: int, trim: float) -> Choice:
    """Select by one score.

    Args:
        problem: the scalar feature, budget, seed.
        feature: its name.
        where: "top" takes the highest scores, "bottom" the lowest, "middle" those around the median.
        stratified: cover the range of the score evenly instead (coverage-centric sampling, Zheng et al. 2023); `where`
            then plays no part.
        bins: strata, when stratified.
        trim: share set aside as outliers at each end, when stratified.

    Returns:
        The choice. Rows without a score come last, in random order; when stratified they are a stratum.

    Raises:
        InputError: the feature or an option is malformed.
    """
    one_of(where, "where", WHERE)
    scores = problem.scores(feature)
    if as_flag(stratified, "stratified"):
        return _stratified(problem, scores, feature, bins, trim)
    if where == "middle":
        sequence = _middle_first(problem, scores)
    else:
        sequence = best_first(problem, scores if where == "top" else -scores)
    return take(problem, sequence, scores, feature, f"{feature} ({where})")


def _middle_first(problem: Problem, scores: Floats) -> Ints:
    """Positions from the median outwards; a budget of b takes the b middle rows of the ranking."""
    ascending = best_first(problem, -scores)
    known = int((~np.isnan(scores)).sum())
    outwards = np.argsort(np.abs(2 * np.arange(known) - (known - 1)), kind="stable")
    return np.concatenate((ascending[:known][outwards], ascending[known:]))


def _stratified(problem: Problem, scores: Floats, feature: str, bins: int, trim: float) -> Choice:
    draws = problem.draws(0)
    strata = stratify(scores, draws, bins, trim)
    choice = take(problem, best_first(problem, scores), scores, feature, feature)
    choice.chosen = draw(strata, problem.budget, draws)
    choice.why = lambda at: [f"drawn from {_stratum(int(strata[p]), bins, feature)}" for p in at]
    choice.why_not = lambda at: [f"not drawn from {_stratum(int(strata[p]), bins, feature)}" for p in at]
    return choice


def _stratum(stratum: int, bins: int, feature: str) -> str:
    if stratum < 0:
        return f"the outliers of {feature}"
    return f"the rows without {feature}" if stratum == bins else f"stratum {stratum + 1} of {bins} of {feature}"
