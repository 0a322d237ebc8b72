"""Ranking by one stored score: perplexity, EL2N, entropy, image grounding, gradient norm, length."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from liit.selection.arrays import Floats, Ints, one_of
from liit.selection.problem import Problem
from liit.selection.ranking import best_first, take
from liit.selection.registry import register_selector
from liit.selection.result import Choice
from liit.selection.sampling import draw, stratify

WHERE = ("top", "middle", "bottom")

_METHODS = {
    "perplexity": ("log_perplexity", "the most surprising answers"),
    "el2n": ("el2n", "predictions farthest from the answer"),
    "entropy": ("entropy", "the least decided predictions"),
    "image-grounding": ("image_grounding", "answers that the image helps most"),
    "grad-norm": ("grad_norm", "the longest gradients (GraNd)"),
    "length": ("n_answer_tokens", "the longest answers"),
}


def _selector(feature: str) -> Callable[..., Choice]:
    def by_one_score(
        problem: Problem, *, where: str = "top", stratified: bool = False, bins: int = 50, trim: float = 0.05
    ) -> Choice:
        """Rank by one score; `where` says which end (or the middle) is kept; `stratified` covers the range instead."""
        one_of(where, "where", WHERE)
        scores = problem.scores(feature)
        if stratified:
            return _stratified(problem, scores, feature, bins, trim)
        what = f"{feature} ({where})"
        if where == "middle":
            sequence = _middle_first(problem, scores)
        else:
            sequence = best_first(problem, scores if where == "top" else -scores)
        return take(problem, sequence, scores, feature, what)

    return by_one_score


def _middle_first(problem: Problem, scores: Floats) -> Ints:
    """Positions from the median outwards; a budget of b takes the b middle rows of the ranking."""
    ascending = best_first(problem, -scores)
    known = int((~np.isnan(scores)).sum())
    outwards = np.argsort(np.abs(2 * np.arange(known) - (known - 1)), kind="stable")
    return np.concatenate((ascending[:known][outwards], ascending[known:]))


def _stratified(problem: Problem, scores: Floats, feature: str, bins: int, trim: float) -> Choice:
    draws = problem.draws(0)
    strata = stratify(scores, draws, bins, trim)
    sequence = best_first(problem, scores)
    choice = take(problem, sequence, scores, feature, feature)
    choice.chosen = draw(strata, problem.budget, draws)
    choice.why = lambda at: [f"drawn from {_stratum(int(strata[p]), bins, feature)}" for p in at]
    choice.why_not = lambda at: [f"not drawn from {_stratum(int(strata[p]), bins, feature)}" for p in at]
    return choice


def _stratum(stratum: int, bins: int, feature: str) -> str:
    if stratum < 0:
        return f"the outliers of {feature}"
    return f"the rows without {feature}" if stratum == bins else f"stratum {stratum + 1} of {bins} of {feature}"


for _name, (_feature, _line) in _METHODS.items():
    register_selector(_name, needs=(_feature,), description=f"rank by {_feature}: {_line}")(_selector(_feature))
