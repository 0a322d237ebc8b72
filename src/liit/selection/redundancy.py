"""How redundant a row is: its cosine to the most similar earlier row of its cluster, exact, in blocks.

Only pairs (earlier, later) are computed, one block of rows against one block of earlier rows at a time, so memory is
bounded by a setting and no n x n matrix exists. Approximate neighbour indexes are slower than this below about 100 000
rows a cluster, and wrong for part of the rows (HNSW: recall@1 of .53 in our measurements).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from liit.selection.arrays import Floats, Ints, Singles
from liit.selection.blocks import UnitRows, product

DEFAULT_MEMORY = 256 << 20

# Wide blocks of earlier rows: a product must be long enough to be worth splitting over threads.
_ROWS = 512
_EARLIER = 8192


@dataclass(frozen=True)
class Redundancy:
    """Redundancy of N rows.

    Attributes:
        similarity: float64 [N], max cosine to an earlier row of the same cluster; -inf for the first row of a cluster
            and for rows without an embedding.
        neighbour: int64 [N], that earlier row; -1 where there is none.
    """

    similarity: Floats
    neighbour: Ints


def redundancy(rows: UnitRows, labels: Ints, memory: int = DEFAULT_MEMORY) -> Redundancy:
    """Compare every row with the earlier ones of its cluster.

    Args:
        rows: embeddings; earlier means at a smaller position of this view.
        labels: int64 [N], the cluster of every position.
        memory: bytes that may be used for copies of rows and for cosines (a few numbers per row of the pool come on
            top, and blocks are never smaller than 16 rows); a cluster that does not fit is gathered again for each
            block.

    Returns:
        Similarities and neighbours by position. The neighbour is found in float32 and its cosine then computed in
        float64, so that rows that are equal have similarities that are equal.
    """
    similarity = np.full(len(rows), -np.inf)
    neighbour = np.full(len(rows), -1, dtype=np.int64)
    present = np.flatnonzero(~rows.missing)
    in_clusters = present[np.argsort(labels[present], kind="stable")]
    _, starts = np.unique(labels[in_clusters], return_index=True)
    for members in np.split(in_clusters, starts[1:]) if len(in_clusters) else []:
        best, at = _nearest_earlier(rows.select(members), memory)
        similarity[members] = best
        neighbour[members[1:]] = members[at[1:]]
    return Redundancy(similarity, neighbour)


def _nearest_earlier(rows: UnitRows, memory: int) -> tuple[Floats, Ints]:
    n = len(rows)
    # A row takes 4 d bytes as it is and as much again as a unit row; a cosine takes 4 and as much again while the
    # parts of a product are summed. The unit rows of the cluster, or else each block of them, get half of the memory.
    block_rows = max(16, min(_ROWS, memory // (64 * max(1, rows.dim))))
    fit = memory // 2 // (8 * max(rows.dim, block_rows))
    # a multiple of the rows per block, so that the block on the diagonal is the only one to be masked
    width = block_rows * max(1, min(_EARLIER, fit) // block_rows)
    cached = rows.unit(slice(0, n)) if 8 * n * rows.dim <= memory else None

    def unit(start: int, stop: int) -> Singles:
        return rows.unit(slice(start, stop)) if cached is None else cached[start:stop]

    similarity = np.full(n, -np.inf)
    at = np.full(n, -1, dtype=np.int64)
    for start in range(0, n, block_rows):
        stop = min(start + block_rows, n)
        later = unit(start, stop)
        best = np.full(stop - start, -np.inf, dtype=np.float32)
        found = np.full(stop - start, -1, dtype=np.int64)
        for first in range(0, start, width):
            _improve(best, found, product(later, unit(first, min(first + width, start))), first)
        inside = product(later, later)
        inside[np.triu_indices(len(later))] = -np.inf
        _improve(best, found, inside, start)
        if start == 0:
            found[0] = -1
        at[start:stop] = found
        similarity[start:stop] = _exact(rows, slice(start, stop), found)
    return similarity, at


def _improve(best: Singles, found: Ints, cosines: Singles, offset: int) -> None:
    """Keep the larger of what was found and the best of a block; equal ones stay with the earlier row."""
    column = np.argmax(cosines, axis=1)
    value = cosines[np.arange(len(best)), column]
    better = value > best
    best[better] = value[better]
    found[better] = column[better] + offset


def _exact(rows: UnitRows, part: slice, found: Ints) -> Floats:
    """Cosines of the pairs found, in float64."""
    exact = np.full(len(found), -np.inf)
    some = np.flatnonzero(found >= 0)
    if some.size:
        a = rows.raw(part)[some].astype(np.float64)
        b = rows.raw(found[some]).astype(np.float64)
        length = np.sqrt(np.einsum("ij,ij->i", a, a) * np.einsum("ij,ij->i", b, b))
        cosine = np.einsum("ij,ij->i", a, b) / np.where(length > 0, length, 1.0)
        exact[some] = np.round(cosine, 12)
    return exact


def least_redundant(similarity: Floats, positions: Ints, keep: int) -> Ints:
    """The `keep` positions with the smallest similarity, ties to the earlier one."""
    return positions[np.argsort(similarity[positions], kind="stable")[:keep]]
