"""A dataset file into the pool: every row is checked and ends up in the pool, in quarantine, or counted as known."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from liit.data.images import ImageChecker, ImageError
from liit.data.paths import ImageRoot
from liit.data.pool import Pool
from liit.data.readers import Format, ImageSource, get_format
from liit.data.readers.rows import Row
from liit.data.sample import ImageRef, Sample, content_hash
from liit.data.validate import RowError, check_id, check_messages, check_text
from liit.data.writer import Outcome, PoolWriter
from liit.errors import InputError

IdConflict = Literal["quarantine", "rename"]


@dataclass(frozen=True, slots=True)
class IngestReport:
    """What became of the rows of a file: added + quarantined + duplicates + pruned is `rows`.

    Args:
        added: New samples in the pool.
        quarantined: Rows set aside.
        reasons: How many rows per reason (`liit.data.validate.REASONS`).
        duplicates: Rows skipped because the pool has them: same id, same content.
        version: Version of the pool afterwards.
        rows: Rows read.
        same_content: Of the added ones, those whose content the pool has under another id.
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
    id_conflict: IdConflict = "quarantine",
    message: str = "",
    key: str = "",
    progress: Callable[[int], None] | None = None,
) -> IngestReport:
    """Read a dataset file into a pool, in one commit; rows are streamed.

    Args:
        pool: Where to.
        path: The file.
        format: Its format, see `liit.data.readers.formats`.
        source: Name of the dataset, kept with every sample.
        image_root: Folder of its images; by default the folder of the file.
        skill_key: Key of a row's skill label.
        strict: Stop at the first bad row, before anything is in the pool.
        allow_outside: Let image paths lead out of `image_root`.
        id_conflict: What happens to a row whose id belongs to other content: "quarantine", or "rename" (its content
            hash is put behind its id; for datasets, LLaVA-665K among them, whose ids are not unique).
        message: For the log.
        key: Names this work; when a commit under that key exists, its report is returned and nothing is read.
        progress: Called with the number of rows read so far.

    Returns:
        What became of the rows.

    Raises:
        InputError: The file, format or image folder is wrong, the file is cut, or (strict) a row is bad. Nothing has
            been added then.
    """
    found = get_format(format)
    path = Path(path)
    root = Path(image_root) if image_root is not None else path.parent
    if not root.is_dir():
        raise InputError(f"image_root: folder {str(root)!r} does not exist; name the folder the image paths start from")
    if id_conflict not in ("quarantine", "rename"):
        raise InputError(f"id_conflict: expected 'quarantine' or 'rename', got {id_conflict!r}")
    if not source:
        raise InputError("source: expected the name of the dataset, got an empty text")
    pool.refresh()
    if done := pool.find_commit(key):
        return IngestReport(**{**done["report"], "version": done["version"]})
    with pool.writer() as writer:
        work = _Ingest(writer, found, source, path, ImageRoot(root, allow_outside), skill_key, id_conflict == "rename")
        for row in found.rows(path):
            work.take(row, strict)
            if progress is not None:
                progress(row.number)
        report = work.report()
        commit = writer.commit("ingest", message or f"ingest {path.name} as {source}", key, report)
    pool.refresh()
    return IngestReport(**{**report, "version": commit.version})


class _Ingest:
    """One ingest call: turns rows into samples and keeps count."""

    def __init__(
        self,
        writer: PoolWriter,
        format: Format,
        source: str,
        path: Path,
        root: ImageRoot,
        skill_key: str,
        rename: bool,
    ) -> None:
        self.writer, self.format, self.source, self.path = writer, format, source, path
        self.root, self.skill_key, self.rename = root, skill_key, rename
        self.images = ImageChecker()
        self.outcomes: Counter[Outcome] = Counter()
        self.reasons: Counter[str] = Counter()
        self.rows = self.renamed = 0

    def take(self, row: Row, strict: bool) -> None:
        self.rows += 1
        try:
            self.outcomes[self._add(self._sample(row))] += 1
        except RowError as bad:
            if strict:
                raise InputError(
                    f"path: {str(self.path)!r} line {row.line} (row {row.number}): {bad}; nothing was added; "
                    "correct the row, or run without strict to set it aside"
                ) from bad
            self.reasons[bad.reason] += 1
            self.writer.quarantine(
                source=self.source,
                file=self.path.name,
                number=row.number,
                line=row.line,
                id=_id_for_people(row.value),
                reason=bad.reason,
                detail=_printable(bad.detail),
                raw=row.text,
            )

    def _sample(self, row: Row) -> Sample:
        if row.error:
            raise RowError(*row.error)
        if not isinstance(row.value, Mapping):
            raise RowError("not-an-object", f"the row is {type(row.value).__name__}; expected an object")
        draft = self.format.parse(row.value)
        id = check_id(draft.id)
        skill = _skill(row.value, self.skill_key)
        check_messages(draft.messages, len(draft.images))
        try:
            images = tuple(map(self._image, draft.images))
        except ImageError as problem:
            raise RowError.from_image(problem) from problem
        if id is None:
            id = content_hash(draft.messages, images)[:32]
        return Sample(id, draft.messages, images, self.source, skill, row.text, self.format.name)

    def _image(self, image: ImageSource) -> ImageRef:
        if image.data is not None:
            return self.images.from_bytes(image.data, _printable(image.path))
        return self.images.from_file(self.root.resolve(image.path))

    def _add(self, sample: Sample) -> Outcome:
        outcome = self.writer.add(sample)
        if outcome == "conflict" and self.rename:
            other = replace(sample, id=f"{sample.id}~{sample.content_hash[:16]}")
            outcome = self.writer.add(other)
            self.renamed += outcome == "added"
        if outcome == "conflict":
            raise RowError("id-conflict", f"id {sample.id[:80]!r} belongs to a row with other content")
        return outcome

    def report(self) -> dict[str, Any]:
        return {
            "added": self.outcomes["added"],
            "quarantined": sum(self.reasons.values()),
            "reasons": dict(sorted(self.reasons.items())),
            "duplicates": self.outcomes["duplicate"],
            "rows": self.rows,
            "same_content": self.writer.same_content,
            "pruned": self.outcomes["pruned"],
            "renamed": self.renamed,
        }


def _skill(row: Mapping[str, Any], key: str) -> str:
    value = row.get(key)
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise RowError("bad-skill", f"{key} is {type(value).__name__}; expected a text")
    check_text(str(value), key)
    return str(value)


def _id_for_people(row: object) -> str:
    value = row.get("id") if isinstance(row, Mapping) else None
    if isinstance(value, bool) or not isinstance(value, str | int):
        return ""
    try:
        return _printable(str(value)[:200])
    except ValueError:  # an integer too long to be written in decimals
        return ""


def _printable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
