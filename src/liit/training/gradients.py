"""Gradients of chosen rows, for training hooks that need more than the batch's."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from liit.model.batch import IGNORE, collate
from liit.model.chat import Encoded
from liit.model.vision import VisionInputs
from liit.model.vlm import VLM


class RowGradients:
    """Gradients with respect to what trains; see `liit.training.hooks.Gradients`.

    Args:
        vlm: the model.
        rows: the selection.
        vision: where vision inputs come from.
        parameters: what trains, by name.
        autocast: type of the arithmetic, when not the weights'.
    """

    def __init__(
        self,
        vlm: VLM,
        rows: Sequence[Encoded],
        vision: VisionInputs,
        parameters: Mapping[str, nn.Parameter],
        autocast: str | None,
    ) -> None:
        self.vlm, self.rows, self.vision, self.parameters, self.autocast = vlm, rows, vision, parameters, autocast

    def of_log_likelihood(self, rows: Iterable[int]) -> Iterator[dict[str, Tensor]]:
        """For each row by itself: gradient of log p(answer), summed over its answer tokens."""
        for row in rows:
            found = self.of_loss([row])
            count = self.rows[row].n_answer_tokens
            yield {name: value * -count for name, value in found.items()}

    def of_loss(self, rows: Iterable[int]) -> dict[str, Tensor]:
        """For all rows together: gradient of the mean loss per answer token."""
        batch: dict[str, Any] = collate(self.vlm, [self.rows[row] for row in rows], self.vision, side="left")
        if takes_positions(self.vlm):
            batch = answer_positions_only(batch)
        training = [module for module in self.vlm.model.modules() if module.training]
        self.vlm.model.eval()
        try:
            with self._arithmetic():
                loss = self.vlm.model(**batch).loss
            found = torch.autograd.grad(loss, list(self.parameters.values()), allow_unused=True)
        finally:
            for module in training:
                module.training = True
        pairs = zip(self.parameters.items(), found, strict=True)
        return {name: (torch.zeros_like(p) if g is None else g).detach().float() for (name, p), g in pairs}

    def _arithmetic(self) -> AbstractContextManager[Any]:
        if self.autocast is None:
            return nullcontext()
        return torch.autocast(self.vlm.device.type, getattr(torch, self.autocast))


def trained_parameters(vlm: VLM) -> dict[str, nn.Parameter]:
    """What trains, by its name in the model without an adapter's wrapper, in the model's order."""
    return {name: parameter for name, parameter in vlm.base.named_parameters() if parameter.requires_grad}


def takes_positions(vlm: VLM) -> bool:
    """Whether the model can be asked for logits at the last positions only."""
    return "logits_to_keep" in inspect.signature(vlm.base.forward).parameters


def answer_positions_only(batch: dict[str, Any]) -> dict[str, Any]:
    """Ask the model for logits from the position before the batch's first label on; the loss stays the same.

    Rows are padded on the left, so answers, which come last, lie side by side, and few positions meet the vocabulary.
    """
    labels: Tensor = batch["labels"]
    first = int((labels != IGNORE).any(0).nonzero()[0])
    keep = labels.shape[1] - first + 1
    return {**batch, "labels": labels[:, -keep:], "logits_to_keep": keep}
