"""Density-based pruning (Abbas et al. 2024): more rows to spread-out, far-off clusters; in each the least typical."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from liit.selection.arrays import Floats, Ints
from liit.selection.budget import allocate_weighted
from liit.selection.clusters import Clusters, centroids, choose, cluster_feature, cosines_to_centroid
from liit.selection.kmeans import DEFAULT_GRID
from liit.selection.options import as_compat, as_positive
from liit.selection.problem import Problem
from liit.selection.registry import register_selector
from liit.selection.result import Choice


@register_selector(
    "density",
    needs=("embedding",),
    description="clusters of embeddings, budgets by complexity; in each the rows least similar to the centroid",
)
def density(
    problem: Problem,
    *,
    temperature: float = 0.1,
    k: int | None = None,
    k_grid: Sequence[int] = DEFAULT_GRID,
    labels: npt.ArrayLike | None = None,
    compat: str | None = None,
) -> Choice:
    """Select by density.

    Per cluster: d_intra, the mean cosine distance of its rows to its centroid; d_inter, the mean cosine distance of its
    centroid to the others; complexity C = d_intra * d_inter; share softmax(C / temperature), capped by the size of the
    cluster and passed on. Inside a cluster the rows least similar to the centroid are kept.

    Args:
        problem: feature `embedding` [N, d], budget, seed.
        temperature: tau, above 0.
        k: number of clusters; None: by the elbow over `k_grid`.
        k_grid: numbers of clusters to try.
        labels: clusters of the rows, if they are already known; numbered anew in sorted order.
        compat: "official": shares C / sum C, without a temperature, as in the code of Adapt-infinity.

    Returns:
        The choice; the score is the cosine to the centroid. Rows without an embedding are a cluster of complexity 0.

    Raises:
        InputError: the feature or an option is malformed.
    """
    tau, official = as_positive(temperature, "temperature"), as_compat(compat)
    clusters = cluster_feature(problem, "embedding", k, k_grid, labels)
    centres = centroids(clusters)
    cosine = cosines_to_centroid(clusters, centres)
    intra, inter = _distances(clusters, centres, cosine)
    complexity = intra * inter
    sizes = np.array([len(m) for m in clusters.members], dtype=np.int64)
    weights = complexity if official else softmax(complexity / tau)
    shares = allocate_weighted(sizes, weights, problem.budget)
    details = [{"intra": float(a), "inter": float(b)} for a, b in zip(intra, inter, strict=True)]

    def least_typical_first(c: int, members: Ints, share: int) -> Ints:
        value = np.where(np.isnan(cosine[members]), np.inf, cosine[members])
        return members[np.argsort(value, kind="stable")]

    return choose(problem, clusters, shares, cosine, "cosine to the centroid", details, least_typical_first)


def _distances(clusters: Clusters, centres: Floats, cosine: Floats) -> tuple[Floats, Floats]:
    count = len(centres)
    distance = np.where(np.isnan(cosine), 0.0, 1.0 - cosine)
    known = ~np.isnan(cosine)
    rows = np.bincount(clusters.labels, weights=known, minlength=count)
    intra = np.bincount(clusters.labels, weights=distance, minlength=count) / np.maximum(rows, 1)
    held = rows > 0
    others = max(1, int(held.sum()) - 1)
    apart = np.where(held[None, :] & held[:, None], 1.0 - centres @ centres.T, 0.0)
    np.fill_diagonal(apart, 0.0)
    return np.maximum(intra, 0.0), np.maximum(apart.sum(axis=1) / others, 0.0)


def softmax(values: Floats) -> Floats:
    """Softmax, rounded so that equal values have equal shares."""
    raised = np.exp(values - values.max(initial=-np.inf)) if len(values) else values
    shares: Floats = np.round(raised / max(float(raised.sum()), 1e-300), 12)
    return shares
