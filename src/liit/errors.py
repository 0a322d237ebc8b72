"""The one exception that means "the user's input is wrong", and what it says about a name that does not exist."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class InputError(ValueError):
    """Wrong input from the user: says what was given, what was expected and how to fix it, in one line.

    The command line prints it without a traceback and exits with code 2.
    """


def unknown_name(kind: str, given: object, known: Iterable[str]) -> str:
    """Say in one line that a name is not known, with the nearest one that is.

    Args:
        kind: what is named, for example "metric".
        given: the name that was given.
        known: every name that would have been right.

    Returns:
        For example: unknown metric 'exact'; did you mean 'exact-match'? (known: chrf, exact-match)
    """
    names = sorted(known)
    near = nearest(given, names)
    hint = f"; did you mean '{near}'?" if near else ""
    return f"unknown {kind} '{given}'{hint} (known: {', '.join(names) or 'none'})"


def nearest(given: object, known: Iterable[str]) -> str | None:
    """The known name that looks most like the given one, or None when none does."""
    return next(iter(get_close_matches(str(given).lower(), list(known), n=1, cutoff=0.5)), None)
