"""The one way into a pool: samples and quarantined rows are collected, then committed together or not at all.

Rows are written as Lance fragments while they arrive (memory stays bounded) and belong to nothing until `commit`:

1. quarantined rows are appended to their table,
2. the sample fragments are added to the sample table in one Lance commit,
3. the pool's commit file, which names both table versions, gets its name.

A kill before 3 leaves the previous version current; the next writer starts from what that version names (`settled`).
"""

from __future__ import annotations

from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import pyarrow as pa

from liit.data.commits import Commit, latest_version, read_commit, write_commit, write_lock
from liit.data.sample import Sample
from liit.data.tables import QUARANTINE, SCHEMAS, open_table, quarantine_digest, samples_table, settled, table_path

Outcome = Literal["added", "duplicate", "pruned", "conflict"]

_FLUSH_ROWS = 1 << 14
_FLUSH_BYTES = 1 << 26


class PoolWriter:
    """Collects what one commit adds; holds the pool's write lock from `with` to its end.

    Args:
        folder: The pool's directory.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.same_content = 0
        self._stack = ExitStack()
        self._samples: list[Sample] = []
        self._hashes: list[str] = []
        self._size = 0
        self._bad: list[dict[str, Any]] = []
        self._bad_size = 0
        self._fragments: dict[str, list[Any]] = {"samples": [], "quarantine": []}
        self._added = 0

    def __enter__(self) -> PoolWriter:
        self._stack.enter_context(write_lock(self.folder))
        try:
            self.base = read_commit(self.folder / "commits", latest_version(self.folder / "commits"))
            self._next_row = self.base.next_row
            self._content = self._by_id("samples")
            self._seen = set(self._content.values())
            self._pruned = self._by_id("ledger")
            quarantine = open_table(self.folder, "quarantine", self.base.tables["quarantine"])
            self._quarantined = set(quarantine.to_table(columns=["digest"])["digest"].to_pylist())
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

    def _by_id(self, table: str) -> dict[str, bytes]:
        # 32 bytes per hash, not 64 characters: this index is what grows with the pool.
        found = open_table(self.folder, table, self.base.tables[table]).to_table(columns=["id", "content_hash"])
        hashes = map(bytes.fromhex, found["content_hash"].to_pylist())
        return dict(zip(found["id"].to_pylist(), hashes, strict=True))

    def add(self, sample: Sample) -> Outcome:
        """Take one sample.

        Args:
            sample: A checked sample.

        Returns:
            "added"; "duplicate" (same id and content are in the pool: skipped); "pruned" (it was removed for good:
            skipped, a restore brings it back); "conflict" (the id belongs to other content: refused).
        """
        text = sample.content_hash
        content = bytes.fromhex(text)
        known = self._content.get(sample.id)
        if known is not None:
            return "duplicate" if known == content else "conflict"
        if self._pruned.get(sample.id) == content:
            return "pruned"
        self.same_content += content in self._seen
        self._content[sample.id] = content
        self._seen.add(content)
        self._samples.append(sample)
        self._hashes.append(text)
        self._size += len(sample.raw) * 2 + sum(len(image.data or b"") for image in sample.images)
        if len(self._samples) >= _FLUSH_ROWS or self._size >= _FLUSH_BYTES:
            self._flush()
        return "added"

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
        digest = quarantine_digest(source, file, number, reason, raw)
        if digest in self._quarantined:
            return
        self._quarantined.add(digest)
        values = (source, line, id, reason, raw, detail, file, number, digest)
        self._bad.append(dict(zip(QUARANTINE.names, values, strict=True)))
        self._bad_size += len(raw)
        if self._bad_size >= _FLUSH_BYTES:
            self._flush()

    def _flush(self) -> None:
        if self._samples:
            self._write("samples", samples_table(self._samples, self._hashes, self._next_row))
            self._next_row += len(self._samples)
            self._added += len(self._samples)
        if self._bad:
            self._write("quarantine", pa.Table.from_pylist(self._bad, schema=QUARANTINE))
        self._samples, self._hashes, self._size, self._bad, self._bad_size = [], [], 0, [], 0

    def _write(self, name: str, rows: pa.Table) -> None:
        from lance.fragment import write_fragments

        written = write_fragments(rows, table_path(self.folder, name), schema=SCHEMAS[name], mode="append")
        self._fragments[name].extend(written)

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

        self._flush()
        if not key and not any(self._fragments.values()):
            return self.base
        tables = dict(self.base.tables)
        for name in ("quarantine", "samples"):
            if self._fragments[name]:
                table = settled(self.folder, name, tables[name])
                append = lance.LanceOperation.Append(self._fragments[name])
                tables[name] = lance.LanceDataset.commit(table.uri, append, read_version=table.version).version
                self._fragments[name] = []
        commit = Commit(
            version=self.base.version + 1,
            kind=kind,
            message=message,
            key=key,
            tables=tables,
            rows=self.base.rows + self._added,
            next_row=self._next_row,
            report=report,
        )
        write_commit(self.folder / "commits", commit)
        self.base = commit
        return commit
