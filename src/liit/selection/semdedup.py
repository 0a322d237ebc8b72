"""SemDeDup (Abbas et al. 2023): in each cluster of embeddings, the rows least similar to an earlier one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from liit.selection.budget import allocate
from liit.selection.clusters import centroids, choose, cluster_feature, cosines_to_centroid
from liit.selection.kmeans import DEFAULT_GRID
from liit.selection.options import as_count, one_of
from liit.selection.problem import Problem
from liit.selection.redundancy import DEFAULT_MEMORY, least_redundant, redundancy
from liit.selection.registry import register_selector
from liit.selection.result import Choice

ORDERS = ("arrival", "centroid")


@register_selector(
    "semdedup",
    needs=("embedding",),
    description="clusters of embeddings, even budgets; in each the rows least similar to an earlier row",
)
def semdedup(
    problem: Problem,
    *,
    k: int | None = None,
    k_grid: Sequence[int] = DEFAULT_GRID,
    labels: npt.ArrayLike | None = None,
    order: str = "arrival",
    memory: int = DEFAULT_MEMORY,
) -> Choice:
    """Select by SemDeDup's rule, shares by water-filling.

    Score: M_j = max over earlier rows i < j of the cluster of cos(i, j); the smallest stay, ties to the earlier row.
    Rows without an embedding are a cluster of their own. The paper keeps what is below a threshold of M; here the
    budget says how many stay.

    Args:
        problem: feature `embedding` [N, d], budget, seed.
        k: number of clusters; None: by the elbow over `k_grid`.
        k_grid: numbers of clusters to try.
        labels: clusters of the rows, if they are already known; numbered anew in sorted order.
        order: which of two like rows is the earlier, and so the one that stays. "arrival" (the code of Adapt-infinity):
            that with the smaller id, or, without ids, the smaller row number; "centroid" (SemDeDup's own code): that
            less similar to the centroid of the cluster.
        memory: bytes for copies of rows.

    Returns:
        The choice.

    Raises:
        InputError: the feature or an option is malformed.
    """
    limit = as_count(memory, "memory", minimum=1)
    one_of(order, "order", ORDERS)
    clusters = cluster_feature(problem, "embedding", k, k_grid, labels)
    typical = np.zeros(problem.n) if order == "arrival" else cosines_to_centroid(clusters, centroids(clusters))
    sequence = np.lexsort((problem.arrival, typical)).astype(np.int64)
    found = redundancy(clusters.rows.select(sequence), clusters.labels[sequence], limit)
    similarity = np.empty(problem.n)
    similarity[sequence] = found.similarity
    place = np.empty(problem.n, dtype=np.int64)
    place[sequence] = np.arange(problem.n)
    shares = allocate([len(m) for m in clusters.members], problem.budget)
    score = np.where(np.isfinite(similarity), similarity, np.nan)
    return choose(
        problem,
        clusters,
        shares,
        score,
        "similarity to an earlier row",
        [{} for _ in clusters.members],
        lambda c, members, share: least_redundant(similarity, members[np.argsort(place[members])], len(members)),
    )
