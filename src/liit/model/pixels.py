"""What a batch's images become for the model: pixels, as the model's own processor makes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from liit.data.sample import ImageRef
from liit.model.vlm import VLM


class VisionInputs(Protocol):
    """Gives a batch's vision inputs by keyword."""

    def inputs(self, images: Sequence[ImageRef], per_row: Sequence[int] | None = None) -> dict[str, Any]:
        """Vision keyword arguments of the model.

        Args:
            images: of all rows, in order.
            per_row: number of images of each row that has any; by default one each. Some families treat several images
                of one row otherwise than a single one.
        """
        ...


class Pixels:
    """Runs the model's own processor every time; works for any family."""

    def __init__(self, vlm: VLM) -> None:
        self.processor = vlm.processor
        self.dtype = next(vlm.base.parameters()).dtype

    def inputs(self, images: Sequence[ImageRef], per_row: Sequence[int] | None = None) -> dict[str, Tensor]:
        """Open and preprocess the images; the tensors among what the processor gives for them."""
        opened = iter(images)
        counts = [1] * len(images) if per_row is None else per_row
        rows = [[next(opened).open() for _ in range(count)] for count in counts]
        text = [self.processor.image_token * len(row) for row in rows]  # tells the processor whose images are whose
        out = self.processor(images=rows, text=text, images_kwargs={"return_tensors": "pt"})
        return {k: v.to(self.dtype) if v.is_floating_point() else v for k, v in out.items() if isinstance(v, Tensor)}


class BlankPixels:
    """Zeros in place of every image (``blind: zeros``, as the official code does).

    Idefics3 and SmolVLM take an image of exact zeros for padding and drop it; so a blank pixel is the smallest number
    of its type, which no sum can tell from zero, and only pixels that were zero before are exactly zero.
    """

    def __init__(self, vlm: VLM) -> None:
        self.pixels = Pixels(vlm)

    def inputs(self, images: Sequence[ImageRef], per_row: Sequence[int] | None = None) -> dict[str, Tensor]:
        """The shapes of the real inputs without their content."""
        real = self.pixels.inputs(images, per_row)
        return {k: _blank(v) if v.is_floating_point() else v for k, v in real.items()}


def _blank(pixels: Tensor) -> Tensor:
    return torch.zeros_like(pixels).masked_fill(pixels != 0, torch.finfo(pixels.dtype).tiny)
