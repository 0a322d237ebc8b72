"""Recording what goes into and comes out of some modules while a batch runs, and the loss's gradients there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from liit.errors import InputError
from liit.model.vlm import VLM


class Call(NamedTuple):
    """One call of a linear module: its input (N, T, in) and the loss's gradient at its output (N, T, out)."""

    inputs: Tensor
    gradient: Tensor


class Taps:
    """Records calls of modules inside some decoder layers.

    Autograd's graph starts at the lowest of these layers: what lies below costs no memory and no backward.

    Args:
        modules: by name.
        lowest: the lowest decoder layer that holds one of them.
    """

    def __init__(self, modules: Mapping[str, nn.Module], lowest: nn.Module) -> None:
        self.modules, self.lowest = dict(modules), lowest
        self._seen: dict[str, list[tuple[Tensor, Tensor]]] = {}

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Record the forward pass inside; what was recorded is gone afterwards."""
        handles = [m.register_forward_hook(self._recorder(name)) for name, m in self.modules.items()]
        handles.append(self.lowest.register_forward_pre_hook(_start_graph, with_kwargs=True))
        self._seen = {name: [] for name in self.modules}
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
            self._seen = {}

    def calls(self, hidden: Tensor, grad_hidden: Tensor) -> dict[str, list[Call]]:
        """Backpropagate once; the calls of every module that the loss depends on, in the order of the modules.

        Args:
            hidden: (N, S, d) output of the recorded forward pass.
            grad_hidden: (N, S, d) gradient of the summed loss there.
        """
        flat = [(name, x, y) for name, seen in self._seen.items() for x, y in seen]
        gradients = torch.autograd.grad(hidden, [y for _, _, y in flat], grad_outputs=grad_hidden, allow_unused=True)
        found: dict[str, list[Call]] = {name: [] for name in self._seen}
        for (name, x, _), gradient in zip(flat, gradients, strict=True):
            if gradient is None:  # the last layer's queries and keys may have been run for nothing
                continue
            if x.dim() != 3 or len(x) != len(hidden):
                raise InputError(
                    f"features.layers: {name} mixes the tokens of several samples (an input of shape {tuple(x.shape)} "
                    f"for {len(hidden)} samples), as experts do; per-sample gradients need other layers or modules"
                )
            found[name].append(Call(x, gradient))
        return found

    def _recorder(self, name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def hook(_module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            self._seen[name].append((inputs[0].detach(), output))

        return hook


def _start_graph(_module: nn.Module, args: tuple[Any, ...], options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Make a leaf that needs a gradient of the hidden states that enter a layer."""
    if args:
        return (args[0].detach().requires_grad_(), *args[1:]), options
    return args, {**options, "hidden_states": options["hidden_states"].detach().requires_grad_()}


@contextmanager
def only_scoring(vlm: VLM) -> Iterator[None]:
    """Evaluation mode (no dropout, no checkpointing) and frozen decoder layers while the block runs; then as before."""
    training = [module for module in vlm.model.modules() if module.training]
    trainable = [parameter for parameter in vlm.decoder_layers.parameters() if parameter.requires_grad]
    vlm.model.eval()
    for parameter in trainable:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for module in training:
            module.training = True
        for parameter in trainable:
            parameter.requires_grad_(True)
