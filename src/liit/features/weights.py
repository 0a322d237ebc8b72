"""Per-sample gradients of whole weight matrices, sketched from both sides without ever being formed.

The gradient of sample i at a linear layer's weight is G_i = sum_t g[i,t] x[i,t]^T, as large as the weight. Its sketch
L^T G_i R = sum_t (L^T g[i,t]) (R^T x[i,t])^T needs only the projected vectors (LoGra, arXiv 2405.13954). L and R hold
random signs over the square root of their width, so inner products are kept in expectation; a side that is no longer
than the width is not projected. The product of two small maps keeps inner products less well than one map of as many
coordinates, the worse the lower the rank of G: with sides of width p, those of rank-one gradients only as well as about
p/2 coordinates of a dense sketch. The squared norms are exact: |G_i|^2 = sum over t, s of (g_t . g_s)(x_t . x_s).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn

from liit.errors import InputError
from liit.features.gradients import SampleGradients, lowest_layer
from liit.features.sketch import seed_of
from liit.features.taps import Taps
from liit.model.vlm import VLM


class WeightGradients:
    """Two-sided sketches of the gradients at every linear layer's weight in chosen decoder layers.

    Args:
        vlm: the model, with or without an adapter.
        layers: decoder layers, ascending.
        side: width of the projections.
        seed: of the projections.

    Raises:
        InputError: no linear layers there.
    """

    def __init__(self, vlm: VLM, layers: Sequence[int], side: int, seed: int) -> None:
        prefixes = tuple(f"{vlm.layers_name}.{layer}." for layer in layers)
        modules = {
            name.removesuffix(".base_layer"): module
            for name, module in vlm.base.named_modules()
            if isinstance(module, nn.Linear) and name.startswith(prefixes) and ".lora_" not in name
        }
        if not modules:
            raise InputError(f"features.layers: {list(layers)} hold no linear layers whose weights have gradients")
        self.taps = Taps(modules, lowest_layer(vlm, layers, modules))
        self.sides = {
            name: (
                _projection(module.out_features, side, seed_of(seed, name, "out"), vlm.device),
                _projection(module.in_features, side, seed_of(seed, name, "in"), vlm.device),
            )
            for name, module in modules.items()
        }
        self.length = sum(min(m.out_features, side) * min(m.in_features, side) for m in modules.values())

    def recording(self) -> AbstractContextManager[None]:
        """Record the forward pass inside."""
        return self.taps.recording()

    @torch.no_grad()
    def per_sample(self, hidden: Tensor, grad_hidden: Tensor) -> Iterator[SampleGradients]:
        """Sketched gradients, (N, width * width) for each weight; see `GradientSource`."""
        for name, calls in self.taps.calls(hidden, grad_hidden).items():
            left, right = self.sides[name]
            if not calls:
                raise InputError(f"features.layers: {name} has no part in the loss; choose layers without it")
            x = torch.cat([call.inputs for call in calls], 1).float()
            g = torch.cat([call.gradient for call in calls], 1).float()
            squares = ((g @ g.transpose(1, 2)) * (x @ x.transpose(1, 2))).sum((1, 2)).clamp_min(0)
            g = g if left is None else g @ left
            x = x if right is None else x @ right
            yield SampleGradients(f"{name}.weight", (g.transpose(1, 2) @ x).flatten(1), squares)


def _projection(length: int, width: int, seed: int, device: torch.device) -> Tensor | None:
    """(length, width) signs over sqrt(width), or None where there is nothing to shorten."""
    if length <= width:
        return None
    generator = torch.Generator().manual_seed(seed)
    signs = torch.randint(0, 2, (length, width), generator=generator, dtype=torch.int8) * 2 - 1
    projection: Tensor = signs.float() / width**0.5
    return projection.to(device)
