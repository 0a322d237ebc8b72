"""The official scoring procedure of Adapt-infinity, written anew from its description: the baseline of extraction.py.

No official code is run or copied. What it does for every sample, one at a time:

1. tokenise, open and preprocess the image, run the whole model with its vision tower, logits at every position;
2. softmax statistics over all positions, a one-hot vector at the answer's;
3. backward through the LoRA factors of every decoder layer, then keep one layer's gradient;
4. mean hidden state of that layer;
5. the whole model again with the pixels set to zero, for image grounding;
6. every 16 samples project the gradients to 8192 numbers with a dense Rademacher matrix;
7. every 160 samples write a file.

Where its definitions differ from the paper's, the paper's are used, so that both sides compute the same numbers:
perplexity is exp(mean NLL), and entropy is averaged over the answer's positions (it is still computed at all of them,
because that is what the procedure spends). Its files are pickles; these are safetensors files of the same size. Left
out, in its favour: it later loads everything and writes it twice more (normalised and raw), and scores perplexity and
image embeddings in a second script with a second sweep over the pool.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import torch
from safetensors.torch import save_file
from torch import Tensor

from liit.data.sample import Sample
from liit.model.chat import ChatEncoder
from liit.model.lora import lora_parameters
from liit.model.vlm import VLM

PROJECT_ROWS, FILE_ROWS = 16, 160
COLUMNS_AT_ONCE = 128


class Projector(Protocol):
    """Maps (n, P) gradients to (n, k)."""

    def __call__(self, gradients: Tensor) -> Tensor:
        """Project."""
        ...


class CachedRademacher:
    """A dense matrix of signs, drawn once and kept: 4 P k bytes. The generous reading of the procedure."""

    def __init__(self, length: int, dim: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.matrix = torch.empty(length, dim)
        for column in range(0, dim, COLUMNS_AT_ONCE):
            block = self.matrix[:, column : column + COLUMNS_AT_ONCE]
            block.copy_(_signs((length, block.shape[1]), generator))
        self.scale = dim**-0.5

    def __call__(self, gradients: Tensor) -> Tensor:
        """Project (n, P) gradients."""
        return gradients @ self.matrix * self.scale


class RedrawnRademacher:
    """The same matrix, drawn again at every call, some columns at a time: what the procedure falls back to."""

    def __init__(self, length: int, dim: int, seed: int) -> None:
        self.length, self.dim, self.seed = length, dim, seed

    def __call__(self, gradients: Tensor) -> Tensor:
        """Draw the matrix and project (n, P) gradients."""
        generator = torch.Generator(gradients.device).manual_seed(self.seed)
        out = torch.empty(len(gradients), self.dim, device=gradients.device, dtype=gradients.dtype)
        for column in range(0, self.dim, COLUMNS_AT_ONCE):
            width = min(COLUMNS_AT_ONCE, self.dim - column)
            out[:, column : column + width] = gradients @ _signs((self.length, width), generator, gradients.dtype)
        return out * self.dim**-0.5


def _signs(shape: tuple[int, int], generator: torch.Generator, dtype: torch.dtype = torch.float32) -> Tensor:
    signs = torch.empty(shape, device=generator.device, dtype=dtype)
    return signs.bernoulli_(0.5, generator=generator).mul_(2).sub_(1)


class OfficialExtraction:
    """The procedure on one model.

    Args:
        vlm: a model with an adapter.
        layer: decoder layer whose gradient and hidden state are kept.
        projector: what projects gradients; None keeps nothing of them on disk but their norms.
        scores: false leaves out everything but the gradient: no statistics, hidden state and zero-image pass.

    Attributes:
        seconds: CPU seconds by what was done.
        keep_gradients: also hand back the gradients before projection; for checks, not for timing.
    """

    def __init__(self, vlm: VLM, layer: int, projector: Projector | None, *, scores: bool = True) -> None:
        self.vlm, self.layer, self.projector, self.scores = vlm, layer, projector, scores
        self.seconds: dict[str, float] = defaultdict(float)
        self.keep_gradients = False
        self._all = lora_parameters(vlm)
        self._kept = lora_parameters(vlm, [layer])

    @contextmanager
    def _timed(self, what: str) -> Iterator[None]:
        start = time.process_time()
        yield
        self.seconds[what] += time.process_time() - start

    def __call__(self, samples: Sequence[Sample], out: Path) -> dict[str, Tensor]:
        """Score the samples, writing a file per 160 rows.

        Returns:
            (N,) or (N, d) float32 by feature name; ``exact_gradient`` (N, P) if `keep_gradients` is set.
        """
        out.mkdir(parents=True)
        encoder = ChatEncoder(self.vlm)
        for parameter in self._all.values():
            parameter.requires_grad_(True)
        rows: list[dict[str, Tensor]] = []
        waiting: list[Tensor] = []
        unwritten = 0
        for number, sample in enumerate(samples, start=1):
            row = self._one(encoder, sample)
            waiting.append(row.pop("exact_gradient"))
            rows.append(row)
            last = number == len(samples)
            if len(waiting) == PROJECT_ROWS or last:
                self._project(rows[-len(waiting) :], waiting)
                waiting.clear()
            if number % FILE_ROWS == 0 or last:
                self._write(rows[unwritten:], out / f"grads-{number}.safetensors")
                unwritten = number
        for parameter in self._all.values():
            parameter.requires_grad_(False)
        return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}

    def _one(self, encoder: ChatEncoder, sample: Sample) -> dict[str, Tensor]:
        with self._timed("tokens and pixels"):
            batch = self._batch(encoder, sample)
        with self._timed("forward"):
            out = self.vlm.model(**batch, output_hidden_states=self.scores, use_cache=False)
        with self._timed("backward"):
            self.vlm.model.zero_grad(set_to_none=True)
            out.loss.backward()
            gradient = torch.cat([p.grad.flatten() for p in self._kept.values() if p.grad is not None])
        row = {"exact_gradient": gradient, "grad_norm": gradient.norm()}
        if self.scores:
            with self._timed("statistics"):
                row["log_perplexity"] = out.loss.detach()
                row |= self._statistics(out.logits[0].detach(), batch["labels"][0])
                row["embedding"] = out.hidden_states[self.layer + 1][0].detach().mean(0)
            with self._timed("zero-image forward"):
                row["blind_log_perplexity"] = self._without_image(batch)
        return row

    def _batch(self, encoder: ChatEncoder, sample: Sample) -> dict[str, Tensor]:
        row = encoder.encode(sample)
        ids = torch.from_numpy(row.input_ids)[None]
        labels = ids.masked_fill(~torch.from_numpy(row.answer_mask)[None], -100)
        batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}
        if row.images:
            images = [image.open() for image in row.images]
            pixels = self.vlm.processor.image_processor(images=images, return_tensors="pt")["pixel_values"]
            batch["pixel_values"] = pixels.to(self.vlm.base.dtype)
        return {name: value.to(self.vlm.device) for name, value in batch.items()}

    @staticmethod
    def _statistics(logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
        p = torch.softmax(logits.float(), -1)
        log_p = torch.log_softmax(logits.float(), -1)
        entropy = -(p * log_p).sum(-1)
        places = torch.nonzero(labels[1:] != -100)[:, 0]
        one_hot = torch.nn.functional.one_hot(labels[places + 1], logits.shape[-1]).float()
        return {"el2n": (p[places] - one_hot).norm(dim=-1).mean(), "entropy": entropy[places].mean()}

    @torch.no_grad()
    def _without_image(self, batch: dict[str, Tensor]) -> Tensor:
        if "pixel_values" not in batch:
            return torch.tensor(torch.nan, device=self.vlm.device)
        zeros = {**batch, "pixel_values": torch.zeros_like(batch["pixel_values"])}
        loss: Tensor = self.vlm.model(**zeros, use_cache=False).loss
        return loss

    def _project(self, rows: Sequence[dict[str, Tensor]], gradients: Sequence[Tensor]) -> None:
        if self.keep_gradients:
            for row, gradient in zip(rows, gradients, strict=True):
                row["exact_gradient"] = gradient
        if self.projector is None:
            return
        with self._timed("projection"), torch.no_grad():
            for row, projected in zip(rows, self.projector(torch.stack(list(gradients))), strict=True):
                row["gradient"] = projected.half()

    def _write(self, rows: Sequence[dict[str, Tensor]], path: Path) -> None:
        with self._timed("files"):
            save_file({name: torch.stack([row[name] for row in rows]) for name in rows[0]}, path)
