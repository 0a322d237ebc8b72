"""Pictures on disk, named by content, each belonging to exactly one split."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec

from PIL import Image

from liit.demo.continuum.rows import Split

P = ParamSpec("P")
ATTEMPTS = 50


class ImageStore:
    """A directory of PNG files that refuses to show one picture to two splits.

    Args:
        directory: Where the files go; created if it is missing.
    """

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self.split: dict[str, Split] = {}
        self.sha256: dict[str, str] = {}

    def add(self, image: Image.Image, split: Split) -> str | None:
        """Write the picture unless it is there already.

        Args:
            image: An RGB picture.
            split: The split whose rows show it.

        Returns:
            The file name, or None if another split owns a picture of the same bytes.
        """
        buffer = io.BytesIO()
        image.save(buffer, "PNG", compress_level=1)
        data = buffer.getvalue()
        digest = hashlib.sha256(data).hexdigest()
        name = f"{digest[:20]}.png"
        if self.split.setdefault(name, split) != split:
            return None
        if name not in self.sha256:
            self.sha256[name] = digest
            (self._directory / name).write_bytes(data)
        return name

    def draw(self, split: Split, make: Callable[P, Image.Image], *args: P.args, **kwargs: P.kwargs) -> str:
        """Draw until the picture is one that no other split owns.

        Args:
            split: The split whose rows show it.
            make: Draws a picture, another one at each call.
            args: What it takes.
            kwargs: What it takes by name.

        Returns:
            The file name.

        Raises:
            RuntimeError: If every attempt drew a picture of another split.
        """
        for _ in range(ATTEMPTS):
            name = self.add(make(*args, **kwargs), split)
            if name is not None:
                return name
        raise RuntimeError(f"{ATTEMPTS} pictures drawn for '{split}' all belong to another split")
