"""Exact per-sample gradients of LoRA factors from one batched backward pass.

For a LoRA module y += s B(A x), the gradient of sample i's loss is dA_i = sum_t ga[i,t] x[i,t]^T and
dB_i = sum_t gb[i,t] (A x)[i,t]^T, where ga and gb are the loss's gradients at the outputs of A and B (gb contains the
scaling s by the chain rule). Samples do not see each other, so the gradients of the batch's summed loss are theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from liit.errors import InputError
from liit.model.lora import lora_parameters
from liit.model.vlm import VLM


class LoraGradients:
    """Records what per-sample gradients need while a batch runs.

    Args:
        vlm: a model with an adapter.
        layers: decoder layers whose LoRA parameters are wanted.

    Raises:
        InputError: no LoRA parameters in these layers.
    """

    def __init__(self, vlm: VLM, layers: Sequence[int]) -> None:
        self.parameters = lora_parameters(vlm, layers)
        if not self.parameters:
            raise InputError(f"features.layers: {list(layers)} hold no LoRA parameters; attach an adapter there first")
        self.all_parameters = lora_parameters(vlm)
        self.modules: dict[str, nn.Module] = {
            name: vlm.base.get_submodule(name.removesuffix(".weight")) for name in self.parameters
        }
        self.length = sum(p.numel() for p in self.parameters.values())
        self._inputs: dict[str, Tensor] = {}
        self._outputs: dict[str, Tensor] = {}

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Record the forward passes inside; only the chosen layers' parameters carry gradients meanwhile."""
        handles = [m.register_forward_hook(self._recorder(name)) for name, m in self.modules.items()]
        before = {name: p.requires_grad for name, p in self.all_parameters.items()}
        for name, parameter in self.all_parameters.items():
            parameter.requires_grad_(name in self.parameters)
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
            for name, parameter in self.all_parameters.items():
                parameter.requires_grad_(before[name])
            self._inputs.clear()
            self._outputs.clear()

    def per_sample(self, hidden: Tensor, grad_hidden: Tensor) -> Iterator[Tensor]:
        """Gradients of every sample, parameter by parameter in the model's order.

        Args:
            hidden: (N, T, d) output of the recorded forward pass.
            grad_hidden: (N, T, d) gradient of the summed loss there.

        Yields:
            (N, numel) float32 for each parameter.
        """
        names = list(self.modules)
        gradients = torch.autograd.grad(hidden, [self._outputs[n] for n in names], grad_outputs=grad_hidden)
        for name, gradient in zip(names, gradients, strict=True):
            product = gradient.float().transpose(1, 2) @ self._inputs[name].float()
            yield product.flatten(1)

    def _recorder(self, name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def hook(_module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            self._inputs[name] = inputs[0].detach()
            self._outputs[name] = output

        return hook
