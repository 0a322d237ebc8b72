"""Selectors by name: the decorator that adds one, and the list of what exists."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from liit.errors import InputError, unknown_name
from liit.plugins import load_plugins
from liit.selection.result import Choice

ENTRY_POINTS = "liit.selectors"

SelectorFunction = Callable[..., Choice]


@dataclass(frozen=True)
class SelectorInfo:
    """One selector.

    Attributes:
        name: what `select` is called with.
        description: one line.
        needs: features without which it cannot run.
        reads: further features it uses when they are there.
        options: keyword arguments with their defaults.
        function: takes a `Problem` and the options, returns a `Choice`.
    """

    name: str
    description: str
    needs: tuple[str, ...]
    reads: tuple[str, ...]
    options: dict[str, Any]
    function: SelectorFunction


_selectors: dict[str, SelectorInfo] = {}


def register_selector(
    name: str, *, needs: Iterable[str] = (), reads: Iterable[str] = (), description: str = ""
) -> Callable[[SelectorFunction], SelectorFunction]:
    """Decorator that makes a function a selector.

    The function takes a `Problem` and keyword options and returns a `Choice` with exactly `problem.budget` positions.
    Packages of others name the module of theirs under the entry point group "liit.selectors"; it is imported when
    selectors are first asked for.

    Args:
        name: the name under which `select` finds it.
        needs: features without which it cannot run.
        reads: further features it uses when they are there.
        description: one line; default: the first line of the docstring.

    Returns:
        The decorator; it returns the function unchanged.

    Raises:
        InputError: the name is taken by another function.
    """

    def decorate(function: SelectorFunction) -> SelectorFunction:
        known = _selectors.get(name)
        if known is not None and known.function is not function:
            raise InputError(f"selector name {name!r} is taken by {known.function.__module__}; choose another")
        line = description or (inspect.getdoc(function) or "").partition("\n")[0]
        parameters = list(inspect.signature(function).parameters.values())[1:]
        options = {p.name: p.default for p in parameters}
        _selectors[name] = SelectorInfo(name, line, tuple(needs), tuple(reads), options, function)
        return function

    return decorate


def selectors() -> dict[str, SelectorInfo]:
    """Every selector by name, with a one-line description and the features it needs.

    Returns:
        Name to `SelectorInfo`, sorted by name; those of other packages are included.

    Raises:
        InputError: an installed package names a selector that cannot be imported.
    """
    load_plugins(ENTRY_POINTS, "selector")
    return dict(sorted(_selectors.items()))


def find_selector(name: str) -> SelectorInfo:
    """The selector of that name.

    Raises:
        InputError: no string, or there is none; the message has the nearest name and the list.
    """
    if not isinstance(name, str):
        raise InputError(f"selector must be a name, got {name!r}")
    if name in _selectors:  # installed packages are searched only when they must be: it takes milliseconds
        return _selectors[name]
    known = selectors()
    if name not in known:
        raise InputError(unknown_name("selector", name, known))
    return known[name]


def check_options(selector: SelectorInfo, options: Iterable[str]) -> None:
    """Refuse keyword arguments the selector does not have.

    Raises:
        InputError: an unknown option; the message has the nearest one and the list.
    """
    for option in options:
        if option not in selector.options:
            raise InputError(f"{selector.name}: {unknown_name('option', option, selector.options)}")
