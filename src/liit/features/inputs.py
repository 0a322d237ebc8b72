"""Batches for the model, with a count of the images that its vision tower saw."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from liit.features.report import ExtractionReport
from liit.model.batch import collate
from liit.model.chat import Encoded
from liit.model.vision import VisionCache, VisionInputs
from liit.model.vlm import VLM


class Inputs:
    """Makes batches of rows.

    Args:
        vlm: the model.
        vision: where vision inputs come from.
        report: is counted into.
    """

    def __init__(self, vlm: VLM, vision: VisionInputs, report: ExtractionReport) -> None:
        self.vlm, self.vision, self.report = vlm, vision, report

    def batch(self, rows: Sequence[Encoded], vision: VisionInputs | None = None) -> dict[str, Tensor]:
        """Rows padded to one length; see `liit.model.batch.collate`.

        Args:
            rows: the rows.
            vision: instead of the usual one.
        """
        source = vision if vision is not None else self.vision
        with _Counting(self.report, source, sum(len(row.images) for row in rows)):
            return collate(self.vlm, rows, source)

    def images_of(self, rows: Sequence[Encoded], vision: VisionInputs | None = None) -> dict[str, Any]:
        """Vision inputs alone, on the model's device."""
        source = vision if vision is not None else self.vision
        images = [image for row in rows for image in row.images]
        if not images:
            return {}
        with _Counting(self.report, source, len(images)):
            found = source.inputs(images, [len(row.images) for row in rows if row.images])
        return {k: v.to(self.vlm.device) if isinstance(v, Tensor) else v for k, v in found.items()}


class _Counting:
    """Counts images given to the model, and those of them that its tower had to look at."""

    def __init__(self, report: ExtractionReport, vision: VisionInputs, images: int) -> None:
        self.report, self.vision, self.images = report, vision, images

    def __enter__(self) -> None:
        self.before = getattr(self.vision, "computed", 0)

    def __exit__(self, *_: object) -> None:
        kept = isinstance(self.vision, VisionCache) and self.vision.frozen
        self.report.images += self.images
        self.report.tower_images += getattr(self.vision, "computed", 0) - self.before if kept else self.images
