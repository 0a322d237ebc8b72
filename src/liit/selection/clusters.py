"""What selectors that cluster embeddings share: the clusters, and the choice from shares and an order in each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from liit.selection.arrays import Floats, Ints
from liit.selection.blocks import UnitRows
from liit.selection.kmeans import DEFAULT_GRID, Clustering, cluster
from liit.selection.problem import Problem
from liit.selection.result import Choice


@dataclass(frozen=True)
class Clusters:
    """Clusters of a pool.

    Attributes:
        rows: the embeddings, in canonical order.
        labels: int64 [N]; the last cluster holds the rows without an embedding, if there are any.
        members: positions of each cluster, by arrival.
        info: k, the inertia curve and the number of rows without an embedding.
    """

    rows: UnitRows
    labels: Ints
    members: list[Ints]
    info: dict[str, Any]


def spherical_kmeans(
    x: npt.ArrayLike, k: int | None = None, k_grid: Sequence[int] = DEFAULT_GRID, seed: int = 0
) -> Clustering:
    """Cluster rows by direction: k-means with cosines to centroids of unit length.

    The number of clusters is given, or chosen from a grid by the elbow of the inertia curve; all of the grid is tried
    at the price of little more than one (see `liit.selection.kmeans`). The same rows in another order give the same
    clusters.

    Args:
        x: [N, d], of any length; a row of zeros has no direction, and one with a NaN is missing.
        k: number of clusters; None: by the elbow over `k_grid`.
        k_grid: numbers of clusters to try.
        seed: seed of everything random.

    Returns:
        The clustering, with labels in the order of the rows. Fewer than k distinct rows give fewer clusters.

    Raises:
        InputError: x not [N, d] or infinite, or k, a value of k_grid or the seed out of range.
    """
    problem = Problem({"x": x}, 0, seed)
    found = cluster(problem.unit_rows("x"), k, k_grid, problem.seed, spherical=True)
    labels = np.empty_like(found.labels)
    labels[problem.order] = found.labels
    return replace(found, labels=labels)


def cluster_members(labels: Ints, arrival: Ints | None = None) -> list[Ints]:
    """Positions of each cluster 0 to max(labels), by arrival (None: by position)."""
    count = int(labels.max(initial=-1)) + 1
    keys = (labels,) if arrival is None else (arrival, labels)
    by_label = np.lexsort(keys).astype(np.int64)
    return np.split(by_label, np.cumsum(np.bincount(labels, minlength=count))[:-1]) if count else []


def cluster_feature(
    problem: Problem,
    feature: str,
    k: int | None,
    grid: Sequence[int],
    labels: npt.ArrayLike | None,
    spherical: bool = True,
) -> Clusters:
    """Cluster a vector feature, or take the labels given.

    Raises:
        InputError: the feature or an option is malformed.
    """
    rows = problem.unit_rows(feature)
    info: dict[str, Any] = {"curve": [], "without_vector": int(rows.missing.sum())}
    if labels is not None:
        found, _ = problem.labels(labels, "labels")
        info["k"] = int(found.max(initial=-1)) + 1
    else:
        clustering = cluster(rows, k, grid, problem.seed, spherical)
        found = clustering.labels
        info |= {"k": clustering.k, "curve": clustering.curve}
    return Clusters(rows, found, cluster_members(found, problem.arrival), info)


def centroids(clusters: Clusters) -> Floats:
    """Mean direction of each cluster, unit length, float64 [C, d]; zero for a cluster without embeddings."""
    out = np.zeros((len(clusters.members), clusters.rows.dim))
    for part in clusters.rows.parts():
        np.add.at(out, clusters.labels[part], clusters.rows.unit64(part))
    lengths = np.linalg.norm(out, axis=1, keepdims=True)
    return out / np.where(lengths > 1e-9, lengths, 1.0)


def cosines_to_centroid(clusters: Clusters, centres: Floats) -> Floats:
    """Cosine of each row to the centroid of its cluster, float64 [N]; NaN without an embedding."""
    out = np.empty(len(clusters.rows))
    for part in clusters.rows.parts():
        out[part] = np.einsum("ij,ij->i", clusters.rows.unit64(part), centres[clusters.labels[part]])
    out[clusters.rows.missing] = np.nan
    return np.round(out, 9)


def choose(
    problem: Problem,
    clusters: Clusters,
    shares: Ints,
    score: Floats,
    expert: str,
    details: Sequence[dict[str, Any]],
    sequence: Callable[[int, Ints, int], Ints],
) -> Choice:
    """Take from each cluster its share.

    Args:
        problem: the problem.
        clusters: its clusters.
        shares: rows to take from each.
        score: what decides inside a cluster, [N], for the table.
        expert: its name.
        details: further facts of each cluster for `info`.
        sequence: (cluster, members, share) to the members in the order in which they are taken; at least `share` of
            them.

    Returns:
        The choice; the rank of a row is its place in its cluster's sequence.
    """
    rank = np.zeros(problem.n, dtype=np.int64)
    chosen = []
    table = []
    for c, (members, share) in enumerate(zip(clusters.members, shares, strict=True)):
        ordered = sequence(c, members, int(share))
        rank[ordered] = np.arange(1, len(ordered) + 1)
        chosen.append(ordered[: int(share)])
        table.append({"cluster": c, "size": len(members), "budget": int(share)} | dict(details[c]))

    def text(p: int) -> str:
        entry = table[int(clusters.labels[p])]
        place = f"number {rank[p]}" if rank[p] else "not reached"
        where = f"cluster {entry['cluster']} keeps {entry['budget']} of {entry['size']}"
        value = "missing" if np.isnan(score[p]) else f"{score[p]:.6g}"
        return f"{where}; {expert} {value}, {place} in its cluster"

    texts: Callable[[Ints], list[str]] = lambda at: [text(int(p)) for p in at]  # noqa: E731
    return Choice(
        chosen=np.concatenate(chosen) if chosen else np.zeros(0, dtype=np.int64),
        why=texts,
        why_not=texts,
        score=score,
        rank=rank,
        expert=expert,
        cluster=clusters.labels,
        info=clusters.info | {"clusters": table},
    )
