"""Exact per-sample gradients of LoRA factors from one batched backward pass.

For a linear layer with LoRA, y = W x + s B A x, the gradient of sample i's loss is
dA_i = s sum_t (B^T g[i,t]) x[i,t]^T and dB_i = s sum_t g[i,t] (A x[i,t])^T, where g is the loss's gradient at y.
Samples do not see each other, so the gradients of the batch's summed loss are theirs. Only x and g are needed: it makes
no difference whether the factors act beside the weight or are folded into it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from liit.errors import InputError
from liit.features.taps import Call, Taps
from liit.model.lora import lora_parameters
from liit.model.vlm import VLM


class SampleGradients(NamedTuple):
    """Gradients of N samples at one parameter.

    Attributes:
        name: of the parameter, inside ``VLM.base``.
        values: (N, p) float32 coordinates, exact or already sketched.
        squares: (N,) squared norms of the exact gradients.
    """

    name: str
    values: Tensor
    squares: Tensor


class GradientSource(Protocol):
    """Per-sample gradients at some parameters; ``length`` is the number of coordinates in all."""

    length: int

    def recording(self) -> AbstractContextManager[None]:
        """Record the forward pass inside."""
        ...

    def per_sample(self, hidden: Tensor, grad_hidden: Tensor) -> Iterator[SampleGradients]:
        """Gradients of every sample, parameter by parameter in the model's order.

        Args:
            hidden: (N, S, d) output of the recorded forward pass.
            grad_hidden: (N, S, d) gradient of the summed loss there.
        """
        ...


class _Factors(NamedTuple):
    """A module's active LoRA factors."""

    a: nn.Parameter
    b: nn.Parameter
    scaling: float


class LoraGradients:
    """Per-sample gradients of the LoRA factors of chosen decoder layers.

    Args:
        vlm: a model with an adapter.
        layers: decoder layers whose LoRA parameters are wanted, ascending.

    Raises:
        InputError: no LoRA parameters in these layers, or of a kind whose gradient is another one (DoRA, biases).
    """

    def __init__(self, vlm: VLM, layers: Sequence[int]) -> None:
        self.parameters = lora_parameters(vlm, layers)
        if not self.parameters:
            raise InputError(f"features.layers: {list(layers)} hold no LoRA parameters; attach an adapter there first")
        self.factors: dict[str, _Factors] = {}
        for name in self.parameters:
            module = name.rpartition(".lora_")[0]
            if module not in self.factors:
                self.factors[module] = _factors(vlm.base.get_submodule(module), module)
        known = [id(p) for factors in self.factors.values() for p in factors[:2]]
        if other := [name for name, p in self.parameters.items() if id(p) not in known]:
            raise InputError(
                f"features: the gradient of {other[0]} is not known; expected an adapter of one plain LoRA (no DoRA, "
                "no biases, no second adapter)"
            )
        self.length = sum(p.numel() for p in self.parameters.values())
        modules = {name: vlm.base.get_submodule(name) for name in self.factors}
        self.taps = Taps(modules, lowest_layer(vlm, layers, modules))

    def recording(self) -> AbstractContextManager[None]:
        """Record the forward pass inside."""
        return self.taps.recording()

    @torch.no_grad()
    def per_sample(self, hidden: Tensor, grad_hidden: Tensor) -> Iterator[SampleGradients]:
        """Exact gradients, (N, numel) for each parameter in the model's order; see `GradientSource`."""
        found = self.taps.calls(hidden, grad_hidden)
        names = iter(self.parameters)
        for module, factors in self.factors.items():
            for values in _products(found[module], factors, len(hidden)):
                yield SampleGradients(next(names), values, (values * values).sum(1))


def lowest_layer(vlm: VLM, layers: Sequence[int], modules: Iterable[str]) -> nn.Module:
    """The lowest of these decoder layers that holds one of these modules."""
    names = list(modules)
    return vlm.decoder_layers[
        min(layer for layer in layers if any(name.startswith(f"{vlm.layers_name}.{layer}.") for name in names))
    ]


def _factors(layer: nn.Module, name: str) -> _Factors:
    active: Sequence[str] = getattr(layer, "active_adapters", ())
    a: Mapping[str, nn.Module] = getattr(layer, "lora_A", {})
    b: Mapping[str, nn.Module] = getattr(layer, "lora_B", {})
    scaling: Mapping[str, float] = getattr(layer, "scaling", {})
    plain = len(active) == 1 and active[0] in a and not getattr(layer, "lora_variant", {})
    if not plain or not isinstance(a[active[0]], nn.Linear):
        raise InputError(f"features: the gradient of {name} is not known; expected one plain LoRA on a linear layer")
    return _Factors(a[active[0]].weight, b[active[0]].weight, float(scaling[active[0]]))  # type: ignore[arg-type]


def _products(calls: Sequence[Call], factors: _Factors, n: int) -> tuple[Tensor, Tensor]:
    """(N, r * in) and (N, out * r) float32 gradients of A and B, summed over the calls of their module."""
    a, b = factors.a.float(), factors.b.float()
    sums: list[Tensor] = []
    for x, g in calls:
        x, g = x.float(), g.float()
        down = (x @ a.T).mul_(factors.scaling)  # (N, T, r)
        up = (g @ b).mul_(factors.scaling)
        parts = [up.transpose(1, 2) @ x, g.transpose(1, 2) @ down]
        sums = [total.add_(part) for total, part in zip(sums, parts, strict=True)] if sums else parts
    if not sums:
        return a.new_zeros(n, a.numel()), b.new_zeros(n, b.numel())
    return sums[0].flatten(1), sums[1].flatten(1)
