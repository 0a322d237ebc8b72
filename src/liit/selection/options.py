"""Options of selectors: checked one by one, each refusal one line that names the option."""

from __future__ import annotations

import numbers
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from liit.errors import InputError


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


def as_fraction(value: Any, name: str, low: float, high: float) -> float:
    """Check a real number in the half-open interval [low, high).

    Raises:
        InputError: not a number, or outside the interval.
    """
    if not _is_real(value) or not low <= value < high:
        raise InputError(f"{name} must be a number of at least {low:g} and below {high:g}, got {value!r}")
    return float(value)


def as_counts(values: object, name: str, minimum: int = 0) -> list[int]:
    """Check a list of at least one whole number.

    Raises:
        InputError: no list, an empty one, or an entry that is no whole number or below `minimum`.
    """
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise InputError(f"{name} must be a list of whole numbers of at least {minimum}, got {values!r}")
    counts = [as_count(value, name, minimum) for value in values]
    if not counts:
        raise InputError(f"{name} must hold at least one number, got none")
    return counts


def as_names(values: object, name: str) -> list[str]:
    """Check a list of at least one name; repeated ones count once.

    Raises:
        InputError: no list, an empty one, or an entry that is no string.
    """
    listed = [] if isinstance(values, str) or not isinstance(values, Iterable) else list(values)
    if not listed or not all(isinstance(value, str) for value in listed):
        raise InputError(f"{name} must be a list of at least one name, got {values!r}")
    return list(dict.fromkeys(str(value) for value in listed))


def as_compat(value: object) -> bool:
    """Check the option `compat`: None is the paper's way, "official" the choices of the official code.

    Raises:
        InputError: anything else.
    """
    return value is not None and bool(one_of(value, "compat", ("official",)))


def as_share(value: Any, name: str, zero: bool = False) -> float:
    """Check a share: a real number above 0 and at most 1; 0 itself only with `zero`.

    Raises:
        InputError: not a number, or outside.
    """
    if not _is_real(value) or not 0.0 <= value <= 1.0 or (value == 0 and not zero):
        raise InputError(f"{name} must be a number {'from 0 to' if zero else 'above 0 and at most'} 1, got {value!r}")
    return float(value)


def as_positive(value: Any, name: str) -> float:
    """Check a positive scale (a temperature, a kernel width), within reason so that it can be squared and divided by.

    Raises:
        InputError: not a number between 1e-100 and 1e100.
    """
    if not _is_real(value) or not 1e-100 <= value <= 1e100:
        raise InputError(f"{name} must be a number above 0 (1e-100 to 1e100), got {value!r}")
    return float(value)


def as_flag(value: object, name: str) -> bool:
    """Check a truth value.

    Raises:
        InputError: neither True nor False.
    """
    if not isinstance(value, (bool, np.bool_)):
        raise InputError(f"{name} must be True or False, got {value!r}")
    return bool(value)


def one_of(value: object, name: str, choices: Sequence[str]) -> str:
    """Check a choice.

    Raises:
        InputError: not one of the choices.
    """
    if not isinstance(value, str) or value not in choices:
        raise InputError(f"{name} must be one of {', '.join(choices)}, got {value!r}")
    return str(value)


def _is_real(value: object) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, (bool, np.bool_))
