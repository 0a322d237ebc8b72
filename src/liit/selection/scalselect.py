"""ScalSelect (Wu et al. 2026): leverage in the dominant subspace of instruction-conditioned image states."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from liit.errors import InputError
from liit.selection.arrays import AnyArray, Bools, Floats, Ints, as_fraction, as_matrix
from liit.selection.problem import Problem
from liit.selection.ranking import best_first, settled, take
from liit.selection.registry import register_selector
from liit.selection.result import Choice

FEATURE = "instructed_vision"

_ROWS = 4096
# Eigenvalues below this part of the largest are rounding: directions without variance have no leverage.
_RANK_TOLERANCE = 1e-13
_LEAST = float(np.finfo(np.float64).tiny)


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
    matrix = as_matrix(x, "x") if np.size(x) or np.ndim(x) == 2 else np.zeros((0, 1))
    return _leverage(matrix, "x", None, energy)


def _leverage(matrix: AnyArray, name: str, order: Ints | None, energy: float) -> tuple[Floats, int]:
    share = 1.0 if isinstance(energy, float) and energy == 1.0 else as_fraction(energy, "energy", _LEAST, 1.0)
    n, d = matrix.shape
    shift, total, gram, count = np.zeros(d), np.zeros(d), np.zeros((d, d)), 0
    for start in range(0, n, _ROWS):
        block, known = _block(matrix, name, order, start)
        block = block[known]
        if not count and len(block):
            shift = block.mean(axis=0)  # near the mean, so that the difference below loses no digits
        block -= shift
        total += block.sum(axis=0)
        gram += block.T @ block
        count += len(block)
    scores = np.zeros(n)
    if not count:
        return np.full(n, np.nan), 0
    mean = total / count
    values, vectors = np.linalg.eigh(gram - count * np.outer(mean, mean))
    values, vectors = values[::-1], vectors[:, ::-1]
    full = int((values > max(values[0], 0.0) * _RANK_TOLERANCE).sum()) if values[0] > 0 else 0
    if values[0] <= np.finfo(np.float64).eps * (count * float((shift + mean) @ (shift + mean))):
        full = 0  # equal rows: what is left is the rounding of the mean
    spectrum = np.cumsum(values[:full])
    k = int(np.searchsorted(spectrum, share * spectrum[-1] * (1 - 1e-12))) + 1 if full else 0
    axes = vectors[:, :k] / np.sqrt(values[:k])
    for start in range(0, n, _ROWS):
        block, known = _block(matrix, name, order, start)
        part = np.full(len(block), np.nan)
        part[known] = np.square((block[known] - shift - mean) @ axes).sum(axis=1)
        scores[start : start + len(block)] = part
    return scores, k


def _block(matrix: AnyArray, name: str, order: Ints | None, start: int) -> tuple[Floats, Bools]:
    part = slice(start, start + _ROWS)
    with np.errstate(over="ignore"):
        block = matrix[part if order is None else order[part]].astype(np.float32).astype(np.float64)
    if np.isinf(block).any():
        raise InputError(f"{name} has infinite values (or values beyond float32); use NaN for a missing vector")
    known: Bools = np.logical_not(np.isnan(block).any(axis=1))
    return block, known


@register_selector(
    "scalselect",
    needs=(FEATURE,),
    description="rows with the highest leverage in the dominant subspace of instruction-conditioned image states",
)
def scalselect(problem: Problem, *, energy: float = 0.9) -> Choice:
    """Select the rows of highest leverage.

    The paper leaves samples without an image out; here they come last, in random order, so that the budget is exact.

    Args:
        problem: feature `instructed_vision` [N, d], budget, seed.
        energy: see `leverage`.

    Returns:
        The choice.

    Raises:
        InputError: as `leverage`, naming the feature.
    """
    scores, k = _leverage(problem.matrix(FEATURE), FEATURE, problem.order, energy)
    scores = settled(scores)
    choice = take(problem, best_first(problem, scores), scores, "leverage", "leverage")
    choice.info |= {"rank": k, "energy": energy}
    return choice
