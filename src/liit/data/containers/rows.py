"""What every kind of file is read into: rows, each with its place in the file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

MAX_ROW = 1 << 28
"""Longest row in characters or bytes (256 Mi); a longer one means that the file is broken."""

Fetch = Callable[[str], bytes]
"""Gives the bytes of an image by its SHA-256."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a file.

    Args:
        number: From 1.
        line: Line it starts on, from 1; for files without lines, its number.
        text: Its own text; for files that are not text, "" until `Container.keep` makes one.
        value: What it says, when it can be read.
        error: Otherwise the reason (a key of `liit.data.validate.REASONS`) and a sentence.
    """

    number: int
    line: int
    text: str
    value: Any = None
    error: tuple[str, str] | None = None


class Meter:
    """How far into a file a reader is; for progress bars."""

    def __init__(self) -> None:
        self.bytes = 0


@dataclass(frozen=True, slots=True)
class HeldImage:
    """An image that a row carries by value: its hash, its length, and its base64 text when that is how it came."""

    sha256: str
    length: int
    base64: str = ""


class RowWriter(Protocol):
    """Writes the rows of one file."""

    def raw(self, text: str, fetch: Fetch) -> None:
        """Write a row as it came, from the text `Container.keep` made of it."""

    def value(self, row: Mapping[str, Any], images: Sequence[tuple[str, bytes]] = ()) -> None:
        """Write a row made by a format; `images` are those that go beside it (tar members: name, bytes)."""

    def close(self) -> None:
        """Finish the file."""


class Container(Protocol):
    """A kind of file, in both directions; what its rows mean is the matter of a format."""

    @property
    def name(self) -> str:
        """The container's name."""

    @property
    def suffixes(self) -> tuple[str, ...]:
        """How the names of its files end."""

    def read(self, path: Path, meter: Meter) -> Iterator[Row]:
        """Stream the rows; raises `InputError` for a file that is missing, cut or of another kind."""

    def schema(self, path: Path) -> bytes | None:
        """What must be known to write rows of this file back, beyond the rows; None when nothing."""

    def keep(self, row: Row, images: Sequence[HeldImage]) -> str:
        """The row as text from which `RowWriter.raw` can write it back; the bytes of `images` are left out."""

    def writer(self, path: Path, schema: bytes | None) -> RowWriter:
        """Start a file."""
