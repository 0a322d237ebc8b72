"""Kinds of dataset files, one small file each, in both directions; what their rows mean is the matter of a format."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from liit.data.containers.json_text import JsonText
from liit.data.containers.parquet import Parquet
from liit.data.containers.rows import Container, HeldImage, Meter, Row, RowWriter
from liit.data.containers.tar import Tar
from liit.errors import InputError

__all__ = [
    "CONTAINERS", "Container", "HeldImage", "Meter", "Row", "RowWriter", "container_of", "dataset_files",
    "known_container", "read_rows",
]  # fmt: skip

CONTAINERS: dict[str, Container] = {container.name: container for container in (JsonText(), Parquet(), Tar())}


_PACKED = (".gz", ".bz2", ".xz", ".zst", ".zip", ".7z")


def known_container(path: Path) -> Container | None:
    """The kind of a file by the end of its name; None when that says nothing."""
    name = path.name.lower()
    return next((container for container in CONTAINERS.values() if name.endswith(container.suffixes)), None)


def container_of(path: Path) -> Container:
    """The kind of a file by the end of its name; one that says nothing is taken for JSON text."""
    return known_container(path) or CONTAINERS["json"]


def dataset_files(path: Path) -> list[Path]:
    """The files of a dataset: one file, every file of a folder, or those a pattern such as `shard-*.tar` names.

    Args:
        path: The file, folder or pattern.

    Returns:
        The files, in the order of their names; of a folder only those of the kinds liit reads, hidden ones left out.

    Raises:
        InputError: There is no such file.
    """
    if path.is_file():
        if path.suffix.lower() in _PACKED and known_container(path) is None:
            raise InputError(f"path: dataset file {str(path)!r} is compressed; unpack it first")
        return [path]
    if path.is_dir():
        found = [file for file in path.iterdir() if known_container(file) and file.name[0] != "."]
        suffixes = sorted(suffix for container in CONTAINERS.values() for suffix in container.suffixes)
        where = f"folder {str(path)!r} has no dataset file in it; expected {', '.join(suffixes)}"
    elif any(letter in path.name for letter in "*?["):
        found = list(path.parent.glob(path.name)) if path.parent.is_dir() else []
        where = f"no file is named like {str(path)!r}"
    else:
        found, where = [], f"dataset file {str(path)!r} does not exist"
    files = sorted(file for file in found if file.is_file())
    if not files:
        raise InputError(f"path: {where}")
    return files


def read_rows(path: Path, meter: Meter | None = None) -> Iterator[Row]:
    """Stream the rows of one file.

    Args:
        path: The file.
        meter: Told how many bytes have been read.

    Yields:
        Every row, also the ones that cannot be read (with `error` set).

    Raises:
        InputError: The file is missing, empty, cut in the middle of a row, or of another kind than its name says.
    """
    if not path.is_file():
        raise InputError(f"path: dataset file {str(path)!r} does not exist")
    yield from container_of(path).read(path, meter or Meter())
