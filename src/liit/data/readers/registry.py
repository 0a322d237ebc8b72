"""The formats liit reads. A new one is one file with one decorated function."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from liit.data.readers.rows import Row, read_rows
from liit.data.sample import Message
from liit.errors import InputError


@dataclass(frozen=True, slots=True)
class ImageSource:
    """An image as a row names it: a path as written in the file, or encoded bytes."""

    path: str = ""
    data: bytes | None = None


@dataclass(frozen=True, slots=True)
class Draft:
    """What a format finds in one row, before anything is checked beyond its shape."""

    id: object
    messages: tuple[Message, ...]
    images: tuple[ImageSource, ...]


@dataclass(frozen=True, slots=True)
class Format:
    """A dataset format: `rows` streams a file, `parse` turns one row into a draft or raises `RowError`."""

    name: str
    summary: str
    parse: Callable[[Mapping[str, Any]], Draft]
    rows: Callable[[Path], Iterator[Row]]


_FORMATS: dict[str, Format] = {}


def register_format(
    name: str, summary: str, rows: Callable[[Path], Iterator[Row]] = read_rows
) -> Callable[[Callable[[Mapping[str, Any]], Draft]], Callable[[Mapping[str, Any]], Draft]]:
    """Make a row parser known as a format.

    Args:
        name: What users write, e.g. "llava-json".
        summary: One line for the list of formats.
        rows: Streams the rows of a file; by default JSON, JSON lines and Parquet.

    Returns:
        A decorator for the parser.
    """

    def register(parse: Callable[[Mapping[str, Any]], Draft]) -> Callable[[Mapping[str, Any]], Draft]:
        _FORMATS[name] = Format(name, summary, parse, rows)
        return parse

    return register


def formats() -> dict[str, str]:
    """Names of the formats liit reads, each with one line about it."""
    return {name: found.summary for name, found in sorted(_FORMATS.items())}


def get_format(name: str) -> Format:
    """Look a format up.

    Args:
        name: Its name.

    Returns:
        The format.

    Raises:
        InputError: There is none of that name.
    """
    if name in _FORMATS:
        return _FORMATS[name]
    near = difflib.get_close_matches(str(name), _FORMATS, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise InputError(f"format: {name!r} is not known; {hint}known are {', '.join(sorted(_FORMATS))}")
