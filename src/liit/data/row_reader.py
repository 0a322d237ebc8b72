"""From a row of a file to a checked sample, or to the reason why not."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from liit.data.containers import Container, HeldImage, Row
from liit.data.formats import Format, ImageSource
from liit.data.images import ImageChecker, ImageError, read_bytes
from liit.data.paths import ImageRoot
from liit.data.sample import ImageRef, Message, Sample, content_hash
from liit.data.validate import RowError, check_id, check_messages, check_text
from liit.errors import InputError

_WORKERS = 8


class _Checked(NamedTuple):
    """A draft that is well-formed; its images have not been looked at."""

    id: str | None
    skill: str
    messages: tuple[Message, ...]
    images: tuple[ImageSource, ...]


class RowReader:
    """Turns rows of one dataset into samples; to be used in a `with` block.

    Images of a batch are read and decoded side by side; the results do not depend on it.

    Args:
        format: Of the rows.
        source: Name of the dataset.
        root: Where image paths start from.
        skill_key: Key of a row's skill label.
        embed_images: Take images that are files by value too.
    """

    def __init__(
        self, format: Format, source: str, root: ImageRoot, skill_key: str = "skill", embed_images: bool = False
    ) -> None:
        self.format, self.source, self.root = format, source, root
        self.skill_key, self.embed_images = skill_key, embed_images
        self._images = ImageChecker()
        self._workers: Executor = ThreadPoolExecutor(min(_WORKERS, os.cpu_count() or 1), "liit-images")

    def __enter__(self) -> RowReader:
        return self

    def __exit__(self, *error: object) -> None:
        self._workers.shutdown(cancel_futures=True)

    def read(self, rows: Sequence[Row], container: Container, form: str = "") -> list[Sample | RowError]:
        """Turn some rows into samples.

        Args:
            rows: The rows.
            container: The kind of file they are from.
            form: See `Sample.form`.

        Returns:
            For each row a sample, or what is wrong with it.
        """
        drafts = [self._checked(row) for row in rows]
        sources = [image for draft in drafts if isinstance(draft, _Checked) for image in draft.images]
        found = iter(self._workers.map(self._image, sources) if len(sources) > 1 else map(self._image, sources))
        samples: list[Sample | RowError] = []
        for row, draft in zip(rows, drafts, strict=True):
            if isinstance(draft, RowError):
                samples.append(draft)
                continue
            images = [next(found) for _ in draft.images]
            bad = next((image for image in images if isinstance(image, ImageError)), None)
            if bad is not None:
                samples.append(RowError.from_image(bad))
                continue
            held = tuple(image for image in images if isinstance(image, ImageRef))
            samples.append(self._sample(row, draft, held, container, form))
        return samples

    def _checked(self, row: Row) -> _Checked | RowError:
        try:
            if row.error:
                raise RowError(*row.error)
            if not isinstance(row.value, Mapping):
                raise RowError("not-an-object", f"the row is {type(row.value).__name__}; expected an object")
            draft = self.format.parse(row.value)
            checked = _Checked(check_id(draft.id), _skill(draft.fields, self.skill_key), draft.messages, draft.images)
            check_messages(draft.messages, len(draft.images))
            return checked
        except RowError as bad:
            return bad

    def _image(self, image: ImageSource) -> ImageRef | ImageError:
        try:
            if image.data is not None:
                return self._images.from_bytes(image.data, printable(image.path))
            path = self.root.resolve(image.path)
            if self.embed_images:
                return self._images.from_bytes(read_bytes(path), image.path)
            return self._images.from_file(path)
        except ImageError as problem:
            return problem

    def _sample(
        self, row: Row, draft: _Checked, images: tuple[ImageRef, ...], container: Container, form: str
    ) -> Sample:
        id = draft.id if draft.id is not None else content_hash(draft.messages, images)[:32]
        inside = [
            HeldImage(image.sha256, len(source.data), source.base64)
            for source, image in zip(draft.images, images, strict=True)
            if source.data is not None
        ]
        raw = container.keep(row, inside)
        return Sample(id, draft.messages, images, self.source, draft.skill, raw, self.format.name, form)


def _skill(row: Mapping[str, Any], key: str) -> str:
    value = row.get(key)
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise RowError("bad-skill", f"{key} is {type(value).__name__}; expected a text")
    try:
        text = str(value)
    except ValueError as error:  # an integer of more than 4300 digits
        raise RowError("bad-skill", f"{key}: {error}") from error
    check_text(text, key)
    return text


def image_root(images: str | Path | None, path: Path, allow_outside: bool) -> ImageRoot:
    """Where the image paths of a dataset start from.

    Args:
        images: The folder the user names, or None.
        path: The dataset's file, folder or pattern.
        allow_outside: Let image paths lead out of it.

    Returns:
        The root; without a name, the folder of the dataset's files.

    Raises:
        InputError: There is no such folder.
    """
    root = Path(images) if images is not None else path if path.is_dir() else path.parent
    if not root.is_dir():
        raise InputError(f"image_root: folder {str(root)!r} does not exist; name the folder the image paths start from")
    return ImageRoot(root, allow_outside)


def printable(text: str) -> str:
    """A text that can be stored: what UTF-8 has no bytes for is written out."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8").replace("\0", "\\x00")
