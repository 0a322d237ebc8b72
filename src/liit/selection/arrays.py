"""What comes in: checked, and rounded so that the width of the floats does not decide anything.

Every floating-point input is rounded to float32 and computed with in float64. A score that came as float32 and the same
score that came as float64 therefore give the same rows, bit for bit.
"""

from __future__ import annotations

import numbers
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from liit.errors import InputError

Floats = npt.NDArray[np.float64]
Singles = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
AnyArray = npt.NDArray[Any]

# float32 resolves 6e-8 of a value. Rounding may cost the median score at most this part of the spread; scores that sit
# on an offset so large that it would cost more (1e6 + small differences) would not survive as float32 and stay float64.
_WORST_ROUNDING = 1e-6


def as_count(value: object, name: str, minimum: int = 0) -> int:
    """Check a whole number.

    Args:
        value: what the user gave; Python and numpy integers are accepted, booleans and floats are not.
        name: the argument, for the message.
        minimum: the smallest legal value.

    Returns:
        The value as `int`.

    Raises:
        InputError: not a whole number, or below `minimum`.
    """
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, numbers.Integral):
        raise InputError(f"{name} must be a whole number of at least {minimum}, got {value!r}")
    if int(value) < minimum:
        raise InputError(f"{name} must be at least {minimum}, got {int(value)}")
    return int(value)


def as_fraction(value: object, name: str, low: float, high: float) -> float:
    """Check a real number in the half-open interval [low, high).

    Raises:
        InputError: not a number, or outside the interval.
    """
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, numbers.Real) or not low <= float(value) < high:
        raise InputError(f"{name} must be a number of at least {low:g} and below {high:g}, got {value!r}")
    return float(value)


def as_scores(values: npt.ArrayLike, name: str = "scores", length: int | None = None) -> Floats:
    """Check one score per row and round it to float32.

    Args:
        values: N numbers; NaN marks a missing value.
        name: the argument or feature, for the message.
        length: the expected N, if known.

    Returns:
        float64 [N], rounded to float32 unless that would cost more than a millionth of the spread of the scores.

    Raises:
        InputError: not one-dimensional, not numbers, the wrong length, or infinite values.
    """
    array = _numbers(values, name)
    if array.ndim != 1:
        raise InputError(f"{name} must have one number per row (shape [N]), got shape {list(array.shape)}")
    _check_length(array, name, length)
    wide = array.astype(np.float64)
    if np.isinf(wide).any():
        raise InputError(f"{name} has {int(np.isinf(wide).sum())} infinite values; use NaN for a missing value")
    known = wide[~np.isnan(wide)]
    if (array.dtype.itemsize <= 4 and array.dtype.kind == "f") or not known.size:
        return wide
    with np.errstate(over="ignore"):
        rounded = known.astype(np.float32).astype(np.float64)
    if np.isinf(rounded).any():
        return wide
    if float(np.median(np.abs(rounded - known))) > _WORST_ROUNDING * float(np.std(known)):
        return wide
    wide[~np.isnan(wide)] = rounded
    return wide


def as_matrix(values: npt.ArrayLike, name: str, length: int | None = None) -> AnyArray:
    """Check one vector per row, without copying (the array may be memory-mapped and larger than memory).

    Args:
        values: N x d numbers.
        name: the argument or feature, for the message.
        length: the expected N, if known.

    Returns:
        The array as it is.

    Raises:
        InputError: not two-dimensional, no columns, not numbers, or the wrong length.
    """
    array = _numbers(values, name)
    if array.ndim != 2:
        raise InputError(f"{name} must have one vector per row (shape [N, d]), got shape {list(array.shape)}")
    _check_length(array, name, length)
    if array.shape[0] and not array.shape[1]:
        raise InputError(f"{name} must have at least one column, got shape {list(array.shape)}")
    return array


def as_labels(values: npt.ArrayLike, name: str, length: int | None = None) -> Ints:
    """Check one label per row (whole numbers or strings) and number them 0, 1, ... in sorted order.

    Raises:
        InputError: not one-dimensional, the wrong length, or floats that are no whole numbers.
    """
    array = np.asarray(values)
    if array.ndim != 1:
        raise InputError(f"{name} must have one label per row (shape [N]), got shape {list(array.shape)}")
    _check_length(array, name, length)
    if array.dtype.kind == "f" and not np.array_equal(array, np.floor(array)):
        raise InputError(f"{name} must be whole numbers or strings, got {array.dtype} with fractions or NaN")
    if array.dtype.kind == "O":
        array = array.astype(str)
    return np.unique(array, return_inverse=True)[1].astype(np.int64)


def one_of(value: object, name: str, choices: Sequence[str]) -> str:
    """Check a choice.

    Raises:
        InputError: not one of the choices.
    """
    if value not in choices:
        raise InputError(f"{name} must be one of {', '.join(choices)}, got {value!r}")
    return str(value)


def _numbers(values: npt.ArrayLike, name: str) -> AnyArray:
    array = np.asarray(values)
    if array.dtype.kind not in "fiub" and array.size:
        raise InputError(f"{name} must be numbers, got an array of {array.dtype}")
    return array if array.dtype.kind in "fiub" else array.astype(np.float64)


def _check_length(array: AnyArray, name: str, length: int | None) -> None:
    if length is not None and len(array) != length:
        raise InputError(f"{name} must have {length} rows like the other columns, got {len(array)}")
