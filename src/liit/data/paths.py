"""Keeping the paths in a dataset file inside its image folder."""

from __future__ import annotations

import os
from pathlib import Path

from liit.data.images import ImageError


class ImageRoot:
    """Turns the image paths of a dataset file into absolute ones that cannot leave the image folder.

    Args:
        root: The image folder.
        allow_outside: Let paths leave the folder; the user says so for a file they trust.
    """

    def __init__(self, root: Path, allow_outside: bool = False) -> None:
        self.root = os.path.realpath(root)
        self.allow_outside = allow_outside

    def resolve(self, path: str) -> str:
        """Absolute path of an image, links followed.

        A path that goes up and comes back, or an absolute path into the folder, is harmless and accepted: what counts
        is where it leads after `..` and symbolic links are followed.

        Args:
            path: As written in the dataset file.

        Returns:
            The absolute path; whether there is a file is not checked.

        Raises:
            ImageError: The path is empty, a URL, contains NUL, or leads out of the folder.
        """
        if not path.strip():
            raise ImageError("image-missing", "the image path is empty")
        if "\0" in path:
            raise ImageError("image-unreadable", f"the image path {path!r} contains a NUL character")
        if path.startswith(("http://", "https://", "s3://", "gs://", "data:", "file://")):
            raise ImageError("image-is-url", f"{path[:80]!r} is a URL; download the image and name the file")
        try:
            real = os.path.realpath(os.path.join(self.root, path))  # noqa: PTH118 (a third of pathlib's cost per row)
        except (OSError, ValueError) as error:
            raise ImageError("image-unreadable", f"{path[:200]!r} is not a usable path: {error}") from error
        if not self.allow_outside and not self._inside(real):
            raise ImageError(
                "image-outside-root",
                f"{path[:200]!r} leads out of the image folder {self.root!r}; move the image there or allow it",
            )
        return real

    def _inside(self, real: str) -> bool:
        prefix = self.root if self.root.endswith(os.sep) else self.root + os.sep
        return real.startswith(prefix)
