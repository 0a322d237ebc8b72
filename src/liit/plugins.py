"""What other packages add to liit: modules that they name under an entry point group."""

from __future__ import annotations

from importlib.metadata import entry_points

from liit.errors import InputError

_loaded: set[tuple[str, str]] = set()


def load_plugins(group: str, kind: str) -> None:
    """Import the modules that installed packages name under a group; once each, and what they register is then there.

    Args:
        group: of entry points, such as "liit.selectors".
        kind: what they add, for the message.

    Raises:
        InputError: one of them cannot be imported.
    """
    for entry in entry_points(group=group):
        if (group, entry.value) in _loaded:
            continue
        try:
            entry.load()
        except Exception as error:
            raise InputError(f"{kind} {entry.name!r} ({entry.value}) cannot be imported: {error}") from error
        _loaded.add((group, entry.value))
