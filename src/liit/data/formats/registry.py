"""The formats liit reads and writes. A new one is one file: `parse`, `render` and a call of `register_format`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from liit.data.sample import Message, Sample
from liit.errors import InputError, unknown_name

if TYPE_CHECKING:
    import pyarrow as pa

ImageForm = Literal["path", "base64", "member"]


@dataclass(frozen=True, slots=True)
class ImageSource:
    """An image as a row names it: a path as written in the file, or encoded bytes (with their base64 text, if any)."""

    path: str = ""
    data: bytes | None = None
    base64: str = ""


@dataclass(frozen=True, slots=True)
class Draft:
    """What a format finds in one row, before anything is checked beyond its shape.

    Args:
        id: As the row has it; None when it has none.
        messages: The conversation.
        images: In the order of the ``<image>`` tags.
        fields: Where other keys of the row, such as its skill, are looked up.
    """

    id: object
    messages: tuple[Message, ...]
    images: tuple[ImageSource, ...]
    fields: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Format:
    """A dataset format, in both directions.

    Args:
        name: What users write, e.g. "llava-json".
        summary: One line for the list of formats.
        parse: Turns the value of a row into a draft, or raises `RowError`.
        render: Turns a sample and its images, in the form that fits the file, into a row; raises `InputError` when the
            format cannot hold the sample.
        containers: Kinds of file it comes in; the first is the usual one.
        images: How a row holds images in text: by path, or as base64; or as members beside it.
        columns: The columns of a Parquet file of such rows.
    """

    name: str
    summary: str
    parse: Callable[[Mapping[str, Any]], Draft]
    render: Callable[[Sample, Sequence[Any]], dict[str, Any]]
    containers: tuple[str, ...]
    images: ImageForm = "path"
    columns: Callable[[], pa.Schema] | None = None


_FORMATS: dict[str, Format] = {}


def register_format(format: Format) -> Format:
    """Make a format known under its name, and return it."""
    _FORMATS[format.name] = format
    return format


def formats() -> dict[str, str]:
    """Names of the formats liit reads and writes, each with one line about it."""
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
    raise InputError(f"format: {unknown_name('format', name, _FORMATS)}")
