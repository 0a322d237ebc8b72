"""Padding encoded samples into one batch, and bucketing many of them by length."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from liit.model.chat import Encoded
from liit.model.vision import VisionInputs
from liit.model.vlm import VLM

IGNORE = -100


def collate(vlm: VLM, rows: Sequence[Encoded], vision: VisionInputs, *, side: str = "right") -> dict[str, Tensor]:
    """Pad rows to one length.

    Args:
        vlm: the model, for its padding token and device.
        rows: the rows of the batch.
        vision: gives the vision inputs of the rows' images.
        side: where the padding goes, "right" or "left".

    Returns:
        input_ids (N, T), attention_mask (N, T), labels (N, T) with -100 outside answers, the vision inputs, and
        mm_token_type_ids or token_type_ids (N, T), 1 at image tokens, for families that place images by them (Qwen's
        positions in three dimensions, Gemma 3's attention within an image).
    """
    pad = vlm.tokenizer.pad_token_id
    longest = max(len(row) for row in rows)
    ids = np.full((len(rows), longest), pad if pad is not None else 0, dtype=np.int64)
    mask = np.zeros((len(rows), longest), dtype=np.int64)
    labels = np.full((len(rows), longest), IGNORE, dtype=np.int64)
    for i, row in enumerate(rows):
        place = slice(0, len(row)) if side == "right" else slice(longest - len(row), longest)
        ids[i, place] = row.input_ids
        mask[i, place] = 1
        labels[i, place] = np.where(row.answer_mask, row.input_ids, IGNORE)
    batch: dict[str, Any] = {
        "input_ids": torch.from_numpy(ids),
        "attention_mask": torch.from_numpy(mask),
        "labels": torch.from_numpy(labels),
    }
    for name in ("mm_token_type_ids", "token_type_ids"):
        if name in vlm.takes:
            image_ids = torch.tensor([i for i in vlm.processor.image_token_ids if i is not None])
            batch[name] = (torch.isin(batch["input_ids"], image_ids) & batch["attention_mask"].bool()).long()
    images = [image for row in rows for image in row.images]
    if images:
        batch.update(vision.inputs(images, [len(row.images) for row in rows if row.images]))
    return {k: value.to(vlm.device) if isinstance(value, Tensor) else value for k, value in batch.items()}


def bucket_by_length(lengths: Sequence[int], batch_tokens: int) -> Iterator[np.ndarray]:
    """Group rows of similar length so that each padded batch stays within a token budget.

    Args:
        lengths: tokens of each row.
        batch_tokens: most tokens of a batch, padding included; a longer row gets a batch of its own.

    Yields:
        Row numbers of one batch; every row occurs once. Longest rows come first, so memory trouble shows at once.
    """
    order = np.argsort(-np.asarray(lengths, dtype=np.int64), kind="stable")
    start = 0
    while start < len(order):
        longest = max(1, lengths[order[start]])
        stop = start + max(1, batch_tokens // longest)
        yield order[start:stop]
        start = stop
