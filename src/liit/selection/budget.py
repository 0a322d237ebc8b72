"""Splitting a budget: evenly, in proportion, always to the last row."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from liit.errors import InputError
from liit.selection.arrays import Floats, Ints, as_array
from liit.selection.options import as_count


def allocate(sizes: npt.ArrayLike, total: int) -> Ints:
    """Split a budget over clusters as evenly as their sizes allow (water-filling).

    Every cluster gets the same share; one that is smaller than its share gives all it has, and what it could not take
    is shared again among the larger ones (Adapt-infinity, section 3.2). The official code rounds every share up and
    overshoots; here the shares sum exactly. What is left after equal shares, fewer rows than clusters, goes one each to
    the largest clusters, ties to the lower index.

    Args:
        sizes: rows available in each cluster, [C], whole numbers of at least 0.
        total: the budget in rows; more than there is means everything.

    Returns:
        int64 [C], `0 <= out <= sizes`, summing to exactly `min(total, sum(sizes))`.

    Raises:
        InputError: sizes are not a list of whole numbers of at least 0, or total is negative.
    """
    room = _as_sizes(sizes)
    total = min(as_count(total, "total"), int(room.sum()))
    low, high = 0, int(room.max(initial=0))
    while low < high:  # the highest level at which everybody's share still fits
        middle = (low + high + 1) // 2
        if int(np.minimum(room, middle).sum()) <= total:
            low = middle
        else:
            high = middle - 1
    shares = np.minimum(room, low)
    unserved = np.flatnonzero(room > low)
    largest_first = unserved[np.argsort(-room[unserved], kind="stable")]
    shares[largest_first[: total - int(shares.sum())]] += 1
    return shares


def allocate_weighted(sizes: npt.ArrayLike, weights: npt.ArrayLike, total: int) -> Ints:
    """Split a budget in proportion to weights, capped by size, what a cluster cannot take passed on.

    Fractions are settled by largest remainder, ties to the lower index. Clusters of weight 0 are served last, evenly.

    Args:
        sizes: rows available in each cluster, [C].
        weights: one finite number of at least 0 for each cluster, [C].
        total: the budget in rows.

    Returns:
        int64 [C], `0 <= out <= sizes`, summing to exactly `min(total, sum(sizes))`.

    Raises:
        InputError: as `allocate`; or weights of another length, negative or not finite.
    """
    room = _as_sizes(sizes)
    total = min(as_count(total, "total"), int(room.sum()))
    given = as_array(weights, "weights")
    weight: Floats = given.astype(np.float64) if given.dtype.kind in "fiub" else np.full(given.shape, np.nan)
    if weight.shape != room.shape or not np.isfinite(weight).all() or (weight < 0).any():
        raise InputError(f"weights must be {len(room)} finite numbers of at least 0, got {weights!r}")
    weight = weight / max(float(weight.max(initial=0.0)), np.finfo(np.float64).tiny)
    shares = np.zeros_like(room)
    open_ = (room > 0) & (weight > 0)
    exact = np.zeros(len(room))
    left = total
    while open_.any() and left > 0:
        exact[open_] = left * (weight[open_] / weight[open_].sum())
        full = open_ & (exact >= room)
        if not full.any():
            shares[open_] = np.floor(exact[open_]).astype(np.int64)
            candidates = np.flatnonzero(open_)
            # rounding makes equal fractions equal, so that the tie rule decides and not the last bit
            remainder = np.round(exact[candidates] - shares[candidates], 9)
            by_remainder = candidates[np.argsort(-remainder, kind="stable")]
            shares[by_remainder[: total - int(shares.sum())]] += 1
            return shares
        shares[full] = room[full]
        open_ &= ~full
        left = total - int(shares.sum())
    return shares + allocate(room - shares, total - int(shares.sum()))


def _as_sizes(sizes: npt.ArrayLike) -> Ints:
    array = as_array(sizes, "sizes")
    if array.ndim != 1 or (array.size and (array.dtype.kind not in "iu" or array.min() < 0)):
        raise InputError(f"sizes must be a list of whole numbers of at least 0, got {sizes!r}")
    if sum(array.tolist()) > np.iinfo(np.int64).max:
        raise InputError(f"sizes must sum to less than 2**63, got {sizes!r}")
    return array.astype(np.int64)
