"""Looking into one decoder layer's attention, whatever its family, while all others keep their fast kernel.

Every attention of transformers 5 forms queries, keys and values its own way (rotary positions, query and key norms,
grouped heads) and then calls the function that its configuration names. `attention_calls` names another one for a
single layer, so what arrives there is exactly what the model computed.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from liit.errors import InputError

ROUTE = "liit_attention_calls"
AttentionFunction = Callable[..., tuple[Tensor, Any]]


@contextmanager
def attention_calls(layer: nn.Module, function: AttentionFunction) -> Iterator[None]:
    """Let one decoder layer's attention call ``function`` while the block runs.

    Args:
        layer: a decoder layer.
        function: called as ``function(original, module, query, key, value, mask, **options)`` with query
            (N, heads, T, head_dim) and key and value (N, kv_heads, T, head_dim) after rotary positions; it returns what
            ``original(module, query, key, value, mask, **options)`` would.
    """
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    ALL_ATTENTION_FUNCTIONS.register(ROUTE, _route)
    changed: list[tuple[nn.Module, Any]] = []
    try:
        for module in layer.modules():
            config: Any = module.__dict__.get("config")
            if getattr(config, "_attn_implementation", None) is None:
                continue
            changed.append((module, config))
            if config._attn_implementation == ROUTE:
                raise RuntimeError("two looks into the attention of one layer at once")
            mine: Any = copy.copy(config)
            mine._attn_implementation_internal = ROUTE
            module.config = mine
            module.__dict__["_liit_call"] = (function, _original(module, config._attn_implementation))
        yield
    finally:
        for module, config in changed:
            module.config = config
            del module.__dict__["_liit_call"]


class _Original:
    """The attention function that a module's own configuration names."""

    def __init__(self, implementation: str, function: AttentionFunction) -> None:
        self.implementation, self.function = implementation, function

    def __call__(self, *args: Any, **options: Any) -> tuple[Tensor, Any]:
        return self.function(*args, **options)


def _original(module: nn.Module, implementation: str) -> _Original:
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    family = sys.modules[type(module).__module__]
    functions = getattr(family, "ALL_ATTENTION_FUNCTIONS", ALL_ATTENTION_FUNCTIONS)
    eager: Any = getattr(family, "eager_attention_forward", None)
    return _Original(implementation, functions.get_interface(implementation, eager))


def _route(module: nn.Module, *args: Any, **options: Any) -> tuple[Tensor, Any]:
    function, original = module.__dict__["_liit_call"]
    out: tuple[Tensor, Any] = function(original, module, *args, **options)
    return out


def rows_of_mask(mask: Any, positions: Tensor, length: int) -> Tensor:
    """What chosen query positions may look at, from the mask that a model gives to its attention.

    Args:
        mask: None (causal, nothing padded), (N, T) with 1 for real tokens (causal), or (N or 1, heads or 1, T, T),
            boolean (true: may look) or additive.
        positions: (N, S) query positions.
        length: T.

    Returns:
        (N, heads or 1, S, T), boolean or additive like the mask.

    Raises:
        TypeError: another kind of mask.
    """
    n, device = len(positions), positions.device
    if mask is not None and not isinstance(mask, Tensor):
        raise TypeError(f"got a {type(mask).__name__}")
    if mask is None or mask.dim() == 2:
        allowed = torch.arange(length, device=device) <= positions[:, None, :, None]
        return allowed if mask is None else allowed & mask.bool()[:, None, None, :]
    if mask.shape[-2:] != (length, length):
        raise TypeError(f"got a mask of shape {tuple(mask.shape)} for {length} tokens")
    index = positions[:, None, :, None].expand(n, mask.shape[1], positions.shape[1], length)
    return mask.expand(n, -1, -1, -1).gather(2, index)


class InstructionAttention:
    """Attention that the user's words pay to every token, in one decoder layer (ScalSelect, arXiv 2602.11636, eq. 2).

    Per row a_j = sum over user positions u of the mean over heads of A[head, u, j]; user positions are all that are
    neither image tokens nor part of an answer (the official code's choice: the template's own words count too). The
    weights A are recomputed from queries and keys, for user positions only, one head at a time, and with the mask,
    scale and soft cap that the model hands to its attention.

    Args:
        layer: the decoder layer.
        name: of the model, for messages.
    """

    def __init__(self, layer: nn.Module, name: str) -> None:
        self.layer, self.name = layer, name
        self.attention: Tensor | None = None

    @contextmanager
    def recording(self, users: Tensor) -> Iterator[None]:
        """Fill ``attention`` (N, T) float32 from the forward pass inside.

        Args:
            users: (N, T) bool, true at user positions.

        Raises:
            InputError: the layer's attention cannot be looked at.
        """
        self.attention = None

        def look(original: AttentionFunction, module: nn.Module, query: Tensor, key: Tensor, value: Tensor,
                 mask: Any, **options: Any) -> tuple[Tensor, Any]:  # fmt: skip
            if self.attention is None:
                self.attention = self._weights(module, query, key, mask, users, options)
            return original(module, query, key, value, mask, **options)

        with attention_calls(self.layer, look):
            yield

    def result(self) -> Tensor:
        """The recorded attention.

        Raises:
            InputError: the layer has no attention that goes through the library's interface.
        """
        if self.attention is None:
            self._refuse("its first block does not use the attention interface of transformers")
        assert self.attention is not None
        return self.attention

    @torch.no_grad()
    def _weights(
        self, module: nn.Module, query: Tensor, key: Tensor, mask: Any, users: Tensor, options: dict[str, Any]
    ) -> Tensor:
        for name in ("s_aux", "position_bias"):
            if options.get(name) is not None:
                self._refuse(f"its attention adds {name} to the scores")
        if options.get("sliding_window") and not (isinstance(mask, Tensor) and mask.dim() == 4):
            self._refuse("its first block attends to a sliding window that only its kernel knows")
        scale = options.get("scaling")
        scale = query.shape[-1] ** -0.5 if scale is None else scale
        positions, real = positions_first(users)
        try:
            allowed = rows_of_mask(mask, positions, key.shape[2])
        except TypeError as error:
            self._refuse(f"its attention mask cannot be read ({error})")
        group = query.shape[1] // key.shape[1]
        total = torch.zeros(users.shape, device=query.device)
        for head in range(query.shape[1]):
            chosen = query[:, head].gather(1, positions[..., None].expand(-1, -1, query.shape[-1]))
            scores = (chosen.float() @ key[:, head // group].float().transpose(1, 2)) * scale
            if softcap := options.get("softcap"):
                scores = torch.tanh(scores / softcap) * softcap
            own = allowed[:, head if allowed.shape[1] > 1 else 0]
            lowest = torch.finfo(torch.float32).min
            scores = scores.masked_fill(~own, lowest) if own.dtype == torch.bool else scores + own.float()
            total += (real.float()[:, None, :] @ scores.softmax(-1))[:, 0]
        return total / query.shape[1]

    def _refuse(self, why: str) -> None:
        raise InputError(f"features: instructed_vision cannot be computed for {self.name}: {why}; leave it out")


def positions_first(chosen: Tensor) -> tuple[Tensor, Tensor]:
    """The chosen positions of every row, in order, padded to the longest list.

    Args:
        chosen: (N, T) bool.

    Returns:
        (N, S) positions and (N, S) bool, false where a row has fewer; S is at least 1.
    """
    most = max(1, int(chosen.sum(1).max()))
    order = chosen.to(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, :most]
    return order, chosen.gather(1, order)
