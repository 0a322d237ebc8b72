"""GraNd (Paul et al. 2021): how far one sample would move the model."""

from __future__ import annotations

from liit.selection.one_score import by_one_score
from liit.selection.problem import Problem
from liit.selection.registry import register_selector
from liit.selection.result import Choice


@register_selector("grad-norm", needs=("grad_norm",), description="rank by grad_norm: the longest gradients (GraNd)")
def grad_norm(
    problem: Problem, *, where: str = "top", stratified: bool = False, bins: int = 50, trim: float = 0.05
) -> Choice:
    """Rank by the length of the sample's gradient.

    Args:
        problem: feature `grad_norm` [N], budget, seed.
        where: see `by_one_score`.
        stratified: see `by_one_score`.
        bins: see `by_one_score`.
        trim: see `by_one_score`.

    Returns:
        The choice.

    Raises:
        InputError: the feature or an option is malformed.
    """
    return by_one_score(problem, "grad_norm", where, stratified, bins, trim)
