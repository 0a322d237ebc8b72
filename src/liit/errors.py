"""The one exception that means "the user's input is wrong"."""

from __future__ import annotations


class InputError(ValueError):
    """Wrong input from the user: says what was given, what was expected and how to fix it, in one line.

    The command line prints it without a traceback and exits with code 2.
    """
