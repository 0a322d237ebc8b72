"""The names by which a continuum file asks for a metric."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from typing import Any

from liit.errors import InputError, unknown_name
from liit.plugins import load_plugins

ENTRY_POINTS = "liit.metrics"


@dataclass(frozen=True, slots=True)
class Score:
    """What one prediction is worth.

    Attributes:
        value: between 0 (wrong) and 1 (right).
        wrong_format: the prediction is not of the expected form, so it says little about what the model knows.
    """

    value: float
    wrong_format: bool = False


@dataclass(frozen=True, slots=True)
class SkillResult:
    """One skill's entry in `evaluation.json`.

    Attributes:
        metric: name of the metric.
        score: mean value over the rows.
        n: number of rows.
        wrong_format: how many of them had the wrong form.
        facts: numbers about all rows together that are no mean over rows, by their exact names.
    """

    metric: str
    score: float
    n: int
    wrong_format: int
    facts: dict[str, Any] = field(default_factory=dict)


Metric = Callable[..., Score]
Corpus = Callable[..., dict[str, Any]]
References = str | Sequence[str]


@dataclass(frozen=True, slots=True)
class MetricInfo:
    """One metric.

    Attributes:
        name: what a continuum file writes.
        function: (prediction, reference, **options) -> Score; with `several`, (prediction, references, **options).
        description: one line.
        several: whether the function takes all references of a row at once.
        options: keyword arguments with their defaults.
        corpus: (predictions, references per row, **options) -> facts about all rows together.
        package: a package that it needs and liit does not.
        extra: the extra of liit that installs it.
    """

    name: str
    function: Metric
    description: str
    several: bool
    options: dict[str, Any]
    corpus: Corpus | None
    package: str
    extra: str


_METRICS: dict[str, MetricInfo] = {}


def metric(
    name: str, *, several: bool = False, corpus: Corpus | None = None, package: str = "", extra: str = ""
) -> Callable[[Metric], Metric]:
    """Register a function `(prediction, reference) -> Score` under a name; its docstring's first line describes it.

    Keyword-only arguments with defaults are the metric's options, set by `metric_options` in a continuum or task file.
    Of a row with several references a plain function gets one after the other, and the best score counts. Packages of
    others name the module of theirs under the entry point group "liit.metrics"; it is imported when a name is not known
    otherwise.

    Args:
        name: what a continuum file writes in `metric:`.
        several: the function takes the list of a row's references instead.
        corpus: a function of all predictions and all rows' references that gives facts about all rows together.
        package: a package that the metric needs and liit does not.
        extra: the extra of liit that installs it.

    Returns:
        A decorator that leaves the function as it is.

    Raises:
        InputError: the name is taken by another function.
    """

    def register(function: Metric) -> Metric:
        if name in _METRICS and _METRICS[name].function is not function:
            raise InputError(f"metric: the name {name!r} is already registered; choose another name")
        line = (inspect.getdoc(function) or "").partition("\n")[0]
        options = {
            p.name: p.default for p in inspect.signature(function).parameters.values() if p.kind is p.KEYWORD_ONLY
        }
        _METRICS[name] = MetricInfo(name, function, line, several, options, corpus, package, extra)
        return function

    return register


def metrics() -> dict[str, str]:
    """Every registered metric's name and one-line description, in alphabetical order; other packages' included.

    Raises:
        InputError: an installed package names a metric that cannot be imported.
    """
    load_plugins(ENTRY_POINTS, "metric")
    return {name: _METRICS[name].description for name in sorted(_METRICS)}


def metric_info(name: str) -> MetricInfo:
    """Find a metric by its name.

    Raises:
        InputError: there is none; the message names the nearest one and lists all.
    """
    if name not in _METRICS and name not in metrics():  # installed packages are searched only when they must be
        raise InputError(f"metric: {unknown_name('metric', name, _METRICS)}")
    return _METRICS[name]


def get_metric(name: str, options: Mapping[str, Any] | None = None) -> Metric:
    """A metric as a function of a prediction and one reference or a list of them.

    Args:
        name: a registered metric.
        options: its options.

    Raises:
        InputError: an unknown metric or option, or a package that is not installed.
    """
    info = metric_info(name)
    if problem := metric_problem(name, options):
        raise InputError(f"metric: {problem}")
    function = partial(info.function, **(options or {}))

    def score(prediction: str, references: References) -> Score:
        several = [references] if isinstance(references, str) else list(references)
        if info.several:
            return function(prediction, several)
        return max((function(prediction, one) for one in several), key=lambda s: (s.value, not s.wrong_format))

    return score


def metric_problem(name: str, options: Mapping[str, Any] | None = None) -> str | None:
    """Why a known metric cannot be used with these options; None when it can.

    Args:
        name: a registered metric.
        options: of the metric; only their names are looked at.
    """
    info = metric_info(name)
    if info.package and find_spec(info.package) is None:
        return f"'{name}' needs the package {info.package}, which is not installed: pip install 'liit[{info.extra}]'"
    for option in options or {}:
        if option not in info.options:
            return f"{name}: {unknown_name('option', option, info.options)}"
    return None


def score_skill(
    name: str,
    predictions: Sequence[str],
    references: Sequence[References],
    options: Mapping[str, Any] | None = None,
) -> tuple[SkillResult, list[Score]]:
    """Score all rows of one skill.

    Args:
        name: a registered metric.
        predictions: what the model said, one string per row.
        references: the expected answers, as many: a string, or a list of strings that are all right.
        options: of the metric.

    Returns:
        The skill's summary and the score of every row, in the order given.

    Raises:
        InputError: unknown metric or option, no rows, lengths that differ, or a reference the metric cannot read.
    """
    function = get_metric(name, options)
    if len(predictions) != len(references):
        raise InputError(f"predictions: {len(predictions)} given for {len(references)} references; give as many")
    if not references:
        raise InputError("references: none given, so there is nothing to score; give at least one row")
    scores = [function(prediction, reference) for prediction, reference in zip(predictions, references, strict=True)]
    mean = sum(score.value for score in scores) / len(scores)
    wrong_format = sum(score.wrong_format for score in scores)
    corpus, facts = metric_info(name).corpus, {}
    if corpus is not None:
        lists = [[one] if isinstance(one, str) else list(one) for one in references]
        facts = corpus(predictions, lists, **(options or {}))
    return SkillResult(metric=name, score=mean, n=len(scores), wrong_format=wrong_format, facts=facts), scores
