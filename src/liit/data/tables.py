"""The four Lance tables of a pool: their columns, and samples to rows and back."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import pyarrow as pa

from liit.data.lance_files import check_manifest, check_whole
from liit.data.sample import ImageRef, Message, Sample
from liit.errors import InputError

SAMPLES = pa.schema(
    [
        ("row", pa.int64()),
        ("id", pa.string()),
        ("source", pa.string()),
        ("skill", pa.string()),
        ("format", pa.string()),
        ("content_hash", pa.string()),
        ("messages", pa.list_(pa.struct([("role", pa.string()), ("text", pa.string())]))),
        ("image_paths", pa.list_(pa.string())),
        ("image_hashes", pa.list_(pa.string())),
        ("image_held", pa.list_(pa.bool_())),
        ("raw", pa.string()),
        ("form", pa.string()),
    ]
)
IMAGES = pa.schema([("sha256", pa.string()), ("data", pa.large_binary())])
QUARANTINE = pa.schema(
    [
        ("source", pa.string()),
        ("line", pa.int64()),
        ("id", pa.string()),
        ("reason", pa.string()),
        ("raw", pa.string()),
        ("detail", pa.string()),
        ("file", pa.string()),
        ("number", pa.int64()),
        ("digest", pa.string()),
    ]
)
LEDGER = pa.schema(
    [
        ("id", pa.string()),
        ("step", pa.string()),
        ("cluster", pa.int64()),
        ("neighbour", pa.string()),
        ("similarity", pa.float64()),
        ("reason", pa.string()),
        ("version", pa.int64()),
        ("row", pa.int64()),
        ("source", pa.string()),
        ("content_hash", pa.string()),
    ]
)
SCHEMAS = {"samples": SAMPLES, "images": IMAGES, "quarantine": QUARANTINE, "ledger": LEDGER}


def table_path(pool: Path, name: str) -> str:
    """Where a table of a pool lies."""
    return str(pool / f"{name}.lance")


def open_table(pool: Path, name: str, version: int) -> Any:
    """Open a table at a Lance version.

    Args:
        pool: The pool's directory.
        name: "samples", "images", "quarantine" or "ledger".
        version: The Lance version.

    Returns:
        The `lance.LanceDataset`.

    Raises:
        InputError: The table or that version of it is missing or damaged.
    """
    import lance

    try:
        check_manifest(table_path(pool, name), version)
        table = lance.dataset(table_path(pool, name), version=version)
        check_whole(table)
        return table
    except InputError:
        raise
    except (ValueError, OSError) as error:
        detail = " ".join(str(error).split())[:160]
        raise InputError(
            f"pool {str(pool)!r}: table {name!r} at version {version} cannot be opened ({detail})"
        ) from error


def settled(pool: Path, name: str, version: int) -> Any:
    """Open a table for writing, without what a killed writer may have left in it after its last commit.

    Args:
        pool: The pool's directory.
        name: The table.
        version: Lance version named by the pool's last commit.

    Returns:
        The `lance.LanceDataset`, its newest version having the content of `version`.
    """
    import lance

    newest = lance.dataset(table_path(pool, name))
    if newest.version == version:
        return newest
    found = open_table(pool, name, version)
    found.restore()
    return found


def samples_table(samples: Sequence[Sample], hashes: Sequence[str], first_row: int) -> pa.Table:
    """Rows of the sample table.

    Args:
        samples: The samples.
        hashes: Their content hashes.
        first_row: Row number of the first.

    Returns:
        A table with the schema `SAMPLES`.
    """
    # Nested columns are made flat: a third of the time that lists of lists take.
    images = [image for sample in samples for image in sample.images]
    ends = _ends([len(sample.images) for sample in samples])
    columns: dict[str, Any] = {
        "row": range(first_row, first_row + len(samples)),
        "id": [sample.id for sample in samples],
        "source": [sample.source for sample in samples],
        "skill": [sample.skill for sample in samples],
        "format": [sample.format for sample in samples],
        "content_hash": hashes,
        "messages": _messages(samples),
        "image_paths": pa.ListArray.from_arrays(ends, pa.array([image.path for image in images], pa.string())),
        "image_hashes": pa.ListArray.from_arrays(ends, pa.array([image.sha256 for image in images], pa.string())),
        "image_held": pa.ListArray.from_arrays(ends, pa.array([image.held for image in images], pa.bool_())),
        "raw": [sample.raw for sample in samples],
        "form": [sample.form for sample in samples],
    }
    return pa.Table.from_pydict(columns, schema=SAMPLES)


def _messages(samples: Sequence[Sample]) -> pa.Array:
    turns = [message for sample in samples for message in sample.messages]
    roles, texts = (pa.array([getattr(turn, name) for turn in turns], pa.string()) for name in ("role", "text"))
    ends = _ends([len(sample.messages) for sample in samples])
    return pa.ListArray.from_arrays(ends, pa.StructArray.from_arrays([roles, texts], ["role", "text"]))


def _ends(lengths: Sequence[int]) -> pa.Array:
    return pa.array(accumulate(lengths, initial=0), pa.int32())


def samples_of(table: pa.Table, pool: Path) -> list[Sample]:
    """Samples from rows of the sample table, in their order.

    Args:
        table: Rows with every column of `SAMPLES`.
        pool: The pool's directory, where the images lie that are held by value.

    Returns:
        The samples.
    """
    store = str(pool.absolute())
    return [
        Sample(
            id=row["id"],
            messages=tuple(Message(message["role"], message["text"]) for message in row["messages"]),
            images=tuple(
                ImageRef(path, sha256, None, store if held else "")
                for path, sha256, held in zip(row["image_paths"], row["image_hashes"], row["image_held"], strict=True)
            ),
            source=row["source"],
            skill=row["skill"],
            raw=row["raw"],
            format=row["format"],
            form=row["form"],
        )
        for row in table.to_pylist()
    ]


def quarantine_digest(*parts: object) -> str:
    """Names one bad row, so that reading the same file again does not set it aside twice."""
    return hashlib.sha256("\0".join(map(str, parts)).encode("utf-8", "backslashreplace")).hexdigest()
