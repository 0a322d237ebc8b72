"""Training hooks by name: the decorator that adds one, and the list of what exists."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from liit.errors import InputError, unknown_name
from liit.plugins import load_plugins
from liit.training.hooks.base import TrainingHook

ENTRY_POINTS = "liit.hooks"
RULES = ("continue", "merge", "new")

HookClass = TypeVar("HookClass", bound=type[TrainingHook])


@dataclass(frozen=True)
class HookInfo:
    """One training hook.

    Attributes:
        name: what a method names it by.
        description: one line.
        options: keyword arguments with their defaults.
        adapters: the rules of ``lora.adapter`` under which it makes sense.
        hook: the class.
    """

    name: str
    description: str
    options: dict[str, Any]
    adapters: tuple[str, ...]
    hook: type[TrainingHook]


_hooks: dict[str, HookInfo] = {}


def register_hook(
    name: str, *, adapters: Iterable[str] = RULES, description: str = ""
) -> Callable[[HookClass], HookClass]:
    """Decorator that makes a subclass of `TrainingHook` a hook that methods can name.

    Its options are the keyword arguments of its ``__init__``, each with a default. Packages of others name the module
    of theirs under the entry point group "liit.hooks"; it is imported when an unknown name is asked for.

    Args:
        name: the name under which methods find it.
        adapters: the rules of ``lora.adapter`` under which it makes sense.
        description: one line; default: the first line of the docstring.

    Returns:
        The decorator; it returns the class unchanged.

    Raises:
        InputError: the name is taken by another class.
    """

    def decorate(hook: HookClass) -> HookClass:
        known = _hooks.get(name)
        if known is not None and known.hook is not hook:
            raise InputError(f"hook name {name!r} is taken by {known.hook.__module__}; choose another")
        line = description or (inspect.getdoc(hook) or "").partition("\n")[0]
        options = {
            parameter.name: parameter.default
            for parameter in inspect.signature(hook).parameters.values()
            if parameter.kind in (parameter.KEYWORD_ONLY, parameter.POSITIONAL_OR_KEYWORD)
        }
        _hooks[name] = HookInfo(name, line, options, tuple(adapters), hook)
        return hook

    return decorate


def hooks() -> dict[str, HookInfo]:
    """Every training hook by name, those of other packages included.

    Raises:
        InputError: an installed package names a hook that cannot be imported.
    """
    load_plugins(ENTRY_POINTS, "hook")
    return dict(sorted(_hooks.items()))


def find_hook(name: str) -> HookInfo:
    """The hook of that name.

    Raises:
        InputError: no string, or there is none; the message has the nearest name and the list.
    """
    if not isinstance(name, str):
        raise InputError(f"hook must be a name, got {name!r}")
    if name in _hooks:
        return _hooks[name]
    known = hooks()
    if name not in known:
        raise InputError(unknown_name("hook", name, known))
    return known[name]


def make_hook(name: str, options: Mapping[str, Any]) -> TrainingHook:
    """A hook with its options.

    Raises:
        InputError: no such hook or option, with the nearest one and the list, or a value that the hook refuses.
    """
    info = find_hook(name)
    for option in options:
        if option not in info.options:
            raise InputError(f"{name}: {unknown_name('option', option, info.options)}")
    try:
        hook = info.hook(**options)
    except InputError as error:
        raise InputError(f"{name}: {error}") from error
    hook.name, hook.options = name, dict(options)
    return hook


def make_hooks(specifications: Iterable[tuple[str, Mapping[str, Any]]], adapter: str) -> list[TrainingHook]:
    """The hooks of a method, in order; a method is checked by making them.

    Args:
        specifications: names with options.
        adapter: the rule ``lora.adapter``.

    Raises:
        InputError: what `make_hook` refuses, a hook named twice, or one that makes no sense under the rule.
    """
    made: dict[str, TrainingHook] = {}
    for name, options in specifications:
        if name in made:
            raise InputError(f"hooks: {name} is named twice; expected each hook once")
        made[name] = make_hook(name, options)
        rules = find_hook(name).adapters
        if adapter not in rules:
            raise InputError(
                f"hooks: {name} cannot be used with lora.adapter: {adapter}, only with {' or '.join(rules)}"
            )
    return list(made.values())
