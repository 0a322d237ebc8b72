"""Image grounding (Adapt-infinity): how much the image helps to predict the answer."""

from __future__ import annotations

from liit.selection.one_score import by_one_score
from liit.selection.problem import Problem
from liit.selection.registry import register_selector
from liit.selection.result import Choice


@register_selector(
    "image-grounding",
    needs=("image_grounding",),
    description="rank by image_grounding: answers that the image helps most",
)
def image_grounding(
    problem: Problem, *, where: str = "top", stratified: bool = False, bins: int = 50, trim: float = 0.05
) -> Choice:
    """Rank by perplexity without the image over perplexity with it; above 1 the image helps.

    Args:
        problem: feature `image_grounding` [N], budget, seed.
        where: see `by_one_score`.
        stratified: see `by_one_score`.
        bins: see `by_one_score`.
        trim: see `by_one_score`.

    Returns:
        The choice.

    Raises:
        InputError: the feature or an option is malformed.
    """
    return by_one_score(problem, "image_grounding", where, stratified, bins, trim)
