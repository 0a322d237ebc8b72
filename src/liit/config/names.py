"""The names a continuum file may use, and what to say about one that is not among them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from liit.errors import unknown_name


def one_of(kind: str, names: Callable[[], Iterable[str]]) -> Callable[[str], str]:
    """Make a pydantic validator that accepts only known names.

    Args:
        kind: What is named, used in the message.
        names: Called at validation, not before, so that a registry in a heavy module is imported only when needed.

    Returns:
        A function that returns its argument, or raises ValueError with the nearest match and the list.
    """

    def check(given: str) -> str:
        known = tuple(names())
        if given not in known:
            raise ValueError(unknown_name(kind, given, known))
        return given

    return check


def selectors() -> tuple[str, ...]:
    """Return the names of the registered selectors."""
    from liit.selection import selectors as registered

    return tuple(registered())


def formats() -> tuple[str, ...]:
    """Return the names of the dataset formats that can be ingested."""
    from liit.data.formats import formats as registered

    return tuple(registered())


def metrics() -> tuple[str, ...]:
    """Return the names of the evaluation metrics."""
    from liit.evaluation.metrics import metrics as registered

    return tuple(registered())


def usable_metric(name: str) -> str:
    """Return the name of a metric whose package is installed; raises ValueError when it is not."""
    from liit.evaluation.metrics import metric_problem

    if problem := metric_problem(name):
        raise ValueError(problem)
    return name


def check_metric_options(name: str, options: Mapping[str, Any]) -> None:
    """Raise ValueError when a metric does not have one of the options."""
    from liit.evaluation.metrics import metric_problem

    if problem := metric_problem(name, options):
        raise ValueError(problem)


def experts() -> tuple[str, ...]:
    """Return the names of the scores that can compete for a cluster, the user's own included."""
    from liit.selection import experts as registered

    return tuple(registered())


def expert_modes() -> tuple[str, ...]:
    """Return the ways to decide between experts."""
    from liit.selection.adapt_infinity import MODES

    return MODES
