"""Length: the longest answers, a strong and cheap baseline of the RDS+ paper."""

from __future__ import annotations

from liit.selection.one_score import by_one_score
from liit.selection.problem import Problem
from liit.selection.registry import register_selector
from liit.selection.result import Choice


@register_selector("length", needs=("n_answer_tokens",), description="rank by n_answer_tokens: the longest answers")
def length(
    problem: Problem, *, where: str = "top", stratified: bool = False, bins: int = 50, trim: float = 0.05
) -> Choice:
    """Rank by the number of answer tokens.

    Args:
        problem: feature `n_answer_tokens` [N], budget, seed.
        where: see `by_one_score`.
        stratified: see `by_one_score`.
        bins: see `by_one_score`.
        trim: see `by_one_score`.

    Returns:
        The choice.

    Raises:
        InputError: the feature or an option is malformed.
    """
    return by_one_score(problem, "n_answer_tokens", where, stratified, bins, trim)
