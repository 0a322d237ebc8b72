"""One forward pass over a batch, as deep as it has to go, and what is looked at on the way."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from liit.features.head import LogitHead, choose_head, likely_heads
from liit.features.losses import IGNORE
from liit.features.narrow import NarrowLayer, gather
from liit.model.memory import is_out_of_memory
from liit.model.vlm import VLM


class _DeepEnough(Exception):  # noqa: N818 (not an error)
    """Ends a forward pass after the last layer that is needed."""


class Passes:
    """Forward passes through a model's decoder.

    Args:
        vlm: the model.
        head: whether the language-model head is needed; it is then checked against the model's own logits.
        autocast: type in which matrix products of the passes are computed; None: that of the weights.
    """

    def __init__(self, vlm: VLM, *, head: bool, autocast: torch.dtype | None = None) -> None:
        self.vlm = vlm
        self.layers = list(vlm.decoder_layers)
        self.narrow: NarrowLayer | None = None
        self.why_not_narrow = ""
        self._head: LogitHead | None = None
        self._autocast = autocast
        if head:
            with self.exactly():
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
                self._backbone(inputs)
            return None
        if positions is None or self.narrow is None:
            hidden = self._backbone(inputs)
            return hidden if positions is None else gather(hidden, positions)
        with self.narrow.at(positions):
            return self._backbone(inputs)

    @contextmanager
    def exactly(self) -> Iterator[None]:
        """Run passes in the type of the weights while the block runs, so that small differences show."""
        autocast, self._autocast = self._autocast, None
        try:
            yield
        finally:
            self._autocast = autocast

    def _backbone(self, inputs: dict[str, Tensor]) -> Tensor:
        with torch.autocast(self.vlm.device.type, self._autocast, enabled=self._autocast is not None):
            hidden: Tensor = self.vlm.backbone(**inputs, use_cache=False)[0]
        return hidden

    @torch.no_grad()
    def _check(self) -> None:
        """Compare the head, and the last layer at few positions, with the model's own logits of a few words.

        What a family does after its head, or to the inputs of its last layer, cannot be known from outside.
        """
        vlm = self.vlm
        some = plain_words(vlm)
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
            if is_out_of_memory(error):
                raise
            self.narrow, self.why_not_narrow = None, str(error)


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


def plain_words(vlm: VLM) -> list[int]:
    """A dozen token ids that stand for no image, to try out what a model does."""
    return [i for i in range(7, 24) if i != vlm.image_token_id and i < vlm.text_config.vocab_size]


def user_positions(batch: dict[str, Tensor], image_token: int) -> tuple[Tensor, Tensor]:
    """Where the user's words are, and where the images are: two (N, T) bool masks.

    User positions are all real tokens that are neither image tokens nor part of an answer.
    """
    real = batch["attention_mask"].bool()
    vision = (batch["input_ids"] == image_token) & real
    return real & ~vision & (batch["labels"] == IGNORE), vision
