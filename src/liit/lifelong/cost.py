"""What a stage costs in arithmetic: floating-point operations counted while they run.

Products count, two operations for every multiply-add: linear layers, matrix products, convolutions and attention, of
whatever models run, padding included. What is added, normalised or activated is not counted, nor is numpy's arithmetic
(k-means), nor a forward pass that gradient checkpointing makes again.

A product that autograd records costs as much again for every operand that a gradient goes to. So a linear layer whose
weights are frozen costs twice its forward pass in training, three times where the weights train too, and attention
three times; what lies below the lowest trained weight costs its forward pass only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode


class FlopCounter(TorchFunctionMode):
    """Counts the operations of the block it surrounds, in this thread; results stay as they are.

    Attributes:
        forward: operations of forward passes and of products outside autograd.
        backward: operations that the backward passes of what was recorded take, once each.
    """

    def __init__(self) -> None:
        super().__init__()
        self.forward = 0
        self.backward = 0

    @property
    def total(self) -> int:
        """All of them."""
        return self.forward + self.backward

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run a function of torch, and count it when it is a product."""
        result = func(*args, **(kwargs or {}))
        count = _COUNTED.get(func)
        if count is not None:
            operations, operands = count(result, *args, **(kwargs or {}))
            self.forward += operations
            if isinstance(result, Tensor) and result.requires_grad:
                self.backward += operations * sum(operand.requires_grad for operand in operands)
        return result


Counted = tuple[int, tuple[Tensor, ...]]


def _linear(_: Tensor, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Counted:
    return 2 * input.numel() * weight.shape[0], (input, weight)


def _product(result: Tensor, left: Tensor, right: Tensor, **_: Any) -> Counted:
    return 2 * result.numel() * left.shape[-1], (left, right)


def _reversed(result: Tensor, right: Tensor, left: Tensor) -> Counted:
    return _product(result, left, right)


def _added(result: Tensor, _: Tensor, left: Tensor, right: Tensor, **__: Any) -> Counted:
    return _product(result, left, right)


def _convolution(result: Tensor, input: Tensor, weight: Tensor, *_: Any, **__: Any) -> Counted:
    return 2 * result.numel() * math.prod(weight.shape[1:]), (input, weight)


def _attention(_: Tensor, query: Tensor, key: Tensor, value: Tensor, *__: Any, **___: Any) -> Counted:
    """Scores and sums; a mask saves nothing here, as in most kernels, and every operand's gradient costs as much."""
    pairs = math.prod(query.shape[:-1]) * key.shape[-2]
    return 2 * pairs * (query.shape[-1] + value.shape[-1]), (query, value)


_COUNTED: dict[Any, Callable[..., Counted]] = {
    F.linear: _linear,
    F.scaled_dot_product_attention: _attention,
    **dict.fromkeys((F.conv1d, F.conv2d, F.conv3d), _convolution),
    **dict.fromkeys(
        (torch.matmul, torch.mm, torch.bmm, torch.mv, Tensor.matmul, Tensor.__matmul__, Tensor.mm, Tensor.bmm), _product
    ),
    Tensor.__rmatmul__: _reversed,
    **dict.fromkeys((torch.addmm, torch.baddbmm, Tensor.addmm, Tensor.baddbmm), _added),
}
