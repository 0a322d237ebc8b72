"""Passes over rows that share their beginnings: all the way, or up to a layer from which every row goes on alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from liit.features.attention import positions_first
from liit.features.losses import IGNORE, next_tokens
from liit.features.narrow import WORTH
from liit.features.packing import Pack, PackedRows, lay_out
from liit.features.passes import Passes, plain_words
from liit.model.chat import Encoded
from liit.model.memory import is_out_of_memory
from liit.model.vlm import VLM

OWN_POSITIONS = frozenset({"image_grid_thw", "mm_token_type_ids", "token_type_ids"})
WINDOWS = ("sliding_window", "attention_chunk_size")
REFUSALS = (TypeError, ValueError, IndexError, KeyError, RuntimeError)


def may_share_images(vlm: VLM) -> bool:
    """Whether a shared beginning may hold images; not in families whose positions or masks depend on them."""
    return not (OWN_POSITIONS & vlm.takes)


class Sharing:
    """Runs packed rows through a model.

    Whether a model gives packed rows the states that they have apart is tried on a few words when this is made.

    Args:
        passes: its forward passes.
        forks: also try whether rows may part on the way.

    Attributes:
        packs: rows may share their beginnings all the way.
        forks: rows may share their beginnings up to a layer.
        pictures: a shared beginning may hold images; not in families whose positions depend on them.
    """

    def __init__(self, passes: Passes, *, forks: bool = False) -> None:
        self.passes, self.vlm = passes, passes.vlm
        self.pictures = may_share_images(self.vlm)
        self.packs, self.forks = False, False
        windows = [getattr(self.vlm.text_config, name, None) for name in WINDOWS]
        if all(window is None or window >= self.vlm.max_length for window in windows):  # a few words would not show it
            with passes.exactly():
                self.packs, self.forks = self._try(forks=forks)

    def inputs(self, packed: PackedRows, vision: dict[str, Any]) -> dict[str, Any]:
        """Inputs of the model for packed rows and the vision inputs of their shared beginnings.

        Raises:
            ValueError: the model's attention takes no mask of this kind.
        """
        return {
            "input_ids": packed.input_ids,
            "position_ids": packed.position_ids,
            "attention_mask": _as_mask(self.vlm, packed.allowed),
            **vision,
        }

    def answers(self, packed: PackedRows, vision: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """The last hidden states where the rows' answer tokens are predicted, beginnings shared all the way.

        Args:
            packed: the rows.
            vision: vision inputs of the packs.

        Returns:
            Hidden states (N, S, d) and the tokens (N, S) that they predict, -100 for none.
        """
        targets = next_tokens(packed.labels)
        positions, real = positions_first(targets != IGNORE)
        targets = targets.gather(1, positions).masked_fill(~real, IGNORE)
        cut, slots = packed.cut(positions, real)
        batch, depth = self.inputs(packed, vision), len(self.passes.layers)
        if cut.shape[1] > WORTH * packed.input_ids.shape[1]:
            hidden = self.passes.run(batch, depth)
            slots = packed.place.gather(1, positions)
        else:
            hidden = self.passes.run(batch, depth, cut)
        assert hidden is not None
        return hidden[packed.owner[:, None], slots], targets

    @contextmanager
    def forked(self, packed: PackedRows, layer: int) -> Iterator[None]:
        """Let every row go on alone from a decoder layer on; the pass inside then gives (N, L, d).

        Raises:
            TypeError: from the pass, when a layer takes inputs that cannot be dealt out to rows.
        """
        length = packed.mask.shape[1]
        causal = torch.ones(length, length, dtype=torch.bool, device=packed.mask.device).tril()
        rows = _as_mask(self.vlm, (causal & packed.mask.bool()[:, None, :])[:, None])

        def before(number: int) -> Callable[..., Any]:
            def hook(_module: Any, args: tuple[Any, ...], options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
                own = {name: _dealt(packed, rows, name, value) for name, value in options.items()}
                if number > layer:
                    return args, own
                if args:
                    return (packed.unpack(args[0]), *args[1:]), own
                return args, {**own, "hidden_states": packed.unpack(options["hidden_states"])}

            return hook

        above = list(enumerate(self.passes.layers))[layer:]
        handles = [module.register_forward_pre_hook(before(n), with_kwargs=True) for n, module in above]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    @torch.no_grad()
    def _try(self, *, forks: bool) -> tuple[bool, bool]:
        some, depth = plain_words(self.vlm), len(self.passes.layers)
        rows = [_words("a", [*some[:5], *some[9:12]]), _words("b", [*some[:5], *some[6:8]])]
        packed = lay_out([Pack((0, 1), 5, 10)], rows, self.vlm.device)
        apart = {"input_ids": packed.unpack(packed.input_ids), "attention_mask": packed.mask}
        alone = self.passes.run(apart, depth)
        real = packed.mask.bool()

        def same(together: Tensor | None) -> bool:
            assert together is not None
            assert alone is not None
            tolerance = 1e-4 if alone.dtype == torch.float32 else 5e-2
            return float((together - alone)[real].abs().max()) <= tolerance * float(alone[real].abs().max())

        try:
            whole = self.passes.run(self.inputs(packed, {}), depth)
            assert whole is not None
            packs = same(packed.unpack(whole))
        except REFUSALS as error:
            _unless_out_of_memory(error)
            return False, False
        if not forks:
            return packs, False
        try:
            with self.forked(packed, depth - 1):
                return packs, packs and same(self.passes.run(self.inputs(packed, {}), depth))
        except REFUSALS as error:
            _unless_out_of_memory(error)
            return packs, False


def _unless_out_of_memory(error: Exception) -> None:
    """Memory that ran out says nothing about what a family can do."""
    if is_out_of_memory(error):
        raise error


def _as_mask(vlm: VLM, allowed: Tensor) -> Tensor:
    """A mask as the model's attention takes it."""
    kind = vlm.text_config._attn_implementation
    if kind == "sdpa":
        return allowed
    if kind != "eager":
        raise ValueError(f"{kind} attention takes no mask of (N, 1, T, T)")
    dtype = next(vlm.base.parameters()).dtype
    mask = torch.zeros(allowed.shape, dtype=dtype, device=allowed.device)
    return mask.masked_fill(~allowed, torch.finfo(dtype).min)


def _dealt(packed: PackedRows, rows: Tensor, name: str, value: Any) -> Any:
    """A layer's input for rows, from the one for packs."""
    if name == "attention_mask":
        return rows
    if isinstance(value, tuple):
        return tuple(_dealt(packed, rows, name, item) for item in value)
    if not isinstance(value, Tensor) or name == "hidden_states":
        return value
    shape = packed.input_ids.shape
    if name in ("position_embeddings", "position_ids") and value.dim() >= 2 and value.shape[:2] == shape:
        return packed.unpack(value)
    raise TypeError(f"its input {name} may belong to positions")


def _words(name: str, ids: list[int]) -> Encoded:
    return Encoded(name, np.asarray(ids, np.int64), np.zeros(len(ids), bool), ())
