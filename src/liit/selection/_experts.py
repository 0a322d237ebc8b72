"""Experts: functions of the stored columns that give one number per sample and compete for clusters."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from liit.errors import InputError, unknown_name
from liit.selection.arrays import Floats, as_scores
from liit.selection.problem import Problem

ExpertFunction = Callable[..., Floats]


@dataclass(frozen=True)
class ExpertInfo:
    """One expert.

    Attributes:
        name: what the `experts` option and the report call it.
        needs: the feature columns handed to the function, in this order.
        function: takes those columns (float64 [N], NaN where missing) and returns float64 [N].
        description: one line.
    """

    name: str
    needs: tuple[str, ...]
    function: ExpertFunction
    description: str


_experts: dict[str, ExpertInfo] = {}


def register_expert(
    name: str, *, needs: Iterable[str], description: str = ""
) -> Callable[[ExpertFunction], ExpertFunction]:
    """Decorator that makes a function of stored scalar columns an expert that `adapt-inf` can be given.

    Example:
        >>> @register_expert("surprise", needs=["log_perplexity", "entropy"])
        ... def surprise(log_perplexity, entropy):
        ...     return log_perplexity - entropy

    Args:
        name: the name of the expert.
        needs: scalar features handed to the function, in this order.
        description: one line; default: the first line of the docstring.

    Returns:
        The decorator; it returns the function unchanged.

    Raises:
        InputError: the name is taken by another function.
    """

    def decorate(function: ExpertFunction) -> ExpertFunction:
        known = _experts.get(name)
        if known is not None and known.function is not function:
            raise InputError(f"expert name {name!r} is taken; choose another")
        line = description or (function.__doc__ or "").strip().partition("\n")[0]
        _experts[name] = ExpertInfo(name, tuple(needs), function, line)
        return function

    return decorate


def experts() -> dict[str, ExpertInfo]:
    """Every expert by name: the built-in ones, then the user's."""
    return dict(_experts)


def built_in_experts() -> tuple[str, ...]:
    """The experts of the paper, in the order in which ties between them are settled."""
    return tuple(_BUILT_IN)


def find_expert(name: str) -> ExpertInfo:
    """The expert of that name.

    Raises:
        InputError: there is none.
    """
    if name not in _experts:
        raise InputError(unknown_name("expert", name, _experts))
    return _experts[name]


def expert_scores(problem: Problem, expert: ExpertInfo) -> Floats:
    """The scores of an expert in canonical order.

    Raises:
        InputError: a column is malformed, or the function returned something else than N finite numbers or NaN.
    """
    values = expert.function(*(problem.scores(name) for name in expert.needs))
    return as_scores(values, f"expert {expert.name}", problem.n)


def _column(values: Floats) -> Floats:
    return values


_BUILT_IN = {
    "log_perplexity": "mean negative log-likelihood of the answer: how surprising it is",
    "el2n": "mean distance of the predicted distributions from the answer's tokens",
    "entropy": "mean entropy of the predicted distributions: how undecided the model is",
    "image_grounding": "perplexity without the image over perplexity with it: how much the image helps",
    "grad_norm": "length of the sample's gradient: how far it would move the model",
}
for _name, _line in _BUILT_IN.items():
    register_expert(_name, needs=[_name], description=_line)(_column)
