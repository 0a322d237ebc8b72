"""A matrix read in blocks: gathered in a given row order, as float32, scaled to unit length on the way.

The matrix itself may be float16, float32 or float64, in memory or memory-mapped; only one block at a time is converted,
so memory is bounded by the block and not by the matrix.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from threading import Lock

import numpy as np
from threadpoolctl import ThreadpoolController

from liit.errors import InputError
from liit.selection.arrays import AnyArray, Bools, Floats, Ints, Singles

BLOCK_BYTES = 16 << 20

# How a BLAS library adds up a product depends on the number of threads: it splits a deep inner dimension into runs, and
# it cuts the output into parts, one for each thread, whose edges many kernels add up otherwise than the middle (in
# float32 those of processors without AVX-512 do). So liit cuts the output itself, always in the same places, and lets
# BLAS use one thread for each part. OpenBLAS gives products below 2**18 multiplications to one thread anyway: float64
# is done in tiles of that size.
_ROWS_SINGLE = 256
_TILE_ROWS, _TILE_COLUMNS, _TILE_DEPTH = 64, 31, 128
_alone = Lock()


def product(a: AnyArray, b: AnyArray) -> AnyArray:
    """Compute a @ b.T with the same bits for any number of BLAS threads.

    float32 products use as many threads as BLAS would, float64 ones a single thread.

    Args:
        a: float32 or float64 [n, d].
        b: the same dtype, [m, d].

    Returns:
        [n, m].
    """
    if len(a) < len(b):
        return product(b, a).T
    return _in_rows(a, b) if a.dtype == np.float32 else _in_tiles(a, b)


def _in_rows(a: AnyArray, b: AnyArray) -> Singles:
    out = np.empty((len(a), len(b)), dtype=np.float32)

    def fill(start: int) -> None:
        part = slice(start, start + _ROWS_SINGLE)
        np.matmul(a[part], b.T, out=out[part])

    starts = range(0, len(a), _ROWS_SINGLE)
    blas = _blas()
    with _alone:  # the limit is the process's, not the thread's
        threads = min(len(starts), max((library["num_threads"] for library in blas.info()), default=1))
        with blas.limit(limits=1):
            if threads <= 1:
                for start in starts:
                    fill(start)
            else:
                with ThreadPoolExecutor(threads, "liit-product") as workers:
                    list(workers.map(fill, starts))
    return out


@cache
def _blas() -> ThreadpoolController:
    """The BLAS libraries of this process; empty where their threads cannot be set (Accelerate)."""
    return ThreadpoolController().select(user_api="blas")


def _in_tiles(a: AnyArray, b: AnyArray) -> Floats:
    out = np.zeros((len(a), len(b)))
    whole = len(a) - len(a) % _TILE_ROWS
    for start in range(0, a.shape[1], _TILE_DEPTH):
        left, right = (x[:, start : start + _TILE_DEPTH] for x in (a, b))
        tiles = left[:whole].reshape(whole // _TILE_ROWS, _TILE_ROWS, left.shape[1])
        for first in range(0, len(b), _TILE_COLUMNS):
            columns = slice(first, first + _TILE_COLUMNS)
            some = np.ascontiguousarray(right[columns].T)
            out[:whole, columns] += (tiles @ some).reshape(whole, some.shape[1])
            out[whole:, columns] += left[whole:] @ some
    return out


class UnitRows:
    """Rows of a matrix in a given order, scaled to length 1.

    Rows with a NaN are missing and rows of zeros have no direction; `missing` tells the former, the latter stay zero.
    Reading the matrix once, at the start, finds the norms; every block after that is one gather, one cast, one product.
    """

    def __init__(self, matrix: AnyArray, name: str, order: Ints | None = None) -> None:
        """Measure the rows.

        Args:
            matrix: [N, d] numbers.
            name: argument or feature, for messages.
            order: row numbers; position p of this view is row `order[p]`. None: the rows as they are.

        Raises:
            InputError: infinite values, or values beyond float32.
        """
        self.matrix = matrix
        self.order = order
        self.dim = int(matrix.shape[1]) if matrix.ndim == 2 else 0
        self.norms: Floats = np.empty(len(self))
        for part in self.parts():
            self.norms[part] = _norms(self.raw(part), name)
        self.missing: Bools = np.isnan(self.norms)
        with np.errstate(divide="ignore", invalid="ignore"):
            self._scale: Floats = np.where(self.norms > 0, 1.0 / self.norms, 0.0)

    def __len__(self) -> int:
        return len(self.matrix) if self.order is None else len(self.order)

    def parts(self, rows: int | None = None) -> Iterator[slice]:
        """Slices of positions that cover the view, each of at most `rows` rows (default: 16 MiB of float32)."""
        step = rows or max(256, BLOCK_BYTES // (4 * max(1, self.dim)))
        for start in range(0, len(self), step):
            yield slice(start, min(start + step, len(self)))

    def raw(self, part: slice | Ints) -> Singles:
        """The rows at those positions as they are, float32; read-only, it may be the caller's own memory."""
        block = self.matrix[part] if self.order is None else self.matrix[self.order[part]]
        with np.errstate(over="ignore"):
            return np.ascontiguousarray(block, dtype=np.float32)

    def unit(self, part: slice | Ints) -> Singles:
        """The rows at those positions, scaled to length 1 (zero rows stay zero, missing rows become zero)."""
        block = self.raw(part)
        scale = self._scale[part]
        if float(np.abs(scale).max(initial=0.0)) > 1e30:  # below float32's range: scale in float64
            unit = (block.astype(np.float64) * scale[:, None]).astype(np.float32)
        else:
            unit = block * scale[:, None].astype(np.float32)
        gone = self.missing[part]
        if gone.any():
            unit[gone] = 0.0
        return unit

    def unit64(self, part: slice | Ints) -> Floats:
        """As `unit`, in float64: for the few products whose order decides the answer."""
        unit: Floats = self.raw(part).astype(np.float64) * self._scale[part][:, None]
        unit[self.missing[part]] = 0.0
        return unit

    def select(self, positions: Ints) -> UnitRows:
        """A view of some positions of this view, without measuring again."""
        view = object.__new__(UnitRows)
        view.matrix, view.dim = self.matrix, self.dim
        view.order = positions if self.order is None else self.order[positions]
        view.norms, view.missing, view._scale = self.norms[positions], self.missing[positions], self._scale[positions]
        return view


def _norms(block: Singles, name: str) -> Floats:
    squares = np.einsum("ij,ij->i", block, block).astype(np.float64)
    # Sums of float32 squares leave the range of float32 below 1e-19 and above 1e19; those few rows again, in float64.
    doubtful = np.flatnonzero(~((squares > 1e-30) & (squares < 1e30)))
    if doubtful.size:
        wide = block[doubtful].astype(np.float64)
        if np.isinf(wide).any():
            raise InputError(f"{name} has infinite values (or values beyond float32); use NaN for a missing vector")
        squares[doubtful] = np.einsum("ij,ij->i", wide, wide)
    norms: Floats = np.sqrt(squares)
    return norms
