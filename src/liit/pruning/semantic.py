"""Permanent pruning: cut a pool to size by dropping what it holds twice (LITE-Adapt-infinity, SemDeDup's rule)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from liit.errors import InputError
from liit.selection.arrays import AnyArray, Floats, Ints, as_array, as_labels, as_matrix
from liit.selection.blocks import UnitRows
from liit.selection.budget import allocate
from liit.selection.options import as_count
from liit.selection.redundancy import DEFAULT_MEMORY, least_redundant, redundancy


@dataclass(frozen=True)
class Pruning:
    """What stays, what goes, and beside what it was redundant.

    Attributes:
        kept: int64 rows that stay, sorted.
        pruned: int64 rows that go, sorted.
        neighbour: int64 [N], the earlier row of the same cluster most similar to each row; -1 where there is none. It
            may itself have been pruned.
        similarity: float64 [N], the cosine to it; -inf where there is none.
    """

    kept: Ints
    pruned: Ints
    neighbour: Ints
    similarity: Floats


def semantic_prune(
    embeddings: npt.ArrayLike,
    labels: npt.ArrayLike,
    keep: int,
    order: npt.ArrayLike | None = None,
    *,
    memory: int = DEFAULT_MEMORY,
) -> Ints:
    """Keep the semantically least redundant rows of each cluster.

    Rows kept per cluster by water-filling (`allocate`): large clusters lose most, small ones nothing. Inside a cluster
    M_j = max over earlier rows i < j of cos(embedding_i, embedding_j), and the rows with the smallest M stay; ties stay
    with the earlier row (Adapt-infinity, section 3.3; Abbas et al. 2023). The first row of a cluster, and a row without
    an embedding (a NaN in it), is redundant to nothing and stays first.

    Args:
        embeddings: [N, d]; any length, only directions count. A row of zeros has cosine 0 with everything.
        labels: [N], the cluster of every row; whole numbers or strings.
        keep: rows to keep, in all.
        order: the row numbers from the earliest to the latest; None: as they stand, the order of arrival.
        memory: bytes for copies of rows; the result does not depend on it.

    Returns:
        int64 kept rows, sorted, exactly `min(keep, N)`.

    Raises:
        InputError: shapes that do not fit, infinite embeddings, keep negative, or order not a permutation.
    """
    return prune_semantically(embeddings, labels, keep, order, memory=memory).kept


def prune_semantically(
    embeddings: npt.ArrayLike,
    labels: npt.ArrayLike,
    keep: int,
    order: npt.ArrayLike | None = None,
    *,
    memory: int = DEFAULT_MEMORY,
) -> Pruning:
    """`semantic_prune` with its evidence: the neighbour of every row and their cosine.

    Args:
        embeddings: as `semantic_prune`.
        labels: as `semantic_prune`.
        keep: as `semantic_prune`.
        order: as `semantic_prune`.
        memory: as `semantic_prune`.

    Returns:
        Kept and pruned rows, neighbours and similarities.

    Raises:
        InputError: as `semantic_prune`.
    """
    wanted = as_count(keep, "keep")
    matrix, sequence = _checked(embeddings, order)
    n = len(matrix)
    clusters = as_labels(labels, "labels", n)[sequence]
    rows = UnitRows(matrix, "embeddings", None if order is None else sequence)
    found = redundancy(rows, clusters, as_count(memory, "memory", minimum=1))
    shares = allocate(np.bincount(clusters), wanted)
    by_cluster = np.argsort(clusters, kind="stable")
    groups = np.split(by_cluster, np.cumsum(np.bincount(clusters))[:-1]) if n else []
    stay = [least_redundant(found.similarity, group, int(s)) for group, s in zip(groups, shares, strict=True)]
    kept = np.sort(sequence[np.concatenate(stay)]) if stay else np.zeros(0, dtype=np.int64)
    similarity, neighbour = np.empty(n), np.full(n, -1, dtype=np.int64)
    similarity[sequence] = found.similarity
    some = found.neighbour >= 0
    neighbour[sequence[some]] = sequence[found.neighbour[some]]
    return Pruning(kept, np.setdiff1d(np.arange(n), kept), neighbour, similarity)


def _checked(embeddings: npt.ArrayLike, order: npt.ArrayLike | None) -> tuple[AnyArray, Ints]:
    array = as_array(embeddings, "embeddings")
    matrix = as_matrix(array, "embeddings") if array.size or array.ndim == 2 else np.zeros((0, 1), np.float32)
    n = len(matrix)
    if order is None:
        return matrix, np.arange(n, dtype=np.int64)
    sequence = as_array(order, "order")
    if sequence.shape != (n,) or (n and (sequence.dtype.kind not in "iu" or (np.sort(sequence) != np.arange(n)).any())):
        raise InputError(f"order must be a permutation of the {n} row numbers, earliest first, got {sequence!r}")
    return matrix, sequence.astype(np.int64)
