"""Methods: what a run does at each step, under one name.

A method puts together a selector, a pruner and training hooks. Those below have names of their own; every registered
selector is a method under its own name too; and a continuum file defines further ones under ``methods``.

Selectors are imported when they are first asked for: the command line reads this module, and should start fast.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from liit.errors import InputError, unknown_name

if TYPE_CHECKING:
    from liit.config import Continuum
    from liit.selection import SelectorInfo

GIVEN = ("queries", "groups", "labels")
"""Options of selectors that a run fills in; nobody writes them into a file."""
KNOWN_COLUMNS = ("id", "source", "new")
"""What selectors may ask for that the pool knows without the model."""
PRUNER_NEEDS = "embedding"


@dataclass(frozen=True)
class Part:
    """A selector with its options.

    Attributes:
        selector: name of a registered selector.
        options: its keyword arguments, as far as they differ from the defaults and from the continuum's ``selection``.
    """

    selector: str
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def info(self) -> SelectorInfo:
        """The registered selector."""
        from liit.selection.registry import find_selector

        return find_selector(self.selector)

    @property
    def targeted(self) -> bool:
        """Whether it compares the pool with queries."""
        return "queries" in self.info.options

    @property
    def needs(self) -> tuple[str, ...]:
        """Feature columns that the model must compute, without those of competing experts."""
        info = self.info
        named = self.options.get("checkpoints", info.needs) if self.selector == "less" else info.needs
        return tuple(name for name in named if name not in KNOWN_COLUMNS)

    def settings(self, continuum: Continuum) -> dict[str, Any]:
        """Keyword arguments under a continuum: the keys of its ``selection`` that the selector knows, and `options`."""
        general = continuum.selection.model_dump(mode="python")
        known = {key: value for key, value in general.items() if key in self.info.options}
        return {key: list(v) if isinstance(v, tuple) else v for key, v in (known | dict(self.options)).items()}

    def columns(self, continuum: Continuum) -> tuple[str, ...]:
        """Every feature column that it reads under a continuum: what it needs, and what its experts need."""
        from liit.selection import experts

        competing = self.settings(continuum).get("experts") or ()
        wanted = [column for name in competing for column in experts()[name].needs]
        return tuple(dict.fromkeys([*self.needs, *wanted]))

    def check(self) -> None:
        """Try the options on a pool without rows.

        Raises:
            InputError: an unknown selector or option, one that the run fills in, or a value that the selector refuses.
        """
        import numpy as np

        from liit.selection import select
        from liit.selection.registry import check_options

        info = self.info
        taken = [name for name in self.options if name in GIVEN]
        if taken:
            raise InputError(f"{self.selector}: the option {taken[0]!r} is filled in by the run; leave it out")
        check_options(info, self.options)
        nothing: dict[str, Any] = {
            name: np.zeros((0, 2), np.float32) for name in info.needs if name not in KNOWN_COLUMNS
        }
        nothing |= {name: np.zeros(0, np.float32) for name in (*info.needs, *info.reads) if name in _SCALARS}
        nothing |= {"id": np.zeros(0, "<U1"), "source": np.zeros(0, "<U1"), "new": np.zeros(0, bool)}
        options = dict(self.options) | ({"queries": np.ones((1, 2), np.float32)} if self.targeted else {})
        select(self.selector, nothing, 0, 0, **options)


_SCALARS = (
    "log_perplexity",
    "blind_log_perplexity",
    "image_grounding",
    "el2n",
    "entropy",
    "grad_norm",
    "n_answer_tokens",
)


@dataclass(frozen=True)
class Replay:
    """A part of the budget for samples of earlier steps, with a selector of its own.

    Attributes:
        share: of the budget.
        part: who chooses them.
    """

    share: float
    part: Part


@dataclass(frozen=True)
class Method:
    """Selector, pruner and training hooks under one name.

    Attributes:
        name: what the user writes.
        description: one line for `liit methods`.
        part: the selector and its options.
        replay: where given, `part` chooses from the step's new samples only, within the budget that this leaves.
        new_only: whether only samples that came with the step may be chosen.
        prunes: whether the pool is cut to ``pruning.pool_size`` after each step.
        hooks: names and options of training hooks, in the order in which they act.
        once: train once, on the whole pool, after the last step has arrived; else at every step within the budget.
    """

    name: str
    description: str
    part: Part
    replay: Replay | None = None
    new_only: bool = False
    prunes: bool = False
    hooks: tuple[tuple[str, Mapping[str, Any]], ...] = ()
    once: bool = False

    @property
    def parts(self) -> tuple[Part, ...]:
        """Every selector at work."""
        return (self.part,) if self.replay is None else (self.part, self.replay.part)

    @property
    def targeted(self) -> bool:
        """Whether a selector needs queries."""
        return any(part.targeted for part in self.parts)

    @property
    def needs(self) -> tuple[str, ...]:
        """Feature columns without which the selectors and the pruner cannot run."""
        return tuple(dict.fromkeys([*(n for part in self.parts for n in part.needs), *self._pruner_needs]))

    @property
    def _pruner_needs(self) -> tuple[str, ...]:
        return (PRUNER_NEEDS,) if self.prunes else ()

    def columns(self, continuum: Continuum) -> tuple[str, ...]:
        """Feature columns that the selectors and the pruner read under these settings; none: no extraction runs."""
        wanted = [column for part in self.parts for column in part.columns(continuum)]
        return tuple(dict.fromkeys([*wanted, *self._pruner_needs]))

    def query_columns(self) -> tuple[str, ...]:
        """Feature columns that are computed for the queries."""
        return tuple(dict.fromkeys(column for part in self.parts if part.targeted for column in part.needs))


_RANDOM, _ADAPT = Part("random"), Part("adapt-inf")
_EMBEDDING = Part("adapt-inf-embedding", {"experts": ["log_perplexity", "el2n", "entropy", "image_grounding"]})
_GUIDANCE: tuple[tuple[str, Mapping[str, Any]], ...] = (("gradient-guidance", {}),)
_HALF = Replay(0.5, Part("random-balanced"))

METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method(
            "adapt-inf",
            "Adapt-infinity: gradient clusters, an expert per cluster, balanced budget, stratified sampling",
            _ADAPT,
        ),
        Method(
            "lite-adapt-inf", "adapt-inf, and after each step the most redundant samples leave the pool for good",
            _ADAPT, prunes=True,
        ),
        Method(
            "adapt-inf-embedding",
            "ours: adapt-inf with pseudo-skills by hidden state and experts that need no backward pass",
            _EMBEDDING,
        ),
        Method(
            "lite-adapt-inf-embedding", "adapt-inf-embedding, pruned as lite-adapt-inf is",
            _EMBEDDING, prunes=True,
        ),
        Method("replay", "the budget drawn at random from the whole pool, old and new", _RANDOM),
        Method("sequential", "the budget drawn at random from the new data only", _RANDOM, new_only=True),
        Method("multitask", "all data at once, after the last step: the upper reference", Part("all"), once=True),
        Method(
            "half-replay", "half the budget new at random, half old, drawn evenly from the earlier sources",
            _RANDOM, replay=_HALF,
        ),
        Method(
            "dgg", "half-replay, trained with Dynamic Gradient Guidance: a pull towards the weights of the last step",
            _RANDOM, replay=_HALF, hooks=_GUIDANCE,
        ),
        Method(
            "dgg+adapt-inf", "dgg whose replayed half is chosen by adapt-inf",
            _RANDOM, replay=Replay(0.5, _ADAPT), hooks=_GUIDANCE,
        ),
        Method(
            "ewc", "sequential, trained with Elastic Weight Consolidation: weights that mattered before are held",
            _RANDOM, new_only=True, hooks=(("ewc", {}),),
        ),
    )
}  # fmt: skip


def methods(continuum: Continuum | None = None) -> dict[str, Method]:
    """Every method by name: those above, those that the continuum defines, and every selector under its own name.

    Args:
        continuum: whose ``methods`` count too.
    """
    from liit.selection import selectors

    named = METHODS | ({} if continuum is None else _defined(continuum))
    alone = {
        name: Method(name, f"{info.description}, from the whole pool", Part(name))
        for name, info in selectors().items()
        if name not in named and name not in _NOT_ALONE
    }
    return named | alone


_NOT_ALONE = ("all", "new-only")  # `multitask` and `sequential` are what a run makes of them


def _defined(continuum: Continuum) -> dict[str, Method]:
    found = {}
    for name, given in continuum.methods.items():
        replay = None
        if given.replay is not None:
            replay = Replay(given.replay.share, Part(given.replay.selector, given.replay.options))
        found[name] = Method(
            name,
            given.description or f"{given.selector}, as {continuum.name} defines it",
            Part(given.selector, given.options),
            replay=replay,
            new_only=given.new_only,
            prunes=given.pruner is not None,
            hooks=tuple((hook.name, hook.options) for hook in given.hooks),
        )
    return found


def get_method(name: str, continuum: Continuum | None = None) -> Method:
    """Look a method up.

    Args:
        name: of the method.
        continuum: whose ``methods`` count too.

    Raises:
        InputError: there is none of that name; names the nearest and lists all.
    """
    if name in METHODS:
        return METHODS[name]
    known = methods(continuum)
    if name in known:
        return known[name]
    raise InputError(f"method: {unknown_name('method', name, known)}")


def problem_with(continuum: Continuum) -> tuple[tuple[str | int, ...], str] | None:
    """What is wrong with a continuum's methods, if anything.

    Returns:
        The key to mend and one line about it.
    """
    from liit.selection import selectors

    for name, method in _defined(continuum).items():
        if name in METHODS or name in selectors():
            return ("methods", name), f"methods.{name}: liit has a method of that name; choose another"
        for key, part in zip((("options",), ("replay", "options")), method.parts, strict=False):
            try:
                part.check()
            except InputError as error:
                return ("methods", name, *key), f"methods.{name}.{'.'.join(key)}: {error}"
    try:
        method = get_method(continuum.method, continuum)
    except InputError as error:
        return ("method",), str(error)
    if method.prunes and continuum.pruning.pool_size is None:
        return ("method",), f"{method.name} prunes the pool and needs its size: set pruning.pool_size to a number"
    return _problem_with_queries(continuum, method)


def _problem_with_queries(continuum: Continuum, method: Method) -> tuple[tuple[str | int, ...], str] | None:
    queries = continuum.queries
    if queries.kind == "file" and queries.path is None:
        return ("queries", "kind"), "queries: kind file needs the file: set queries.path"
    if queries.kind != "file" and queries.path is not None:
        return ("queries", "path"), f"queries.path belongs to kind file, but queries.kind is {queries.kind}"
    if method.targeted and queries.kind == "dev" and not continuum.steps[0].dev:
        return ("method",), (
            f"{method.name} compares the pool with queries, and the first step has no development rows: give "
            "steps[0].dev, or set queries.kind to replay or file"
        )
    return None
