"""Entropy: how undecided the model is about the answer."""

from __future__ import annotations

from liit.selection.one_score import by_one_score
from liit.selection.problem import Problem
from liit.selection.registry import register_selector
from liit.selection.result import Choice


@register_selector("entropy", needs=("entropy",), description="rank by entropy: the least decided predictions")
def entropy(
    problem: Problem, *, where: str = "top", stratified: bool = False, bins: int = 50, trim: float = 0.05
) -> Choice:
    """Rank by the mean over answer tokens of the entropy of the predicted distribution, in nats.

    Args:
        problem: feature `entropy` [N], budget, seed.
        where: see `by_one_score`.
        stratified: see `by_one_score`.
        bins: see `by_one_score`.
        trim: see `by_one_score`.

    Returns:
        The choice.

    Raises:
        InputError: the feature or an option is malformed.
    """
    return by_one_score(problem, "entropy", where, stratified, bins, trim)
