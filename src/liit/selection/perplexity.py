"""Perplexity: the most surprising answers, the least, or those between (Top-PPL and Mid-PPL of the RDS+ paper)."""

from __future__ import annotations

from liit.selection.one_score import by_one_score
from liit.selection.problem import Problem
from liit.selection.registry import register_selector
from liit.selection.result import Choice


@register_selector(
    "perplexity", needs=("log_perplexity",), description="rank by log_perplexity: the most surprising answers"
)
def perplexity(
    problem: Problem, *, where: str = "top", stratified: bool = False, bins: int = 50, trim: float = 0.05
) -> Choice:
    """Rank by the mean negative log-likelihood of the answer's tokens, the log of the perplexity.

    Args:
        problem: feature `log_perplexity` [N], budget, seed.
        where: see `by_one_score`.
        stratified: see `by_one_score`.
        bins: see `by_one_score`.
        trim: see `by_one_score`.

    Returns:
        The choice.

    Raises:
        InputError: the feature or an option is malformed.
    """
    return by_one_score(problem, "log_perplexity", where, stratified, bins, trim)
