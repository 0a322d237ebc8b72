"""One forward pass over a batch, as deep as it has to go, and what is looked at on the way."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from liit.features.attention import positions_first
from liit.features.head import LogitHead, choose_head, likely_heads
from liit.features.losses import IGNORE, next_tokens
from liit.features.narrow import WORTH, NarrowLayer, gather
from liit.features.packing import Pack, PackedRows, lay_out
from liit.model.chat import Encoded
from liit.model.vlm import VLM


class _DeepEnough(Exception):  # noqa: N818 (not an error)
    """Ends a forward pass after the last layer that is needed."""


class Passes:
    """Forward passes through a model's decoder.

    Args:
        vlm: the model.
        head: whether the language-model head is needed; it is then checked against the model's own logits.
    """

    def __init__(self, vlm: VLM, *, head: bool) -> None:
        self.vlm = vlm
        self.layers = list(vlm.decoder_layers)
        self.narrow: NarrowLayer | None = None
        self.why_not_narrow = ""
        self.packs = False
        self._head: LogitHead | None = None
        if head:
            self._check()

    @property
    def head(self) -> LogitHead:
        """The language-model head as it acts."""
        assert self._head is not None
        return self._head

    def run(self, batch: dict[str, Tensor], depth: int, positions: Tensor | None = None) -> Tensor | None:
        """The last hidden states (N, T, d), or (N, S, d) at ``positions``; None when the pass ends before.

        Args:
            batch: inputs of the model; labels are left out.
            depth: decoder layers to run.
            positions: (N, S) positions at which the last layer's output is wanted; None: all.
        """
        inputs = {name: value for name, value in batch.items() if name != "labels"}
        if depth < len(self.layers):
            with _stop_after(self.layers[depth - 1]):
                self.vlm.backbone(**inputs, use_cache=False)
            return None
        if positions is None or self.narrow is None:
            hidden: Tensor = self.vlm.backbone(**inputs, use_cache=False)[0]
            return hidden if positions is None else gather(hidden, positions)
        with self.narrow.at(positions):
            chosen: Tensor = self.vlm.backbone(**inputs, use_cache=False)[0]
        return chosen

    def run_packed(self, packed: PackedRows, vision: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """The last hidden states where the rows' answer tokens are predicted, for rows that share their beginnings.

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
        batch = self.packed_inputs(packed, **vision)
        if cut.shape[1] > WORTH * packed.input_ids.shape[1]:
            hidden = self.run(batch, len(self.layers))
            slots = packed.place.gather(1, positions)
        else:
            hidden = self.run(batch, len(self.layers), cut)
        assert hidden is not None
        return hidden[packed.owner[:, None], slots], targets

    @torch.no_grad()
    def _check(self) -> None:
        """Compare the head, and the last layer at few positions, with the model's own logits of a few words.

        What a family does after its head, or to the inputs of its last layer, cannot be known from outside.
        """
        vlm = self.vlm
        some = [i for i in range(7, 24) if i != vlm.image_token_id and i < vlm.text_config.vocab_size]
        ids = torch.tensor([some[:8], some[3:11]], device=vlm.device)
        mask = torch.ones_like(ids)
        mask[1, 5:] = 0
        positions = torch.tensor([[1, 3, 6], [0, 4, 4]], device=vlm.device)
        inputs = {"input_ids": ids, "attention_mask": mask}
        logits = gather(vlm.base(**inputs, use_cache=False).logits, positions)
        whole = self.run(inputs, len(self.layers), positions)
        assert whole is not None
        self._head = choose_head(likely_heads(vlm.lm_head, vlm.text_config), whole, logits, vlm.path)
        self.narrow = NarrowLayer(self.layers[-1])
        try:
            few = self.run(inputs, len(self.layers), positions)
            assert few is not None
            choose_head([self.head], few, logits, vlm.path)
        except (TypeError, ValueError, IndexError, RuntimeError) as error:
            self.narrow, self.why_not_narrow = None, str(error)
        self.packs = self._packs(some)

    def _packs(self, some: list[int]) -> bool:
        """Whether two rows behind one beginning have the states that they have apart; tried on a few words.

        A window of attention that only longer rows leave would not show there.
        """
        windows = [getattr(self.vlm.text_config, name, None) for name in ("sliding_window", "attention_chunk_size")]
        if any(window is not None and window < self.vlm.max_length for window in windows):
            return False
        rows = [_words("a", [*some[:5], *some[9:12]]), _words("b", [*some[:5], *some[6:8]])]
        packed = lay_out([Pack((0, 1), 5, 10)], rows, self.vlm.device)
        apart = {"input_ids": packed.unpack(packed.input_ids), "attention_mask": packed.mask}
        try:
            together = packed.unpack(self.vlm.backbone(**self.packed_inputs(packed), use_cache=False)[0])
        except (TypeError, ValueError, IndexError, RuntimeError, KeyError):
            return False
        alone = self.vlm.backbone(**apart, use_cache=False)[0]
        real = packed.mask.bool()
        size = float(alone[real].abs().max())
        tolerance = 1e-4 if alone.dtype == torch.float32 else 5e-2
        return float((together - alone)[real].abs().max()) <= tolerance * size

    def packed_inputs(self, packed: PackedRows, **vision: Any) -> dict[str, Any]:
        """Inputs of the model for packed rows and the vision inputs of their shared beginnings.

        Raises:
            ValueError: the model's attention takes no mask of this kind.
        """
        kind = self.vlm.text_config._attn_implementation
        allowed: Tensor = packed.allowed
        if kind == "eager":
            dtype = next(self.vlm.base.parameters()).dtype
            allowed = torch.zeros(allowed.shape, dtype=dtype, device=allowed.device).masked_fill(
                ~allowed, torch.finfo(dtype).min
            )
        elif kind != "sdpa":
            raise ValueError(f"{kind} attention")
        return {
            "input_ids": packed.input_ids, "position_ids": packed.position_ids, "attention_mask": allowed, **vision
        }  # fmt: skip


@contextmanager
def _stop_after(layer: nn.Module) -> Iterator[None]:
    def stop(*_: Any) -> None:
        raise _DeepEnough

    handle = layer.register_forward_hook(stop)
    try:
        yield
    except _DeepEnough:
        pass
    finally:
        handle.remove()


@contextmanager
def states_after(layers: Sequence[nn.Module], wanted: Collection[int]) -> Iterator[dict[int, Tensor]]:
    """Record the outputs (N, T, d) of some decoder layers, without their history."""
    states: dict[int, Tensor] = {}

    def recorder(number: int) -> Any:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            states[number] = (output[0] if isinstance(output, tuple) else output).detach()

        return hook

    handles = [layers[number].register_forward_hook(recorder(number)) for number in sorted(set(wanted))]
    try:
        yield states
    finally:
        for handle in handles:
            handle.remove()


def _words(name: str, ids: list[int]) -> Encoded:
    return Encoded(name, np.asarray(ids, np.int64), np.zeros(len(ids), bool), ())


def user_positions(batch: dict[str, Tensor], image_token: int) -> tuple[Tensor, Tensor]:
    """Where the user's words are, and where the images are: two (N, T) bool masks.

    User positions are all real tokens that are neither image tokens nor part of an answer.
    """
    real = batch["attention_mask"].bool()
    vision = (batch["input_ids"] == image_token) & real
    return real & ~vision & (batch["labels"] == IGNORE), vision
