"""What a training hook is: called at the start of a step's training, when gradients are ready, and at the end."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, Protocol

from torch import Tensor, nn

Place = Literal["before-clipping", "after-clipping"]


class Gradients(Protocol):
    """Gradients that a hook may ask for; they leave ``parameter.grad`` and the random generators alone.

    Dropout is off while they are computed. Numbers of rows count from 0 in the order of the selection.
    """

    def of_log_likelihood(self, rows: Iterable[int]) -> Iterator[dict[str, Tensor]]:
        """For each row by itself: gradient of log p(answer), the sum over its answer tokens, in nats; float32."""
        ...

    def of_loss(self, rows: Iterable[int]) -> dict[str, Tensor]:
        """For all rows together: gradient of the mean loss per answer token; float32."""
        ...


@dataclass(frozen=True, slots=True)
class TaskContext:
    """The training of one step, as a hook sees it.

    Attributes:
        number: of the step, from 1.
        first: nothing was trained, and so no state was kept, before this step.
        seed: of this training; the same in every process.
        adapter: the rule by which this step's adapter came about: continue, merge or new.
        parameters: what trains, by name without an adapter's wrapper, in the model's order.
        optimizer_steps: updates that this training will make.
        new: for each row of the selection, whether it came with this step.
        gradients: computes further gradients when asked to.
    """

    number: int
    first: bool
    seed: int
    adapter: str
    parameters: Mapping[str, nn.Parameter]
    optimizer_steps: int
    new: tuple[bool, ...]
    gradients: Gradients


@dataclass(frozen=True, slots=True)
class Update:
    """One optimizer step whose gradients are ready.

    Attributes:
        number: updates made before, in this training.
        rows: the rows of the selection that the gradients are of.
        parameters: what trains and has a gradient, by name; hooks change ``parameter.grad`` in place.
    """

    number: int
    rows: tuple[int, ...]
    parameters: Mapping[str, nn.Parameter]


@dataclass(frozen=True, slots=True)
class HookState:
    """What a hook must keep: tensors by name, and facts that JSON can hold."""

    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)


class TrainingHook:
    """Base class of training hooks; every method may be left out.

    The order of calls for one step's training: `load_state` with what `state` gave at the end of the step before (not
    at the first step), `task_start`, `gradients_ready` before every optimizer step, `task_end`, `facts`, `state`. A
    training that was killed calls `load_state` after `task_start` once more, with the state at the last checkpoint:
    what the hook holds must be the same afterwards as it was then.

    Attributes:
        name: set by `make_hook`, like `options`.
        options: what it was made with, as far as it differs from the defaults.
        place: whether `gradients_ready` comes before the gradients are clipped to ``training.max_grad_norm`` or after;
            in both cases after they were accumulated and unscaled, and before the optimizer sees them.
    """

    name: str = ""
    options: Mapping[str, Any] = MappingProxyType({})
    place: Place = "before-clipping"

    def task_start(self, context: TaskContext) -> None:
        """Training begins; the parameters have the values that it starts from."""

    def gradients_ready(self, update: Update) -> None:
        """Gradients are complete: change ``parameter.grad`` in place, or look at it."""

    def task_end(self, context: TaskContext) -> None:
        """Training is over; the parameters have the values that are about to be saved."""

    def facts(self) -> dict[str, Any]:
        """What to write into ``train.json``: a few numbers that JSON can hold."""
        return {}

    def state(self) -> HookState:
        """Everything that the next step, or a resumed training, needs."""
        return HookState()

    def load_state(self, state: HookState) -> None:
        """Take up what `state` gave; tensors come on the CPU."""
