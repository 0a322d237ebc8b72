"""A pretended accelerator: tensors whose numbers lie in main memory, and which refuse what those on a card refuse.

It finds what only a machine with a card would find: an operation between a tensor on the card and one that is not, or
numpy reaching for a tensor on the card. The arithmetic is the CPU's, so that outcomes are equal up to rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import return_and_correct_aliasing
from torch.utils._pytree import tree_flatten, tree_map

CARD = torch.device("cuda", 0)
aten = torch.ops.aten
CROSSING = {aten._to_copy.default, aten.copy_.default}  # what moves numbers between the card and main memory
INDEXING = {aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default}


class NotOnTheCardError(RuntimeError):
    """An operation met tensors on the card and tensors elsewhere."""


class OnCard(Tensor):
    """A tensor on the pretended card."""

    values: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, values: Tensor) -> OnCard:
        made = Tensor._make_wrapper_subclass(
            cls, values.shape, strides=values.stride(), storage_offset=values.storage_offset(), dtype=values.dtype,
            layout=values.layout, device=values.device, requires_grad=values.requires_grad,
        )  # fmt: skip
        made.values = values
        return made

    @property
    def device(self) -> torch.device:
        return CARD

    @property
    def is_cuda(self) -> bool:
        return True

    def __repr__(self, **_: Any) -> str:
        return f"OnCard({self.values})"

    __format__ = object.__format__

    def __tensor_flatten__(self) -> tuple[list[str], None]:
        return ["values"], None

    @classmethod
    def __torch_dispatch__(
        cls, operation: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        args, kwargs = tuple(args), dict(kwargs or {})
        if operation not in CROSSING:
            _all_on_card(operation, args, tree_flatten((args, kwargs))[0])
        plain_args, plain_kwargs = tree_map(lambda one: one.values if isinstance(one, OnCard) else one, (args, kwargs))
        found = operation(*plain_args, **plain_kwargs)
        if operation is aten.copy_.default:
            return args[0]
        out = tree_map(lambda one: OnCard(one) if isinstance(one, Tensor) else one, found)
        return return_and_correct_aliasing(operation, args, kwargs, out)


def _all_on_card(operation: Any, args: Sequence[Any], given: Sequence[Any]) -> None:
    if operation in INDEXING and isinstance(args[0], OnCard):  # a card takes indices from main memory
        given = [args[0], *args[2:3]]
    elsewhere = [one for one in given if isinstance(one, Tensor) and not isinstance(one, OnCard) and one.ndim]
    if elsewhere:
        raise NotOnTheCardError(
            f"{operation}: {[tuple(one.shape) for one in elsewhere]} in main memory, others on the card"
        )


class Card(TorchFunctionMode):
    """While it is active, `CARD` names the pretended card."""

    def __torch_function__(
        self, function: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        named = dict(kwargs or {})
        if function in (Tensor.to, Tensor.cpu, Tensor.cuda):
            return _move(function, args, named)
        if function in (Tensor.numpy, Tensor.__array__) and isinstance(args[0], OnCard):
            raise TypeError("can't convert a tensor on the card to numpy; use Tensor.cpu() first")
        if function is Tensor.tolist and isinstance(args[0], OnCard):
            return args[0].values.tolist()
        if function is torch.tensor:  # reads every number by itself
            args = [tree_map(lambda one: one.values.tolist() if isinstance(one, OnCard) else one, one) for one in args]
        asked = named.get("device")
        if asked is not None and torch.device(asked).type == CARD.type:
            del named["device"]
            out = function(*args, **named)
            return out if isinstance(out, OnCard) else OnCard(out)
        return function(*args, **named)


def _move(function: Any, args: Sequence[Any], named: dict[str, Any]) -> Tensor:
    """`Tensor.to`, `cpu` and `cuda`; whether a move may wait or must copy makes no difference here."""
    one, *rest = args
    target, dtype = named.get("device"), named.get("dtype")
    for value in rest:
        if isinstance(value, Tensor):
            target, dtype = value.device, value.dtype
        elif isinstance(value, torch.dtype):
            dtype = value
        elif isinstance(value, torch.device | str):
            target = value
    if function is not Tensor.to:
        target = CARD if function is Tensor.cuda else "cpu"
    typed: Tensor = one if dtype is None else Tensor.to(one, dtype)
    if target is None:
        return typed
    if torch.device(target).type == CARD.type:
        return typed if isinstance(typed, OnCard) else OnCard(typed)
    return _off(typed)


def _off(one: Tensor) -> Tensor:
    return one.detach().values if isinstance(one, OnCard) else one  # type: ignore[attr-defined]


def put_on_card(module: nn.Module) -> None:
    """Move a module's parameters and buffers; tied ones stay tied."""
    moved: dict[int, Any] = {}

    def once(key: Tensor, make: Callable[[], Any]) -> Any:
        if id(key) not in moved:
            moved[id(key)] = make()
        return moved[id(key)]

    for part in module.modules():
        for name, parameter in part._parameters.items():
            if parameter is not None:
                part._parameters[name] = once(
                    parameter, lambda p=parameter: nn.Parameter(OnCard(p.detach()), p.requires_grad)
                )
        for name, buffer in part._buffers.items():
            if buffer is not None:
                part._buffers[name] = once(buffer, lambda b=buffer: OnCard(b.detach()))


@contextmanager
def train_on_card(patch: pytest.MonkeyPatch) -> Iterator[list[Tensor]]:
    """Transformers' trainer takes the pretended card for its device.

    Yields:
        A list that holds the state of the card's generator, and can be given another one.
    """
    generator = [torch.arange(16, dtype=torch.uint8)]

    def restore(state: Tensor, device: torch.device) -> None:
        assert device == CARD
        generator[:] = [state.cpu()]

    import accelerate
    import transformers

    usual = transformers.TrainingArguments.device.fget

    def device(arguments: Any) -> torch.device:
        usual(arguments)  # it also sets up what a trainer asks for
        return CARD

    with patch.context() as inside:
        inside.setattr(transformers.TrainingArguments, "device", property(device))
        inside.setattr(accelerate.Accelerator, "device", CARD)
        inside.setattr(torch.cuda, "get_rng_state", lambda device: generator[0].clone())
        inside.setattr(torch.cuda, "set_rng_state", restore)
        yield generator
