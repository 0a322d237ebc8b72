"""The one way into a pool: samples and quarantined rows are collected, then committed together or not at all.

Rows are written as Lance fragments while they arrive (memory stays bounded) and belong to nothing until `commit`:

1. images, quarantined rows and samples are appended to their tables, one Lance commit each,
2. the files of these versions are checked and brought to the disk,
3. the pool's commit file, which names all table versions, gets its name,
4. the index of known rows (`liit.data.known`) follows.

A kill before 3 leaves the previous version current; the next writer starts from what that version names (`settled`).
After 3 the index is behind, notices, and is made again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import pyarrow as pa

from liit.data.commits import Commit, latest_version, read_commit, write_commit
from liit.data.known import KnownRows, digest, digests_of, half
from liit.data.lance_files import settle_fragments, settle_version, sync_file, sync_folder
from liit.data.lock import write_lock
from liit.data.sample import Sample
from liit.data.tables import IMAGES, QUARANTINE, SCHEMAS, quarantine_digest, samples_table, settled, table_path

Outcome = Literal["added", "renamed", "duplicate", "pruned", "conflict"]

_FLUSH_ROWS = 1 << 14
_FLUSH_BYTES = 1 << 26
_TABLES = ("images", "quarantine", "samples")


class PoolWriter:
    """Collects what one commit adds; holds the pool's write lock from `with` to its end.

    Args:
        folder: The pool's directory.

    Attributes:
        same_content: Of the samples added, those whose content the pool has under another id, by the source of the one
            that was there first.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.same_content: Counter[str] = Counter()
        self._own = str(folder.absolute())
        self._stack = ExitStack()
        self._samples: list[Sample] = []
        self._hashes: list[str] = []
        self._images: list[tuple[str, bytes]] = []
        self._bad: list[dict[str, Any]] = []
        self._sizes = dict.fromkeys(_TABLES, 0)
        self._fragments: dict[str, list[Any]] = {name: [] for name in _TABLES}
        self._added = 0

    def __enter__(self) -> PoolWriter:
        self._stack.enter_context(write_lock(self.folder))
        try:
            self.base = read_commit(self.folder / "commits", latest_version(self.folder / "commits"))
            self._next_row = self.base.next_row
            self._known = self._stack.enter_context(KnownRows(self.folder, self.base))
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for name, fragments in self._fragments.items():  # only left when nothing was committed
            for fragment in fragments:
                for file in fragment.data_files():
                    with suppress(OSError):
                        (Path(table_path(self.folder, name)) / "data" / file.path).unlink()
        self._stack.close()

    def add(self, samples: Sequence[Sample], rename: bool = False) -> list[Outcome]:
        """Take some samples.

        Args:
            samples: Checked samples; some thousands at once, for the index is asked about all together.
            rename: Give a sample whose id belongs to other content a new id, with its content hash at the end.

        Returns:
            For each: "added"; "renamed" (added under a new id); "duplicate" (same id and content are in the pool:
            skipped); "pruned" (it was removed for good: skipped, a restore brings it back); "conflict" (the id belongs
            to other content: refused).
        """
        ids = digests_of([sample.id for sample in samples])
        texts = [sample.content_hash for sample in samples]
        contents = list(map(half, texts))
        known = self._known.find("ids", ids)
        pruned = self._known.find("pruned", (id for id in ids if id not in known))
        sources = self._known.find("contents", contents)
        outcomes: list[Outcome] = []
        new: list[tuple[bytes, bytes]] = []
        for sample, id, text, content in zip(samples, ids, texts, contents, strict=True):
            outcome = _outcome(content, known.get(id), pruned.get(id))
            if outcome == "conflict" and rename:
                sample = replace(sample, id=f"{sample.id}~{text[:16]}")
                id = digest(sample.id)
                if id not in known:
                    known |= self._known.find("ids", [id])
                outcome = _outcome(content, known.get(id), self._known.find("pruned", [id]).get(id))
                outcome = "renamed" if outcome == "added" else outcome
            outcomes.append(outcome)
            if outcome not in ("added", "renamed"):
                continue
            if content in sources:
                self.same_content[sources[content]] += 1
            known[id], sources[content] = content, sources.get(content, sample.source)
            new.append((id, content))
            self._take(sample, text)
        self._known.put("ids", new)
        self._known.put("contents", {content: sources[content] for _, content in new}.items())
        return outcomes

    def _take(self, sample: Sample, text: str) -> None:
        self._hold(sample)
        self._samples.append(sample)
        self._hashes.append(text)
        self._grow("samples", len(sample.raw) * 2 + 64)
        if len(self._samples) >= _FLUSH_ROWS:
            self._flush("samples")

    def _hold(self, sample: Sample) -> None:
        wanted = {image.sha256: image for image in sample.images if image.held and image.store != self._own}
        if not wanted:
            return
        found = self._known.find("images", map(half, wanted))
        for text, image in wanted.items():
            if half(text) not in found:
                data = image.read()
                self._known.put("images", [(half(text), None)])
                self._images.append((text, data))
                self._grow("images", len(data))

    def quarantine(
        self, *, source: str, file: str, number: int, line: int, id: str, reason: str, detail: str, raw: str
    ) -> None:
        """Set one row aside, unless the same row was set aside for the same reason before.

        Args:
            source: The dataset.
            file: Name of its file.
            number: Row number in the file, from 1.
            line: Line the row starts on, from 1.
            id: The row's id as far as it can be told, else "".
            reason: A key of `validate.REASONS`.
            detail: What was found.
            raw: The row's text.
        """
        text = quarantine_digest(source, file, number, reason, raw)
        if self._known.find("aside", [half(text)]):
            return
        self._known.put("aside", [(half(text), None)])
        values = (source, line, id, reason, raw, detail, file, number, text)
        self._bad.append(dict(zip(QUARANTINE.names, values, strict=True)))
        self._grow("quarantine", len(raw) + 256)

    def keep_schema(self, schema: bytes) -> str:
        """Keep the columns of a Parquet file in the pool, for writing its rows back.

        Args:
            schema: As `Container.schema` gives it.

        Returns:
            The `form` of its rows.
        """
        name = sha256(schema).hexdigest()[:32]
        file = self.folder / "schemas" / f"{name}.arrow"
        if not file.is_file():
            file.parent.mkdir(exist_ok=True)
            part = file.with_suffix(".part")
            part.write_bytes(schema)
            sync_file(part)
            part.replace(file)
            sync_folder(file.parent)
        return f"parquet:{name}"

    def _grow(self, name: str, size: int) -> None:
        self._sizes[name] += size
        if self._sizes[name] >= _FLUSH_BYTES:
            self._flush(name)

    def _flush(self, name: str) -> None:
        if name == "samples" and self._samples:
            self._write(name, samples_table(self._samples, self._hashes, self._next_row))
            self._next_row += len(self._samples)
            self._added += len(self._samples)
            self._samples, self._hashes = [], []
        elif name == "images" and self._images:
            hashes, data = zip(*self._images, strict=True)
            self._write(name, pa.table({"sha256": list(hashes), "data": list(data)}, schema=IMAGES))
            self._images = []
        elif name == "quarantine" and self._bad:
            self._write(name, pa.Table.from_pylist(self._bad, schema=QUARANTINE))
            self._bad = []
        self._sizes[name] = 0

    def _write(self, name: str, rows: pa.Table) -> None:
        from lance.fragment import write_fragments

        path = table_path(self.folder, name)
        written = write_fragments(rows, path, schema=SCHEMAS[name], mode="append")
        self._fragments[name].extend(written)
        settle_fragments(path, written)

    def commit(self, kind: str, message: str, key: str, report: dict[str, Any]) -> Commit:
        """Make everything taken so far one new version.

        Args:
            kind: "add" or "ingest".
            message: For the log.
            key: Names the work; with a key a commit is made even when nothing is new, so that it is known as done.
            report: Figures for the log.

        Returns:
            The new commit, or the current one when there is nothing new and no key.
        """
        import lance

        for name in _TABLES:
            self._flush(name)
        if not key and not any(self._fragments.values()):
            return self.base
        tables = dict(self.base.tables)
        for name in _TABLES:
            if self._fragments[name]:
                table = settled(self.folder, name, tables[name])
                append = lance.LanceOperation.Append(self._fragments[name])
                new = lance.LanceDataset.commit(table.uri, append, read_version=table.version)
                settle_version(new, since=tables[name])
                tables[name] = new.version
                self._fragments[name] = []
        commit = replace(
            self.base,
            version=self.base.version + 1,
            kind=kind,
            message=message,
            key=key,
            tables=tables,
            rows=self.base.rows + self._added,
            next_row=self._next_row,
            restored=None,
            report=report,
            time=Commit.now(),
        )
        write_commit(self.folder / "commits", commit)
        self._known.commit(commit)
        self.base, self._added = commit, 0
        return commit


def _outcome(content: bytes, known: bytes | None, pruned: bytes | None) -> Outcome:
    if known is not None:
        return "duplicate" if known == content else "conflict"
    return "pruned" if pruned == content else "added"
