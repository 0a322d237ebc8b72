"""What selectors that cluster embeddings share: the clusters, and the choice from shares and an order in each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from liit.selection.arrays import Floats, Ints, as_labels
from liit.selection.blocks import UnitRows
from liit.selection.kmeans import cluster
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
        found = as_labels(labels, "labels", problem.n)[problem.order]
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
