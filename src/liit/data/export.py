"""A selection written back: the user's own rows as they were, rows of other formats converted."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from liit.data.containers import CONTAINERS, Container, RowWriter, known_container
from liit.data.containers.parquet import joined, with_image_features
from liit.data.formats import Format, get_format
from liit.data.images import suffix_of
from liit.data.lance_files import sync_file, sync_folder
from liit.data.sample import ImageRef, Sample
from liit.data.snapshot import Snapshot
from liit.errors import InputError

_BATCH = 256


@dataclass(frozen=True, slots=True)
class WriteReport:
    """What was written.

    Args:
        rows: Rows in the file.
        verbatim: Of these, the user's own rows as they were.
        converted: Of these, rows that came in another form.
        images: Image files written beside the file.
    """

    rows: int
    verbatim: int
    converted: int
    images: int


def write_rows(
    pool: Snapshot, path: str | Path, ids: Iterable[str], format: str = "llava-json", copy_images: bool = False
) -> WriteReport:
    """Write samples of a pool to a file, in the order they were ingested, whatever the order of `ids`.

    Rows that came in the same format and kind of file are the user's own: JSON text character for character (in JSON
    lines a row must be one line, so line breaks between its tokens become spaces), tar members byte for byte, Parquet
    rows with the same columns and values. Rows of another format or kind of file are converted: their id, messages,
    images and skill are written. Images go where the format has them: inside (M3IT, Parquet), as members (WebDataset),
    or as files named by their absolute path; those that the pool holds by value get files in `<name>-images/`. A
    Parquet file has one set of columns, so there all rows are converted if one must be.

    The file appears complete or not at all.

    Args:
        pool: The pool.
        path: The file to write; its folder must exist. Its suffix says which kind of file it is: `.json`, `.jsonl`,
            `.parquet` or `.tar`.
        ids: Which samples; naming one twice writes it once.
        format: See `liit.data.formats`.
        copy_images: Also write images that the pool holds, of the user's own rows, beside the file, under the names the
            rows have for them, where these are relative and lead to no other place; for rows whose files are gone.

    Returns:
        What was written.

    Raises:
        InputError: An id is not in the pool, the format does not come in such a file or cannot hold a sample, an image
            is gone, or the file cannot be written.
    """
    path = Path(path)
    found, kind = check_target(path, format)
    table = _rows(pool, ids)
    part = path.with_name(f".part-{path.name}")  # with the suffix, which says the kind of file
    try:
        with _Export(pool, path, part, found, kind, table, copy_images) as work:
            for start in range(0, len(work.ids), _BATCH):
                for sample in pool.take(work.ids[start : start + _BATCH]):
                    work.write(sample)
        sync_file(part)
        part.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        raise InputError(f"path: {str(path)!r} cannot be written: {error}") from error
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)
    return WriteReport(len(work.ids), work.verbatim, len(work.ids) - work.verbatim, work.images)


def check_target(path: Path, format: str) -> tuple[Format, Container]:
    """Whether rows of a format can be written to a file, before there are any.

    Args:
        path: The file.
        format: The format's name.

    Returns:
        The format, and the kind of file that the suffix names.

    Raises:
        InputError: There is no such format or folder, or the suffix does not suit the format.
    """
    found, kind = get_format(format), known_container(path)
    if kind is None or kind.name not in found.containers or path.suffix.endswith("gz"):
        suffixes = [s for name in found.containers for s in CONTAINERS[name].suffixes if not s.endswith("gz")]
        raise InputError(f"path: {path.name!r} does not suit {format}; expected a name that ends in {_or(suffixes)}")
    if not path.absolute().parent.is_dir():
        raise InputError(f"path: {str(path)!r} cannot be written: there is no folder {str(path.parent)!r}")
    return found, kind


def _rows(pool: Snapshot, ids: Iterable[str]) -> Any:
    """id, format and form of the wanted rows, in ingestion order."""
    table = pool.rows_of(dict.fromkeys(map(str, ids)), ["row", "format", "form"])
    return table.take(np.argsort(table["row"].to_numpy(), kind="stable"))


def _or(words: Sequence[str]) -> str:
    return " or ".join(filter(None, (", ".join(words[:-1]), words[-1])))


class _Export:
    """One file being written."""

    def __init__(
        self, pool: Snapshot, path: Path, part: Path, format: Format, kind: Container, table: Any, copy_images: bool
    ) -> None:
        self.pool, self.path, self.format, self.kind, self.copy_images = pool, path, format, kind, copy_images
        self.ids: list[str] = table["id"].to_pylist()
        own = [
            self._own(name, form)
            for name, form in zip(table["format"].to_pylist(), table["form"].to_pylist(), strict=True)
        ]
        self.all_or_none = kind.name == "parquet"
        self.convert_all = self.all_or_none and not all(own)
        self.verbatim = self.images = 0
        self._file: RowWriter = kind.writer(part, self._schema(sorted(set(table["form"].to_pylist()))))

    def _own(self, name: str, form: str) -> bool:
        kind = form.partition(":")[0] or "json"
        # "parquet" stands for every layout in such a file.
        return kind == self.kind.name and (name == self.format.name or self.format.name == kind == "parquet")

    def _schema(self, forms: list[str]) -> bytes | None:
        if self.kind.name != "parquet":
            return None
        if self.convert_all or not forms:
            assert self.format.columns is not None, "formats that come in Parquet have columns"
            return with_image_features(self.format.columns())
        files = [self.pool.path / "schemas" / f"{form.partition(':')[2]}.arrow" for form in forms]
        try:
            return joined([file.read_bytes() for file in files])
        except FileNotFoundError as error:
            raise InputError(f"pool {str(self.pool.path)!r} is damaged: {error.filename} is missing") from error

    def __enter__(self) -> _Export:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def write(self, sample: Sample) -> None:
        if sample.raw and not self.convert_all and self._own(sample.format, sample.form):
            by_hash = {image.sha256: image for image in sample.images}
            self._file.raw(sample.raw, lambda sha256: by_hash[sha256].read())
            self.verbatim += 1
            if self.copy_images:
                for image in sample.images:
                    self._copy(image)
            return
        if self.format.images == "member":
            pictures = [(_member(n, len(sample.images), image), image.read()) for n, image in enumerate(sample.images)]
            self._file.value(self.format.render(sample, [name for name, _ in pictures]), pictures)
        else:
            self._file.value(self.format.render(sample, [self._image(image) for image in sample.images]))

    def _image(self, image: ImageRef) -> Any:
        if self.format.images == "base64":
            return base64.b64encode(image.read()).decode("ascii")
        if self.kind.name == "parquet":
            return {"bytes": image.read(), "path": Path(image.path).name or None}
        if not image.held:
            return image.path
        folder = self.path.with_name(f"{self.path.stem}-images")
        folder.mkdir(exist_ok=True)
        data = image.read()
        file = folder / f"{image.sha256}{suffix_of(data)}"
        if not file.exists():
            self._put(file, data)
        return f"{folder.name}/{file.name}"

    def _copy(self, image: ImageRef) -> None:
        """Put an image where a row that names it relative to the new file's folder finds it."""
        name = Path(image.path)
        if not image.held or not image.path or name.is_absolute() or ".." in name.parts:
            return
        target = self.path.parent / name
        if target.exists():
            if target.read_bytes() != image.read():
                raise InputError(f"path: {str(target)!r} is another image; write the rows into an empty folder")
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        self._put(target, image.read())

    def _put(self, file: Path, data: bytes) -> None:
        part = file.with_name(f".part-{file.name}")
        part.write_bytes(data)
        part.replace(file)
        self.images += 1


def _member(number: int, count: int, image: ImageRef) -> str:
    suffix = suffix_of(image.read())[1:]
    return suffix if count == 1 else f"{number}.{suffix}"
