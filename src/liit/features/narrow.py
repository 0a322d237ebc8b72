"""The last decoder layer at a few positions only.

Log-perplexity and its gradient look at the last layer's output where an answer token is predicted, a small part of a
sequence. All positions still give that layer keys and values; queries' outputs, the output projection and the MLP are
computed at the positions asked for. Exact, and nothing is assumed about the layer's inside: it runs once up to its
attention, where queries, keys and values are taken, and once more on the chosen positions alone, where its attention
gets those instead of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from liit.features.attention import AttentionFunction, attention_calls, positions_first, rows_of_mask
from liit.features.losses import IGNORE

WORTH = 0.7  # above this share of positions the whole layer is cheaper


def answer_positions(targets: Tensor) -> tuple[Tensor | None, Tensor]:
    """Positions whose next token is an answer token, when they are few enough to be worth it.

    Args:
        targets: (N, T) token that each position predicts, -100 for none.

    Returns:
        (N, S) positions, or None for all; and the targets there, (N, S) or (N, T).
    """
    labelled = targets != IGNORE
    positions, real = positions_first(labelled)
    if positions.shape[1] > WORTH * targets.shape[1]:
        return None, targets
    return positions, targets.gather(1, positions).masked_fill(~real, IGNORE)


class _ReachedAttention(Exception):  # noqa: N818 (not an error)
    """Ends the first run of a layer."""


class NarrowLayer:
    """Runs a decoder layer at chosen positions.

    Args:
        layer: the last decoder layer.
    """

    def __init__(self, layer: nn.Module) -> None:
        self.layer = layer

    @contextmanager
    def at(self, positions: Tensor | None) -> Iterator[None]:
        """Let the layer put out (N, S, d), its output at ``positions`` (N, S), while the block runs; None: no change.

        Raises:
            TypeError: from the layer, when its inputs cannot be cut to positions.
        """
        if positions is None:
            yield
            return
        outer = self.layer.__dict__.get("forward")
        whole = self.layer.forward

        def forward(hidden_states: Tensor, *args: Any, **options: Any) -> Any:
            return self._forward(whole, positions, hidden_states, args, options)

        self.layer.forward = forward
        try:
            yield
        finally:
            del self.layer.forward
            if outer is not None:
                self.layer.forward = outer

    def _forward(
        self, whole: Any, positions: Tensor, hidden: Tensor, args: tuple[Any, ...], options: Mapping[str, Any]
    ) -> Any:
        length, n_chosen = hidden.shape[1], positions.shape[1]
        taken: list[Any] = []

        def take(original: AttentionFunction, module: nn.Module, *seen: Any, **more: Any) -> tuple[Tensor, Any]:
            taken.append((seen, more))
            raise _ReachedAttention

        def give(original: Any, module: nn.Module, *_: Any, **__: Any) -> tuple[Tensor, Any]:
            (query, key, value, mask, *rest), more = taken[0]
            if rest or more.get("position_bias") is not None:
                raise TypeError("its attention takes inputs that belong to positions")
            if more.get("sliding_window") and not (isinstance(mask, Tensor) and mask.dim() == 4):
                raise TypeError("its attention looks at a window that only its kernel knows")
            index = positions[:, None, :, None].expand(-1, query.shape[1], -1, query.shape[-1])
            rows = rows_of_mask(mask, positions, length)
            function = _with_a_mask(original)
            return function(module, query.gather(2, index), key, value, rows, **more)

        try:
            with attention_calls(self.layer, take):
                out = whole(hidden, *args, **options)
            return _gather_output(out, positions)  # a layer without such attention has computed everything
        except _ReachedAttention:
            pass
        cut = {name: _cut(name, value, length, n_chosen) for name, value in options.items()}
        with attention_calls(self.layer, give):
            return whole(gather(hidden, positions), *(_cut("", value, length, n_chosen) for value in args), **cut)


def gather(states: Tensor, positions: Tensor) -> Tensor:
    """States (N, T, d) at positions (N, S)."""
    return states.gather(1, positions[..., None].expand(-1, -1, states.shape[-1]))


def _gather_output(out: Any, positions: Tensor) -> Any:
    return (gather(out[0], positions), *out[1:]) if isinstance(out, tuple) else gather(out, positions)


def _with_a_mask(original: Any) -> AttentionFunction:
    """The layer's own attention function, or one like it that takes any mask."""
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    if original.implementation in ("eager", "sdpa"):
        function: AttentionFunction = original
    else:
        function = ALL_ATTENTION_FUNCTIONS["sdpa"]
    return function


def _cut(name: str, value: Any, length: int, n_chosen: int) -> Any:
    """An input of the layer for as many positions as are chosen.

    Which ones does not matter: what is made of them, positions of queries and keys, is thrown away.
    """
    if isinstance(value, tuple):
        return tuple(_cut(name, item, length, n_chosen) for item in value)
    if not isinstance(value, Tensor) or name in ("attention_mask", "cache_position"):
        return value
    if name == "position_embeddings" and value.shape[-2] == length:
        return value[..., :n_chosen, :]
    if name == "position_ids" and value.shape[-1] == length:
        return value[..., :n_chosen]
    if torch.is_floating_point(value) or length in value.shape:
        raise TypeError(f"its input {name or 'by position'} may belong to positions")
    return value
