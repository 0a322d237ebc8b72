"""Methods: what a run does at each step, under one name."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from liit.errors import InputError


@dataclass(frozen=True, slots=True)
class Method:
    """Selector, pruner and training schedule under one name.

    Attributes:
        name: what the user writes.
        description: one line for `liit methods`.
        selector: name of a registered selector.
        features: feature columns the selector and the pruner need; none means that no extraction runs.
        clusters: whether the selection settings (expert, k, bins, ...) apply.
        new_only: whether only samples that came with the step may be chosen.
        prunes: whether the pool is cut to ``pruning.pool_size`` after each step.
        once: train once, on the whole pool, after the last step has arrived; else at every step within the budget.
    """

    name: str
    description: str
    selector: str
    features: tuple[str, ...] = ()
    clusters: bool = False
    new_only: bool = False
    prunes: bool = False
    once: bool = False


METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method(
            "adapt-inf",
            "Adapt-infinity: gradient clusters, an expert per cluster, balanced budget, stratified sampling",
            "adapt-inf",
            features=("gradient",),
            clusters=True,
        ),
        Method(
            "lite-adapt-inf",
            "adapt-inf, and after each step the most redundant samples leave the pool for good",
            "adapt-inf",
            features=("gradient", "embedding"),
            clusters=True,
            prunes=True,
        ),
        Method("replay", "the budget drawn at random from the whole pool, old and new", "random"),
        Method("sequential", "the budget drawn at random from the new data only", "random", new_only=True),
        Method("multitask", "all data at once, after the last step: the upper reference", "all", once=True),
    )
}


def get_method(name: str) -> Method:
    """Look a method up.

    Raises:
        InputError: there is none of that name; names the nearest and lists all.
    """
    if name in METHODS:
        return METHODS[name]
    near = difflib.get_close_matches(name, METHODS, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise InputError(f"method: {name!r} is not known; {hint}known are {', '.join(METHODS)}")
