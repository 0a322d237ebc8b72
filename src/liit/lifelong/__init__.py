"""The lifelong loop: methods by name, the run directory, the stages, and the loop over them.

`run` is imported when it is first used, because it brings the model's libraries with it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from liit.lifelong.methods import METHODS, Method, get_method

__all__ = ["METHODS", "Method", "get_method", "run"]

if TYPE_CHECKING:
    from liit.lifelong.loop import run as run


def __getattr__(name: str) -> Any:
    if name == "run":
        from liit.lifelong.loop import run

        return run
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
