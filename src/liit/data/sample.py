"""One conversation with its images, as every later stage sees it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from liit.errors import InputError

if TYPE_CHECKING:
    from PIL import Image

Role = Literal["system", "user", "assistant"]

_ENCODE = json.JSONEncoder(separators=(",", ":")).encode

IMAGE_TAG = "<image>"
"""Stands in a message's text where an image goes; one tag per image, in the order of the images."""


@dataclass(frozen=True, slots=True)
class Message:
    """One turn: who speaks (`role`) and what is said (`text`, with one ``<image>`` tag where each image goes)."""

    role: Role
    text: str


@dataclass(frozen=True, slots=True)
class ImageRef:
    """An image of a sample: by reference (a file and the hash it had when it was ingested) or by value.

    Two are equal when path and hash are, wherever the bytes lie.

    Args:
        path: Absolute path of the file; for an image held by value, the name the user gave it, or "".
        sha256: SHA-256 of the encoded bytes, hexadecimal.
        data: The encoded bytes of an image that is held by value in memory, else None.
        store: Directory of the pool that holds the bytes on disk, else "".
    """

    path: str
    sha256: str
    data: bytes | None = field(default=None, compare=False, repr=False)
    store: str = field(default="", compare=False)

    @property
    def held(self) -> bool:
        """Whether the image is held by value, so that no file of the user's is needed."""
        return self.data is not None or bool(self.store)

    def read(self) -> bytes:
        """The encoded bytes.

        Returns:
            A whole image file, checked against its hash.

        Raises:
            InputError: The file is gone, cannot be read, or has changed since it was ingested.
        """
        from liit.data.images import ImageError, read_bytes

        try:
            data = self.data if self.data is not None else read_held(self) if self.store else read_bytes(self.path)
        except ImageError as problem:
            raise InputError(f"image {self.path!r} cannot be read any more: {problem.detail}") from problem
        if hashlib.sha256(data).hexdigest() != self.sha256:
            raise InputError(
                f"image {self.path!r} has changed since it was ingested (expected sha256 {self.sha256[:12]}...); "
                "put the original file back or ingest the row again under a new id"
            )
        return data

    def open(self) -> Image.Image:
        """Decode the image.

        Returns:
            The image in RGB; transparent parts are laid on white.

        Raises:
            InputError: The file is gone, has changed since it was ingested, or cannot be decoded.
        """
        from liit.data.images import ImageError, decode

        try:
            return decode(self.read())
        except ImageError as problem:
            raise InputError(f"image {self.path!r} cannot be read any more: {problem.detail}") from problem


def read_held(image: ImageRef) -> bytes:
    """The bytes of an image that a pool holds; raises `InputError` when they are not there any more."""
    from liit.data.image_table import held_images

    return held_images(image.store).read(image.sha256)


@dataclass(frozen=True, slots=True)
class Sample:
    """One conversation with zero or more images.

    Args:
        id: Unique in the pool.
        messages: An optional system message, then user and assistant in turn, ending with the assistant.
        images: In the order of the ``<image>`` tags.
        source: The dataset the sample came from.
        skill: Label by which results are reported; "" means unlabelled.
        raw: The user's own row as text, kept so that it can be written back unchanged; images that the row has inside
            are named by their hashes there.
        format: Name of the format `raw` is in (see `liit.data.formats`).
        form: The kind of file `raw` is from: "" for JSON text, "tar", or "parquet:" and the hash of its columns.
    """

    id: str
    messages: tuple[Message, ...]
    images: tuple[ImageRef, ...] = ()
    source: str = ""
    skill: str = ""
    raw: str = ""
    format: str = "messages"
    form: str = ""

    @property
    def content_hash(self) -> str:
        """SHA-256 (hex) of what is said and seen: roles, texts and image hashes; not the id, source or skill."""
        return content_hash(self.messages, self.images)


def content_hash(messages: tuple[Message, ...], images: tuple[ImageRef, ...]) -> str:
    """Hash of a conversation and its images, the same in every format and under every id.

    Args:
        messages: The conversation.
        images: Its images, in order.

    Returns:
        SHA-256, hexadecimal.
    """
    content = [[[message.role, message.text] for message in messages], [image.sha256 for image in images]]
    return hashlib.sha256(_ENCODE(content).encode("ascii")).hexdigest()
