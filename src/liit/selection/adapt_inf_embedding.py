"""Adapt-infinity's rule with pseudo-skills by hidden states instead of gradients: a variant of ours."""

from __future__ import annotations

from collections.abc import Sequence

import numpy.typing as npt

from liit.selection._experts import built_in_experts
from liit.selection.adapt_infinity import ChoiceOptions, choose_by_pseudo_skill
from liit.selection.kmeans import DEFAULT_GRID
from liit.selection.problem import Problem
from liit.selection.registry import register_selector
from liit.selection.result import Choice


@register_selector(
    "adapt-inf-embedding",
    needs=("embedding",),
    reads=built_in_experts(),
    description="adapt-inf with pseudo-skills by mean hidden state instead of gradient (ours)",
)
def adapt_inf_embedding(
    problem: Problem,
    *,
    expert: str = "entropy",
    experts: Sequence[str] | None = None,
    k: int | None = None,
    k_grid: Sequence[int] = DEFAULT_GRID,
    bins: int = 50,
    trim: float = 0.05,
    labels: npt.ArrayLike | None = None,
) -> Choice:
    """`adapt-inf`, but clusters of `embedding`, the mean hidden state of a middle layer; not in the paper.

    The gradient of a short answer follows the answer's tokens, so clusters of gradients tend to be answers, and a skill
    with many frequent answers gets many clusters and much of the budget. Hidden states follow the question and the
    picture as well. Without `grad_norm` among the experts nothing here needs a backward pass.

    Args:
        problem: features `embedding` [N, d] and the columns of the experts, budget, seed.
        expert: as in `adapt-inf`.
        experts: as in `adapt-inf`.
        k: as in `adapt-inf`.
        k_grid: as in `adapt-inf`.
        bins: as in `adapt-inf`.
        trim: as in `adapt-inf`.
        labels: as in `adapt-inf`.

    Returns:
        The choice, described as by `adapt-inf`.

    Raises:
        InputError: a malformed option or feature, or no column of any expert.
    """
    options = ChoiceOptions(expert, experts, k, k_grid, bins, trim, None, labels)
    return choose_by_pseudo_skill(problem, "embedding", options)
