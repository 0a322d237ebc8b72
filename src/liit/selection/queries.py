"""Queries of the targeted selectors: examples of what the model should become good at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from liit.errors import InputError
from liit.selection.arrays import AnyArray, Floats, Ints, as_labels, as_matrix


@dataclass(frozen=True)
class Queries:
    """Query vectors and the sub-task of each.

    Attributes:
        vectors: float64 [V, d], as given (not normalised).
        groups: int64 [V], sub-tasks numbered in order of first appearance; None when no groups were given.
        missing: queries left out because a value in their vector is missing.
    """

    vectors: Floats
    groups: Ints | None
    missing: int


def read_queries(queries: Any, groups: npt.ArrayLike | None, feature: str, dim: int) -> Queries:
    """Check the queries of a selector.

    Args:
        queries: [V, d] vectors, or a mapping that has them under the name of the feature.
        groups: [V] labels of sub-tasks, or None.
        feature: the feature of the pool that they are compared with.
        dim: its d.

    Returns:
        The queries; those with a missing value are left out and counted.

    Raises:
        InputError: no queries, another d, infinite values, or groups of another length.
    """
    if isinstance(queries, Mapping):
        if feature not in queries:
            raise InputError(
                f"queries must have the feature {feature}; it has {', '.join(map(str, queries)) or 'none'}"
            )
        queries = queries[feature]
    if queries is None:
        raise InputError(f"queries must be given: {feature} of the target examples, shape [V, {dim}]")
    vectors = single64(as_matrix(queries, "queries"), "queries")
    if vectors.shape[1] != dim:
        raise InputError(f"queries must have {dim} columns like {feature} of the pool, got {vectors.shape[1]}")
    known = ~np.isnan(vectors).any(axis=1)
    if not known.any():
        raise InputError(f"queries must hold at least one complete vector, got {len(vectors)} rows without one")
    numbered = None if groups is None else _by_appearance(as_labels(groups, "groups", len(vectors))[known])
    return Queries(vectors[known], numbered, int((~known).sum()))


def single64(array: AnyArray, name: str) -> Floats:
    """Round to float32 and widen to float64; refuse infinite values.

    Raises:
        InputError: infinite values, or values beyond float32.
    """
    with np.errstate(over="ignore"):
        wide = array.astype(np.float32).astype(np.float64)
    if np.isinf(wide).any():
        raise InputError(f"{name} has infinite values (or values beyond float32); use NaN for a missing vector")
    return wide


def _by_appearance(labels: Ints) -> Ints:
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse].astype(np.int64)
