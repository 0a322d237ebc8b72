"""COINCIDE (Lee et al. 2024): many concept clusters, budgets by transferability over density, MMD inside."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from liit.selection.arrays import Floats, Ints
from liit.selection.blocks import UnitRows, product
from liit.selection.budget import allocate
from liit.selection.clusters import centroids, choose, cluster_feature
from liit.selection.density import softmax
from liit.selection.options import as_compat, as_positive
from liit.selection.problem import Problem
from liit.selection.registry import register_selector
from liit.selection.result import Choice

NEAR_COPY = 0.9
# The official code makes 10 000 clusters of 665 000 rows. The cap keeps k-means from dominating larger pools.
ROWS_PER_CLUSTER = 66
MOST_CLUSTERS = 2000

_KERNEL_ROWS = 1024


@register_selector(
    "coincide",
    needs=("embedding",),
    description="many clusters of embeddings, budgets by transferability over density; in each the best likeness (MMD)",
)
def coincide(
    problem: Problem,
    *,
    temperature: float = 0.1,
    sigma: float = 1.0,
    k: int | None = None,
    labels: npt.ArrayLike | None = None,
    compat: str | None = None,
) -> Choice:
    """Select by transferability and density.

    Transferability T_i: mean cosine of centroid i to the other centroids, those above 0.9 (itself, near copies) left
    out; density D_i: mean Gaussian kernel over pairs of different rows of the cluster; share softmax(T_i / (D_i
    temperature)), taken from the largest share down with the rest renormalised. Inside a cluster rows are added
    greedily so that the squared MMD between the chosen rows and the whole cluster is least. The official rounding can
    miss the budget; here it is exact.

    Args:
        problem: feature `embedding` [N, d], budget, seed.
        temperature: tau, above 0.
        sigma: width of the Gaussian kernel on unit vectors, above 0.
        k: number of clusters; None: one per 66 rows (as the official 10 000 for 665 000), at most 2000.
        labels: clusters of the rows, if they are already known; numbered anew in sorted order.
        compat: "official": a row's kernel with itself, which is 1, counts in the density, as in the official code.

    Returns:
        The choice; the score is a row's mean kernel to its cluster, the rank the order in which it was added.

    Raises:
        InputError: the feature or an option is malformed.
    """
    tau, width = as_positive(temperature, "temperature"), as_positive(sigma, "sigma")
    official = as_compat(compat)
    if k is None:
        k = min(max(1, round(problem.n / ROWS_PER_CLUSTER)), MOST_CLUSTERS)
    clusters = cluster_feature(problem, "embedding", k, (k,), labels)
    likeness = np.full(problem.n, np.nan)
    spread = np.ones(len(clusters.members))
    for c, members in enumerate(clusters.members):
        present = members[~clusters.rows.missing[members]]
        if present.size:
            mean = _mean_kernel(clusters.rows.select(present), width)
            likeness[present] = np.round(mean, 9)
            n = len(present)
            with_itself = float(mean.mean())
            others_only = (with_itself * n - 1.0) / max(1, n - 1)
            spread[c] = with_itself if official or n == 1 else max(others_only, 1e-12)
    transfer = _transferability(centroids(clusters))
    sizes = np.array([len(m) for m in clusters.members], dtype=np.int64)
    shares = _from_the_largest(sizes, softmax(transfer / (spread * tau)), problem.budget)
    details = [{"transferability": float(a), "density": float(b)} for a, b in zip(transfer, spread, strict=True)]

    def by_mmd(c: int, members: Ints, share: int) -> Ints:
        gone = clusters.rows.missing[members]
        present = members[~gone]
        taken = greedy_mmd(clusters.rows.select(present), likeness[present], min(share, len(present)), width)
        return np.concatenate((present[taken], members[gone]))

    return choose(problem, clusters, shares, likeness, "mean kernel to its cluster", details, by_mmd)


def greedy_mmd(rows: UnitRows, mean: Floats, share: int, sigma: float = 1.0) -> Ints:
    """Add rows one by one so that the squared MMD between the chosen ones and all is least.

    MMD^2(S, C) = mean K(S, S) - 2 mean K(S, C) + const. With running sums of the kernel to the chosen rows a step costs
    O(n d); no table of candidate sets.

    Args:
        rows: the rows of a cluster.
        mean: mean kernel of each to the cluster, [n].
        share: rows wanted.
        sigma: width of the Gaussian kernel.

    Returns:
        int64 positions in the order in which they were added; ties go to the earlier position.
    """
    n = len(rows)
    chosen = np.zeros(min(share, n), dtype=np.int64)
    to_chosen = np.zeros(n)
    inside, across = 0.0, 0.0
    free = np.ones(n, dtype=bool)
    for step in range(len(chosen)):
        size = step + 1
        value = (inside + 2.0 * to_chosen + 1.0) / size**2 - 2.0 * (across + mean) / size
        best = int(np.argmin(np.where(free, np.round(value, 9), np.inf)))
        chosen[step] = best
        free[best] = False
        inside += 2.0 * to_chosen[best] + 1.0
        across += mean[best]
        if size == len(chosen):
            break
        picked = rows.unit(np.array([best]))
        for part in rows.parts():
            to_chosen[part] += _kernel(product(picked, rows.unit(part)), sigma)[0]
    return chosen


def _kernel(cosine: npt.NDArray[np.float32], sigma: float) -> Floats:
    """Gaussian kernel of unit vectors: |a - b|^2 = 2 - 2 cos."""
    kernel: Floats = np.exp(np.minimum(cosine.astype(np.float64) - 1.0, 0.0) / sigma**2)
    return kernel


def _mean_kernel(rows: UnitRows, sigma: float) -> Floats:
    """Mean kernel of each row to all rows, itself included, in blocks."""
    total = np.zeros(len(rows))
    for part in rows.parts(_KERNEL_ROWS):
        block = rows.unit(part)
        for other in rows.parts(_KERNEL_ROWS):
            total[part] += _kernel(product(block, rows.unit(other)), sigma).sum(axis=1)
    return total / max(1, len(rows))


def _transferability(centres: Floats) -> Floats:
    cosine = np.round(centres @ centres.T, 12)
    other = cosine <= NEAR_COPY
    np.fill_diagonal(other, False)
    held = np.linalg.norm(centres, axis=1) > 0
    other &= held[None, :]
    mean: Floats = np.where(other, cosine, 0.0).sum(axis=1) / np.maximum(other.sum(axis=1), 1)
    return mean


def _from_the_largest(sizes: Ints, weights: Floats, total: int) -> Ints:
    """Shares in proportion to weights, settled one by one from the largest; what is left at the end, evenly."""
    shares = np.zeros_like(sizes)
    left, mass = total, float(weights.sum())
    for c in np.argsort(-weights, kind="stable"):
        if left <= 0 or mass <= 0:
            break
        wanted = int(np.floor(left * min(1.0, float(weights[c]) / mass) + 0.5))
        shares[c] = min(int(sizes[c]), wanted, left)
        left -= int(shares[c])
        mass -= float(weights[c])
    return shares + allocate(sizes - shares, left)
