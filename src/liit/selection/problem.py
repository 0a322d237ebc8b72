"""What a selector sees: checked features in an order that does not depend on how the caller happened to store them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from liit.errors import InputError
from liit.selection.arrays import (
    AnyArray,
    Floats,
    Ints,
    as_array,
    as_matrix,
    as_scores,
    as_strings,
    numbered_labels,
)
from liit.selection.blocks import UnitRows
from liit.selection.options import as_count

_MIXERS = (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53)


class Problem:
    """Features, budget and seed, in canonical order.

    Everything a selector reads comes in canonical order, and it answers with positions in that order: rows sorted by
    id. Randomness and ties are tied to that order too, so a permutation of the rows permutes the answer. Without ids
    the order is by content (a hash of all columns), identical rows by row number; ties between equal
    scores then go by row number, which is the order of arrival.

    Attributes:
        n: number of rows.
        budget: rows to select, already cut to `n`.
        seed: seed of everything random.
        ids: the id of every row, in row order.
        order: the row number at every canonical position.
        arrival: the rank by which ties at a canonical position are settled.
    """

    def __init__(self, features: Mapping[str, Any], budget: int, seed: int) -> None:
        """Check the features and find their canonical order.

        Args:
            features: columns by name, with or without "id".
            budget: rows wanted.
            seed: seed.

        Raises:
            InputError: no column at all, ids repeated or of the wrong shape, columns of different lengths, a budget or
                seed that is not a whole number of at least 0.
        """
        if not isinstance(features, Mapping):
            raise InputError(f"features must map names to arrays, got {type(features).__name__}")
        self._features = features
        self._cache: dict[str, AnyArray] = {}
        self.seed = as_count(seed, "seed")
        self.n = self._length()
        self.budget = min(as_count(budget, "budget"), self.n)
        self.has_ids = "id" in features
        self.ids = _as_ids(self._column("id")) if self.has_ids else np.arange(self.n, dtype=np.int64)
        if self.has_ids:
            self.order: Ints = np.argsort(self.ids, kind="stable").astype(np.int64)
            self.arrival: Ints = np.arange(self.n, dtype=np.int64)
            ordered = self.ids[self.order]
            repeated = np.flatnonzero(ordered[1:] == ordered[:-1])
            if repeated.size:
                raise InputError(f"id must be unique, got {ordered[repeated[0]]!r} more than once")
        else:
            self.order = self._by_content()
            self.arrival = self.order

    def __contains__(self, name: str) -> bool:
        return name in self._features

    def scores(self, name: str) -> Floats:
        """One number per row of a scalar feature, NaN where missing.

        Raises:
            InputError: not [N] numbers.
        """
        return as_scores(self._column(name), name, self.n)[self.order]

    def matrix(self, name: str) -> AnyArray:
        """A vector feature as it is stored, in ROW order (it may be too large to reorder).

        Raises:
            InputError: not [N, d] numbers.
        """
        if not self.n:
            return np.zeros((0, 1), dtype=np.float32)
        return as_matrix(self._column(name), name, self.n)

    def unit_rows(self, name: str) -> UnitRows:
        """A vector feature as unit rows, in canonical order.

        Raises:
            InputError: not [N, d] numbers, or infinite values.
        """
        return UnitRows(self.matrix(name), name, self._gather())

    def labels(self, values: npt.ArrayLike, name: str) -> tuple[Ints, AnyArray]:
        """Labels of the rows numbered in sorted order, in canonical order; and the sorted labels.

        Raises:
            InputError: not [N] labels.
        """
        numbered, names = numbered_labels(values, name, self.n)
        return numbered[self.order], names

    def column(self, name: str) -> AnyArray:
        """A column as it is, in canonical order.

        Raises:
            InputError: not [N].
        """
        array = self._column(name)
        if array.shape != (self.n,):
            raise InputError(f"{name} must have one value per row (shape [{self.n}]), got shape {list(array.shape)}")
        return array[self.order]

    def draws(self, *stream: int) -> Floats:
        """One random number per row, the same for the same seed and stream."""
        return np.random.default_rng([self.seed, *stream]).random(self.n)

    def _gather(self) -> Ints | None:
        return None if np.array_equal(self.order, np.arange(self.n)) else self.order

    def _column(self, name: str) -> AnyArray:
        if name not in self._cache:
            self._cache[name] = as_array(self._features[name], name)
        return self._cache[name]

    def _length(self) -> int:
        if isinstance(self._features, dict):  # other mappings may read a column from disk when asked for it
            lengths = {name: self._column(name).shape[:1] for name in self._features}
            if len(set(lengths.values())) > 1:
                listed = ", ".join(f"{name} {length[0] if length else 'none'}" for name, length in lengths.items())
                raise InputError(f"features must all have the same number of rows, got {listed}")
        for name in ("id", *self._features):
            if name in self._features:
                shape = self._column(name).shape
                if not shape:
                    raise InputError(f"{name} must have one value per row, got a single value")
                return int(shape[0])
        raise InputError("features has no columns; give at least one, for example id")

    def _by_content(self) -> Ints:
        code = np.zeros(self.n, dtype=np.uint64)
        for name in sorted(self._features):
            array = self._column(name)
            if len(array) != self.n:
                raise InputError(f"{name} must have {self.n} rows like the other columns, got {len(array)}")
            code = (code * np.uint64(_MIXERS[0])) ^ _row_codes(array.reshape(self.n, -1) if self.n else array)
        return np.argsort(code, kind="stable").astype(np.int64)


def _as_ids(ids: AnyArray) -> AnyArray:
    if ids.ndim != 1:
        raise InputError(f"id must have one value per row (shape [N]), got shape {list(ids.shape)}")
    if not len(ids):
        return ids if ids.dtype.kind in "iuU" else np.zeros(0, dtype="<U1")
    ids = as_strings(ids, "id")
    if ids.dtype.kind not in "iuU":
        raise InputError(f"id must be strings or whole numbers, got an array of {ids.dtype}")
    return ids


def _row_codes(array: AnyArray) -> npt.NDArray[np.uint64]:
    """A 64-bit code of each row: equal for equal float32 values, whatever the width they came in."""
    if array.dtype.kind not in "fiub":
        array = np.unique(array.astype(str), return_inverse=True)[1].reshape(array.shape).astype(np.float64)
    width = int(np.prod(array.shape[1:], dtype=np.int64))
    odd = np.random.default_rng(0).integers(1, 2**63, size=max(1, width), dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    codes = np.empty(len(array), dtype=np.uint64)
    step = max(1, (1 << 20) // max(1, width))
    for start in range(0, len(array), step):
        with np.errstate(over="ignore"):
            block = np.ascontiguousarray(array[start : start + step], dtype=np.float32).reshape(-1, width) + np.float32(
                0
            )
        block[np.isnan(block)] = np.nan  # one bit pattern for every NaN
        mixed = block.view(np.uint32).astype(np.uint64) + np.uint64(1)
        mixed ^= mixed << np.uint64(29)
        codes[start : start + step] = (mixed * odd[:width]).sum(axis=1, dtype=np.uint64)
    codes ^= codes >> np.uint64(33)
    codes *= np.uint64(_MIXERS[1])
    return codes ^ (codes >> np.uint64(29))
