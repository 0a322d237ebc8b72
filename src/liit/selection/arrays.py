"""What comes in: checked, and rounded so that the width of the floats does not decide anything.

Every floating-point input is rounded to float32 and computed with in float64. A score that came as float32 and the same
score that came as float64 therefore give the same rows, bit for bit.
"""

from __future__ import annotations

import numbers
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


def as_array(values: Any, name: str) -> AnyArray:
    """Take a numpy array, a list, or a column of pyarrow or pandas.

    Args:
        values: what the user gave. None in it becomes NaN where the rest are numbers; a row of None among lists of
            numbers becomes a row of NaN.
        name: the argument or feature, for the message.

    Returns:
        The array; not copied when it is one already.

    Raises:
        InputError: rows of unequal length.
    """
    listed = isinstance(values, (list, tuple))
    try:
        # numpy would write numbers among strings as strings, and take a None among rows for a row of another length
        mixed = listed and any(v is None for v in values)
        mixed |= listed and 0 < sum(isinstance(v, str) for v in values) < len(values)
        array = np.array(values, dtype=object) if mixed else np.asarray(values)
        return _regular(array) if array.dtype.kind == "O" and array.size else array
    except (ValueError, TypeError) as error:
        raise InputError(f"{name} must be an array with rows of equal length: {error}") from error


def _regular(array: AnyArray) -> AnyArray:
    """Numbers out of objects where they are numbers; other objects stay as they are."""
    items = array.ravel().tolist()
    if any(isinstance(item, (list, tuple, np.ndarray)) for item in items):
        width = max(len(item) for item in items if item is not None)
        return np.array([np.full(width, np.nan) if item is None else item for item in items])
    if not all(item is None or isinstance(item, (numbers.Real, np.bool_)) for item in items):
        return array
    if any(item is None for item in items):
        items = [np.nan if item is None else float(item) for item in items]
    return np.array(items).reshape(array.shape)


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
        InputError: see `numbered_labels`.
    """
    return numbered_labels(values, name, length)[0]


def numbered_labels(values: npt.ArrayLike, name: str, length: int | None = None) -> tuple[Ints, AnyArray]:
    """As `as_labels`, with the labels themselves in sorted order.

    Raises:
        InputError: not one-dimensional, the wrong length, or neither whole numbers nor strings: fractions, missing
            labels, or both kinds in one column.
    """
    array = as_array(values, name)
    if array.ndim != 1:
        raise InputError(f"{name} must have one label per row (shape [N]), got shape {list(array.shape)}")
    _check_length(array, name, length)
    array = as_strings(array, name)
    if array.dtype.kind not in "iubfU" or (array.dtype.kind == "f" and not _whole(array)):
        raise InputError(f"{name} must be whole numbers or strings without gaps, got an array of {array.dtype}")
    names, numbers_of = np.unique(array, return_inverse=True)
    return numbers_of.astype(np.int64), names


def as_strings(array: AnyArray, name: str) -> AnyArray:
    """Objects as fixed-width strings; arrays of numbers or strings as they are.

    Raises:
        InputError: an object that is no string.
    """
    if array.dtype.kind == "O":
        wrong = [item for item in array.ravel() if not isinstance(item, str)]
        if wrong:
            raise InputError(f"{name} must be all strings or all whole numbers, none missing, got {wrong[0]!r}")
    return np.array(array.tolist(), dtype=str) if array.dtype.kind in "OT" else array


def _whole(array: AnyArray) -> bool:
    return bool(np.isfinite(array).all() and np.array_equal(array, np.floor(array)))


def _numbers(values: npt.ArrayLike, name: str) -> AnyArray:
    array = as_array(values, name)
    if array.dtype.kind not in "fiub" and array.size:
        raise InputError(f"{name} must be numbers, got an array of {array.dtype}")
    return array if array.dtype.kind in "fiub" else array.astype(np.float64)


def _check_length(array: AnyArray, name: str, length: int | None) -> None:
    if length is not None and len(array) != length:
        raise InputError(f"{name} must have {length} rows like the other columns, got {len(array)}")
