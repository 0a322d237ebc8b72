"""A selection written back as LLaVA JSON: the user's own rows to the letter, rows of other formats converted."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path

from liit.data.pool import Pool
from liit.data.sample import ImageRef, Sample
from liit.errors import InputError

_SPEAKERS = {"user": "human", "assistant": "gpt", "system": "system"}
_BATCH = 1024


def write_llava_json(pool: Pool, path: str | Path, ids: Iterable[str]) -> None:
    """Write samples of a pool as a LLaVA JSON list, or as JSON lines when the name ends in `.jsonl`.

    Rows that came as LLaVA JSON are written character for character (in JSON lines a row must be one line, so line
    breaks between its tokens become spaces), in the order they were ingested whatever the order of `ids`. Rows of
    another format are converted: image files are named by absolute path, and images held by value are written to
    `<name>-images/` beside the file. The file appears complete or not at all.

    Args:
        pool: The pool.
        path: The file to write; its folder must exist.
        ids: Which samples; naming one twice writes it once.

    Raises:
        InputError: An id is not in the pool, or the file cannot be written.
    """
    path = Path(path)
    wanted = set(map(str, ids))
    ordered = [id for id in pool.ids() if id in wanted]
    if len(ordered) < len(wanted):
        missing = sorted(wanted.difference(ordered))
        raise InputError(f"ids: {missing[0]!r} is not in the pool at version {pool.version} ({len(missing)} such ids)")
    lines = path.suffix in (".jsonl", ".ndjson")
    opening, between, closing = ("", "\n", "\n" if ordered else "") if lines else ("[\n", ",\n", "\n]\n")
    part = path.with_name(path.name + ".part")
    try:
        with part.open("w", encoding="utf-8", newline="") as file:
            file.write(opening)
            for start in range(0, len(ordered), _BATCH):
                rows = [_row(sample, path) for sample in pool.take(ordered[start : start + _BATCH])]
                file.write(between if start else "")
                file.write(between.join(_one_line(row) if lines else row for row in rows))
            file.write(closing)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise InputError(f"path: {str(path)!r} cannot be written: {error}") from error


def _one_line(row: str) -> str:
    return row.replace("\r", " ").replace("\n", " ")  # a JSON string holds none, so these are between tokens


def _row(sample: Sample, path: Path) -> str:
    if sample.format == "llava-json" and sample.raw:
        return sample.raw
    row: dict[str, object] = {"id": sample.id}
    names = [_image_name(image, path) for image in sample.images]
    if names:
        row["image"] = names[0] if len(names) == 1 else names
    row["conversations"] = [{"from": _SPEAKERS[m.role], "value": m.text} for m in sample.messages]
    if sample.skill:
        row["skill"] = sample.skill
    return json.dumps(row, ensure_ascii=False)


def _image_name(image: ImageRef, path: Path) -> str:
    if image.data is None:
        return image.path
    folder = path.with_name(f"{path.stem}-images")
    folder.mkdir(exist_ok=True)
    file = folder / f"{image.sha256}{_suffix(image.data)}"
    if not file.exists():
        part = file.with_name(file.name + ".part")
        part.write_bytes(image.data)
        part.replace(file)
    return f"{folder.name}/{file.name}"


def _suffix(data: bytes) -> str:
    from io import BytesIO

    from PIL import Image

    with Image.open(BytesIO(data)) as image:
        return f".{(image.format or 'png').lower()}"
