"""The frozen vision path's outputs, computed once per image and kept on disk.

A frozen path gives the same output for an image for ever, so a lifelong run needs it once per image, not once per step
and method. What is kept, and how it goes back into the model, is `liit.model.vision_paths`' business.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from liit.data.sample import ImageRef
from liit.errors import InputError
from liit.model.fingerprint import hash_settings
from liit.model.image_tokens import ImageTokens
from liit.model.memory import Pieces
from liit.model.pixels import Pixels
from liit.model.vision_paths import vision_path
from liit.model.vision_store import Kept, KeptStates
from liit.model.vlm import VLM

SHARD_IMAGES = 1024
BATCH_IMAGES = 32
ANNOUNCED_BYTES = 1e9  # what takes more is announced where everybody sees it

log = logging.getLogger(__name__)


class VisionCache:
    """Kept vision outputs of one model.

    Args:
        vlm: a model for which `vision_path` finds a way.
        directory: parent folder; outputs of different towers or settings lie in different folders below it.
    """

    def __init__(self, vlm: VLM, directory: Path) -> None:
        path = vision_path(vlm)
        if path is None:
            raise InputError(f"model: the vision features of {vlm.path} cannot be kept; use pixels")
        self.path, self.pixels, self.tokens = path, Pixels(vlm), ImageTokens(vlm)
        self.key = hash_settings(
            {
                "weights": vlm.base_id,
                "path": type(path).__name__,
                "type": str(self.pixels.dtype),
                "layer": getattr(vlm.base.config, "vision_feature_layer", None),
                "processor": str(vlm.processor.image_processor.to_json_string()),
            }
        )
        self.kept = KeptStates(directory / self.key[:32])
        self.directory = self.kept.directory
        self.computed = 0
        self.pieces = Pieces(BATCH_IMAGES, "image")

    def __len__(self) -> int:
        return len(self.kept)

    @property
    def frozen(self) -> bool:
        """Whether the vision path still is the base model's: neither trained nor under an adapter."""
        return not any(p.requires_grad or ".lora_" in name for name, p in self.path.parameters())

    def inputs(self, images: Sequence[ImageRef], per_row: Sequence[int] | None = None) -> dict[str, Any]:
        """Kept outputs, computing and keeping those that are missing; pixels if the vision path is trained."""
        if not self.frozen:
            return self.pixels.inputs(images, per_row)
        flags = [self.tokens.together(n) for n in (per_row or [1] * len(images)) for _ in range(n)]
        asked = list(zip(images, flags, strict=True))
        self._fill(asked, None)
        return self.path.batch([self.kept[_name(image, together)] for image, together in asked])

    def missing(self, images: Iterable[ImageRef]) -> list[ImageRef]:
        """Images that have no kept output yet, each once."""
        return [image for image, _ in self._missing((image, False) for image in images)]

    def fill(self, images: Iterable[ImageRef], progress: Callable[[int], None] | None = None) -> int:
        """Compute what is missing of images that are alone in their row; how many (none if the path is trained)."""
        return self._fill(((image, False) for image in images), progress)

    def fill_rows(self, rows: Iterable[Sequence[ImageRef]], progress: Callable[[int], None] | None = None) -> int:
        """Compute what is missing of the images of some rows; how many that were."""
        return self._fill(((image, self.tokens.together(len(row))) for row in rows for image in row), progress)

    def describe(self) -> str:
        """Where it is and how large, in words."""
        return f"vision features of {len(self)} images are kept in {self.directory} ({self.kept.size / 1e6:.0f} MB)"

    def _missing(self, asked: Iterable[tuple[ImageRef, bool]]) -> list[tuple[ImageRef, bool]]:
        return list({n: (i, t) for i, t in asked if (n := _name(i, t)) not in self.kept}.values())

    def _fill(self, asked: Iterable[tuple[ImageRef, bool]], progress: Callable[[int], None] | None) -> int:
        todo = self._missing(asked) if self.frozen else []
        if todo:
            self.kept.refresh()
            todo = self._missing(todo)
        announced = False
        for together in (False, True):
            images = [image for image, flag in todo if flag == together]
            for start in range(0, len(images), SHARD_IMAGES):
                shard, entries = images[start : start + SHARD_IMAGES], list[Kept]()
                self._compute(shard, together, entries, len(todo) if not announced else 0, progress)
                announced = True
                self.kept.add([_name(image, together) for image in shard], entries)
                self.computed += len(shard)
        return len(todo)

    def _compute(
        self,
        images: Sequence[ImageRef],
        together: bool,
        entries: list[Kept],
        announce: int,
        progress: Callable[[int], None] | None,
    ) -> None:
        """Add the outputs of some images to the entries, and announce the room for so many images by the first ones."""

        def work(start: int, stop: int) -> None:
            batch = self.path.compute(images[start:stop], together=together)
            if announce and not entries:
                self._announce(announce, sum(entry.size for entry in batch) / len(batch))
            entries.extend(batch)
            if progress is not None:
                progress(len(batch))

        self.pieces.run(len(images), work, lambda at: images[at].path or images[at].sha256)

    def _announce(self, images: int, each: float) -> None:
        """Say how much room the features will take, judged by the first ones.

        Raises:
            InputError: more than there is.
        """
        size, free = images * each, shutil.disk_usage(self.directory).free
        words = f"vision features of {images} images take about {size / 1e9:.2f} GB in {self.directory}"
        if size > free:
            raise InputError(
                f"model.vision_cache: {words}, where {free / 1e9:.2f} GB are free; make room, name another place in "
                "LIIT_CACHE, or set model.vision_cache to false, which computes them at every pass"
            )
        log.log(logging.WARNING if size > ANNOUNCED_BYTES else logging.INFO, "liit: %s", words)


def _name(image: ImageRef, together: bool) -> str:
    return f"{image.sha256}+" if together else image.sha256
