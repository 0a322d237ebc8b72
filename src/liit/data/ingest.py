"""A dataset into the pool: every row is checked and ends up in the pool, in quarantine, or counted as known."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from liit.data.containers import Container, Meter, Row, container_of, dataset_files, read_rows
from liit.data.formats import Format, get_format
from liit.data.pool import Pool
from liit.data.row_reader import RowReader, image_root, printable
from liit.data.sample import Sample
from liit.data.validate import RowError
from liit.data.writer import Outcome, PoolWriter
from liit.errors import InputError

IdConflict = Literal["quarantine", "rename"]

_BATCH_ROWS = 1024
_BATCH_ROWS_EMBEDDING = 64  # the images of a whole batch are in memory then
_BATCH_BYTES = 1 << 25


@dataclass(frozen=True, slots=True)
class IngestReport:
    """What became of the rows of a dataset: added + quarantined + duplicates + pruned is `rows`.

    Args:
        added: New samples in the pool.
        quarantined: Rows set aside.
        reasons: How many rows per reason (`liit.data.validate.REASONS`).
        duplicates: Rows skipped because the pool has them: same id, same content.
        version: Version of the pool afterwards.
        rows: Rows read.
        same_content: Of the added ones, those whose content the pool has under another id.
        same_content_in: The same, by the source that had the content first; this one's own name among them.
        pruned: Rows skipped because they were removed for good.
        renamed: Of the added ones, those that got a new id (only with `id_conflict="rename"`).
    """

    added: int
    quarantined: int
    reasons: dict[str, int] = field(default_factory=dict)
    duplicates: int = 0
    version: int = 0
    rows: int = 0
    same_content: int = 0
    same_content_in: dict[str, int] = field(default_factory=dict)
    pruned: int = 0
    renamed: int = 0


def ingest(
    pool: Pool,
    path: str | Path,
    format: str,
    source: str,
    image_root: str | Path | None = None,
    skill_key: str = "skill",
    strict: bool = False,
    allow_outside: bool = False,
    *,
    embed_images: bool = False,
    id_conflict: IdConflict = "quarantine",
    message: str = "",
    key: str = "",
    progress: Callable[[int], None] | None = None,
    progress_bytes: Callable[[int], None] | None = None,
) -> IngestReport:
    """Read a dataset into a pool, in one commit; rows are streamed.

    Args:
        pool: Where to.
        path: A file, a folder of files, or a pattern such as `shard-*.tar`.
        format: Its format, see `liit.data.formats`.
        source: Name of the dataset, kept with every sample.
        image_root: Folder of its images; by default the folder of the files.
        skill_key: Key of a row's skill label.
        strict: Stop at the first bad row, before anything is in the pool.
        allow_outside: Let image paths lead out of `image_root`.
        embed_images: Copy the images into the pool, so that it needs no other file.
        id_conflict: What happens to a row whose id belongs to other content: "quarantine", or "rename" (its content
            hash is put behind its id; for datasets, LLaVA-665K among them, whose ids are not unique).
        message: For the log.
        key: Names this work; when a commit under that key exists, its report is returned and nothing is read.
        progress: Called with the number of rows read so far.
        progress_bytes: Called with the number of bytes of the files read so far.

    Returns:
        What became of the rows.

    Raises:
        InputError: The file, format or image folder is wrong, a file is cut, or (strict) a row is bad. Nothing has been
            added then.
    """
    dataset = Dataset(path, format, source, image_root, skill_key, allow_outside, embed_images)
    if id_conflict not in ("quarantine", "rename"):
        raise InputError(f"id_conflict: expected 'quarantine' or 'rename', got {id_conflict!r}")
    pool.refresh()
    if done := pool.find_commit(key):
        return IngestReport(**{**done["report"], "version": done["version"]})
    with pool.writer() as writer, dataset.reader() as reader:
        work = _Ingest(writer, dataset, id_conflict == "rename", strict)
        for file, form, rows, read in dataset.batches(writer.keep_schema):
            work.take(file, rows, reader.read(rows, container_of(file), form))
            if progress is not None:
                progress(work.rows)
            if progress_bytes is not None:
                progress_bytes(read)
        report = work.report()
        commit = writer.commit("ingest", message or f"ingest {dataset.path.name} as {source}", key, asdict(report))
    pool.refresh()
    return IngestReport(**{**asdict(report), "version": commit.version})


class Dataset:
    """A dataset on disk, by the arguments of `ingest`; checked when it is made.

    Raises:
        InputError: The file, format, source or image folder is wrong.
    """

    def __init__(
        self,
        path: str | Path,
        format: str,
        source: str,
        images: str | Path | None = None,
        skill_key: str = "skill",
        allow_outside: bool = False,
        embed_images: bool = False,
    ) -> None:
        self.path, self.source = Path(path), source
        self.format: Format = get_format(format)
        self.root = image_root(images, self.path, allow_outside)
        if not source:
            raise InputError("source: expected the name of the dataset, got an empty text")
        self.files = dataset_files(self.path)
        for file in self.files:
            kind: Container = container_of(file)
            if kind.name not in self.format.containers:
                expected = ", ".join(self.format.containers)
                raise InputError(
                    f"format: {format} comes as {expected}, and {file.name!r} is {kind.name}; name the right format"
                )
        self._options = (skill_key, embed_images)
        self._batch_rows = _BATCH_ROWS_EMBEDDING if embed_images else _BATCH_ROWS

    def reader(self) -> RowReader:
        """What turns its rows into samples."""
        return RowReader(self.format, self.source, self.root, *self._options)

    def batches(self, keep_schema: Callable[[bytes], str] | None = None) -> Iterator[tuple[Path, str, list[Row], int]]:
        """Stream the rows.

        Args:
            keep_schema: Keeps the columns of a file and gives the form of its rows.

        Yields:
            The file, the form of its rows (see `Sample.form`), some rows of it, and the bytes read so far of all files.
        """
        before = 0
        for file in self.files:
            kind, meter = container_of(file), Meter()
            schema = kind.schema(file)
            form = keep_schema(schema) if schema and keep_schema else "" if kind.name == "json" else kind.name
            rows: list[Row] = []
            size = 0
            for row in read_rows(file, meter):
                rows.append(row)
                size += _size(row)
                if len(rows) >= self._batch_rows or size >= _BATCH_BYTES:
                    yield file, form, rows, before + meter.bytes
                    rows, size = [], 0
            before += file.stat().st_size
            if rows:
                yield file, form, rows, before


def read_samples(dataset: Dataset) -> tuple[list[Sample], int]:
    """The samples of a dataset, without a pool, and how many of its rows are bad; all are in memory."""
    with dataset.reader() as reader:
        found = [
            sample
            for file, form, rows, _ in dataset.batches()
            for sample in reader.read(rows, container_of(file), form)
        ]
    samples = [sample for sample in found if isinstance(sample, Sample)]
    return samples, len(found) - len(samples)


class _Ingest:
    """One ingest call: puts samples into the pool, bad rows into quarantine, and keeps count."""

    def __init__(self, writer: PoolWriter, dataset: Dataset, rename: bool, strict: bool) -> None:
        self.writer, self.dataset, self.rename, self.strict = writer, dataset, rename, strict
        self.outcomes: Counter[Outcome] = Counter()
        self.reasons: Counter[str] = Counter()
        self.rows = 0

    def take(self, file: Path, rows: Sequence[Row], found: Sequence[Sample | RowError]) -> None:
        if self.strict:  # the first bad row stops it, and images of later ones were only looked at
            self._stop_at_bad(file, rows, found)
        outcomes = iter(self.writer.add([s for s in found if isinstance(s, Sample)], self.rename))
        for row, sample in zip(rows, found, strict=True):
            self.rows += 1
            bad = sample if isinstance(sample, RowError) else None
            if isinstance(sample, Sample):
                outcome = next(outcomes)
                if outcome == "conflict":
                    bad = RowError("id-conflict", f"id {sample.id[:80]!r} belongs to a row with other content")
                else:
                    self.outcomes[outcome] += 1
            if bad is not None:
                self._set_aside(file, row, bad)

    def _stop_at_bad(self, file: Path, rows: Sequence[Row], found: Sequence[Sample | RowError]) -> None:
        for row, bad in zip(rows, found, strict=True):
            if isinstance(bad, RowError):
                raise self._strict_error(file, row, bad)

    def _strict_error(self, file: Path, row: Row, bad: RowError) -> InputError:
        return InputError(
            f"path: {str(file)!r} line {row.line} (row {row.number}): {printable(str(bad))}; nothing was added; "
            "correct the row, or run without strict to set it aside"
        )

    def _set_aside(self, file: Path, row: Row, bad: RowError) -> None:
        if self.strict:
            raise self._strict_error(file, row, bad)
        self.reasons[bad.reason] += 1
        self.writer.quarantine(
            source=self.dataset.source,
            file=printable(file.name),
            number=row.number,
            line=row.line,
            id=_id_for_people(row.value),
            reason=bad.reason,
            detail=printable(bad.detail),
            raw=row.text or printable(container_of(file).keep(row, ())),
        )

    def report(self) -> IngestReport:
        return IngestReport(
            added=self.outcomes["added"] + self.outcomes["renamed"],
            quarantined=sum(self.reasons.values()),
            reasons=dict(sorted(self.reasons.items())),
            duplicates=self.outcomes["duplicate"],
            rows=self.rows,
            same_content=sum(self.writer.same_content.values()),
            same_content_in=dict(sorted(self.writer.same_content.items())),
            pruned=self.outcomes["pruned"],
            renamed=self.outcomes["renamed"],
        )


def _size(row: Row) -> int:
    if row.text:
        return len(row.text)
    return _bytes_in(row.value) + 64


def _bytes_in(value: object) -> int:
    if isinstance(value, bytes):
        return len(value)
    if isinstance(value, Mapping):
        return sum(map(_bytes_in, value.values()))
    return sum(map(_bytes_in, value)) if isinstance(value, list) else 16


def _id_for_people(row: object) -> str:
    value = row.get("id", row.get("__key__")) if isinstance(row, Mapping) else None
    if isinstance(value, bool) or not isinstance(value, str | int):
        return ""
    try:
        return printable(str(value)[:200])
    except ValueError:  # an integer too long to be written in decimals
        return ""
