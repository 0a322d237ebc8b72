"""EL2N (Paul et al. 2021): how far the predicted distributions are from the answer."""

from __future__ import annotations

from liit.selection.one_score import by_one_score
from liit.selection.problem import Problem
from liit.selection.registry import register_selector
from liit.selection.result import Choice


@register_selector("el2n", needs=("el2n",), description="rank by el2n: predictions farthest from the answer")
def el2n(
    problem: Problem, *, where: str = "top", stratified: bool = False, bins: int = 50, trim: float = 0.05
) -> Choice:
    """Rank by the mean over answer tokens of ||softmax(logits) - onehot(token)||.

    Args:
        problem: feature `el2n` [N], budget, seed.
        where: see `by_one_score`.
        stratified: see `by_one_score`.
        bins: see `by_one_score`.
        trim: see `by_one_score`.

    Returns:
        The choice.

    Raises:
        InputError: the feature or an option is malformed.
    """
    return by_one_score(problem, "el2n", where, stratified, bins, trim)
