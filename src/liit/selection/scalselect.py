"""ScalSelect (Wu et al. 2026): leverage in the dominant subspace of instruction-conditioned image states."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from liit.errors import InputError
from liit.selection.arrays import AnyArray, Bools, Floats, Ints, as_array, as_matrix
from liit.selection.options import as_compat, as_share
from liit.selection.problem import Problem
from liit.selection.ranking import best_first, settled, take
from liit.selection.registry import register_selector
from liit.selection.result import Choice

FEATURE = "instructed_vision"

_ROWS = 4096
# Eigenvalues below this part of the largest are rounding: directions without variance have no leverage.
_RANK_TOLERANCE = 1e-13


def leverage(x: npt.ArrayLike, energy: float = 0.9) -> tuple[Floats, int]:
    """Leverage of every row in the dominant subspace of the centred matrix, in two passes over it.

    Xc = X - mean = U S Y^T; k is the least rank whose squared singular values hold `energy` of their sum; the leverage
    of row i is sum_{j<=k} U_ij^2 (ScalSelect, section 3). Computed from the d x d covariance, never from an N x d
    factor: algebraically the same as the official code's two full SVDs.

    Args:
        x: [N, d]; rows with NaN are left out.
        energy: share of the spectrum to keep, above 0 and at most 1.

    Returns:
        (scores float64 [N], k): scores between 0 and 1 that sum to k, NaN for rows left out.

    Raises:
        InputError: x not [N, d] or infinite, or energy out of range.
    """
    array = as_array(x, "x")
    matrix = as_matrix(array, "x") if array.size or array.ndim == 2 else np.zeros((0, 1))
    return _leverage(_Blocks(matrix, "x", None), energy)


@register_selector(
    "scalselect",
    needs=(FEATURE,),
    description="rows with the highest leverage in the dominant subspace of instruction-conditioned image states",
)
def scalselect(problem: Problem, *, energy: float = 0.9, compat: str | None = None) -> Choice:
    """Select the rows of highest leverage.

    The paper leaves samples without an image out; here they come last, in random order, so that the budget is exact.

    Args:
        problem: feature `instructed_vision` [N, d], budget, seed.
        energy: see `leverage`.
        compat: "official": columns are divided by their standard deviation and rows then by their length, the defaults
            of the official `cur.py` (the published script switches both off, as the paper says).

    Returns:
        The choice.

    Raises:
        InputError: as `leverage`, naming the feature.
    """
    blocks = _Blocks(problem.matrix(FEATURE), FEATURE, problem.order)
    scores, k = _leverage(blocks, energy, scaled=as_compat(compat))
    scores = settled(scores)
    choice = take(problem, best_first(problem, scores), scores, "leverage", "leverage")
    choice.info |= {"rank": k, "energy": energy}
    return choice


@dataclass(frozen=True)
class _Blocks:
    """The rows of a matrix in a given order, as float64 blocks of those that are complete."""

    matrix: AnyArray
    name: str
    order: Ints | None

    def __iter__(self) -> Iterator[tuple[slice, Floats, Bools]]:
        for start in range(0, len(self.matrix), _ROWS):
            part = slice(start, min(start + _ROWS, len(self.matrix)))
            with np.errstate(over="ignore"):
                rows = self.matrix[part if self.order is None else self.order[part]].astype(np.float32)
            if np.isinf(rows).any():
                raise InputError(
                    f"{self.name} has infinite values (or values beyond float32); use NaN for a missing vector"
                )
            known: Bools = np.logical_not(np.isnan(rows).any(axis=1))
            yield part, rows[known].astype(np.float64), known


@dataclass(frozen=True)
class _Scaling:
    """What is done to rows before anything else: mean taken off, columns divided, rows perhaps made unit."""

    mean: Floats
    deviation: Floats | None

    def __call__(self, rows: Floats) -> Floats:
        centred: Floats = rows - self.mean
        if self.deviation is None:
            return centred
        centred /= self.deviation
        lengths = np.linalg.norm(centred, axis=1, keepdims=True)
        return centred / np.where(lengths > 0, lengths, 1.0)


@dataclass(frozen=True)
class _Moments:
    """Mean, scatter around it and number of rows; `noise` is what of the scatter is rounding of the mean."""

    mean: Floats
    scatter: Floats
    count: int
    noise: float


def _moments(blocks: _Blocks) -> _Moments:
    d = blocks.matrix.shape[1]
    shift, total, gram, count = np.zeros(d), np.zeros(d), np.zeros((d, d)), 0
    for _, rows, _ in blocks:
        if not count and len(rows):
            shift = rows.mean(axis=0)  # near the mean, so that the difference below loses no digits
        rows -= shift
        total += rows.sum(axis=0)
        gram += rows.T @ rows
        count += len(rows)
    offset = total / max(1, count)
    mean = shift + offset
    noise = np.finfo(np.float64).eps * count * float(mean @ mean)
    return _Moments(mean, gram - count * np.outer(offset, offset), count, noise)


def _leverage(blocks: _Blocks, energy: float, scaled: bool = False) -> tuple[Floats, int]:
    share = as_share(energy, "energy")
    moments = _moments(blocks)
    out = np.full(len(blocks.matrix), np.nan)
    if not moments.count:
        return out, 0
    scatter, scaling = moments.scatter, _Scaling(moments.mean, None)
    if scaled:
        deviation = np.sqrt(np.maximum(np.diagonal(scatter), 0.0) / moments.count)
        constant = deviation <= np.sqrt(np.finfo(np.float64).eps) * np.abs(moments.mean)
        scaling = _Scaling(moments.mean, np.where(constant, np.inf, deviation))
        scatter = np.zeros_like(scatter)
        for _, rows, _ in blocks:
            unit = scaling(rows)
            scatter += unit.T @ unit
    axes = _dominant(scatter, share, 0.0 if scaled else moments.noise)
    for part, rows, known in blocks:
        scores = np.full(len(known), np.nan)
        scores[known] = np.square(scaling(rows) @ axes).sum(axis=1)
        out[part] = scores
    return out, axes.shape[1]


def _dominant(scatter: Floats, share: float, noise: float) -> Floats:
    """The leading eigenvectors that hold a share of the spectrum, each over the root of its eigenvalue, [d, k]."""
    values, vectors = np.linalg.eigh(scatter)
    values, vectors = values[::-1], vectors[:, ::-1]
    full = int((values > values[0] * _RANK_TOLERANCE).sum()) if values[0] > noise else 0
    if not full:
        return np.zeros((len(scatter), 0))
    spectrum = np.cumsum(values[:full])
    k = int(np.searchsorted(spectrum, share * spectrum[-1] * (1 - 1e-12))) + 1
    axes: Floats = vectors[:, :k] / np.sqrt(values[:k])
    return axes
