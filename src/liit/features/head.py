"""The language-model head as it acts: with its LoRA factors, and with the scale or soft cap that some families add."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from liit.errors import InputError


@dataclass(frozen=True, slots=True)
class LogitHead:
    """Turns hidden states into logits, and gradients at logits into gradients at hidden states.

    logits = cap * tanh(scale * head(h) / cap), without the tanh when there is no cap.

    Attributes:
        module: a linear head, with or without LoRA factors.
        scale: factor on the head's output (Cohere's ``logit_scale``, the inverse of Granite's ``logits_scaling``).
        cap: Gemma's ``final_logit_softcapping``.
    """

    module: nn.Module
    scale: float = 1.0
    cap: float | None = None

    @property
    def weight(self) -> Tensor:
        """(V, d) weight, without the update of LoRA factors."""
        return self.module.get_parameter("base_layer.weight" if hasattr(self.module, "base_layer") else "weight")

    @property
    def vocabulary(self) -> int:
        """V, the number of logits."""
        return len(self.weight)

    def logits(self, hidden: Tensor) -> Tensor:
        """(n, V) float32 logits of (n, d) hidden states."""
        out: Tensor = self.module(hidden).float()
        if self.scale != 1.0:
            out = out * self.scale
        return out if self.cap is None else torch.tanh(out / self.cap) * self.cap

    def pull(self, gradient: Tensor, logits: Tensor) -> Tensor:
        """Gradient (n, d) at the hidden states from the gradient (n, V) at these logits."""
        if self.cap is not None:
            gradient = gradient * (1 - (logits / self.cap) ** 2)
        if self.scale != 1.0:
            gradient = gradient * self.scale
        layer: Any = self.module
        weight = self.weight
        out = gradient.to(weight.dtype) @ weight
        for name in getattr(layer, "active_adapters", ()):
            if name in layer.lora_A and not layer.merged:
                a, b = layer.lora_A[name].weight, layer.lora_B[name].weight
                out = out + ((gradient.to(b.dtype) @ b) @ a * layer.scaling[name]).to(out.dtype)
        return out


def likely_heads(module: nn.Module, config: Any) -> list[LogitHead]:
    """What a model's head may be, by its text configuration, likeliest first; `choose_head` tries them."""

    def number(name: str) -> float | None:
        value = getattr(config, name, None)
        return float(value) if isinstance(value, int | float) and math.isfinite(value) and value else None

    scale = number("logit_scale") or 1 / (number("logits_scaling") or 1.0)
    cap = number("final_logit_softcapping")
    heads = [LogitHead(module, scale, cap), LogitHead(module, 1.0, cap), LogitHead(module, scale), LogitHead(module)]
    return [head for i, head in enumerate(heads) if head not in heads[:i]]


@torch.no_grad()
def choose_head(heads: list[LogitHead], hidden: Tensor, logits: Tensor, name: str) -> LogitHead:
    """The head that gives the model's own logits.

    Args:
        heads: candidates.
        hidden: (..., d) last hidden states.
        logits: (..., V) what the model makes of them.
        name: of the model, for the message.

    Raises:
        InputError: none does.
    """
    own = logits.float()
    size = float(own.abs().max()) + 1e-6
    tolerance = 1e-4 if logits.dtype == torch.float32 and hidden.dtype == torch.float32 else 5e-2
    for head in heads:
        if float((head.logits(hidden) - own).abs().max()) <= tolerance * size:
            return head
    raise InputError(
        f"model: {name} changes its logits after the head in a way that liit does not know; its losses would be wrong"
    )
