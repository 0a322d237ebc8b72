"""The pool: every sample that may still be trained on, in a directory of versioned Lance tables.

    pool/
      samples.lance      the samples, in ingestion order; `row` numbers are never given twice
      ledger.lance       what was removed for good: by which step, from which cluster, near which neighbour
      quarantine.lance   rows that could not be taken, with the reason
      commits/           one JSON file per version of the pool, naming the Lance version of each table
      lock               held by the one process that writes

Why nothing is lost or counted twice, whenever the process is killed: a change first writes its rows into the tables
(ledger and quarantine before samples) and last gives the commit file its name, which is atomic. Readers open the
tables at the versions the newest commit file names, so they see all of a change or nothing of it. A writer holds the
lock and first takes each table it will change back to the version the newest commit names, so rows that a killed
writer left behind are never part of a later version. Repeating the killed command therefore gives what it would have
given; repeating a finished one changes nothing, because known samples, ledger rows and quarantine rows are recognised.

A `Pool` is a snapshot: it follows its own changes, and those of other processes after `refresh`.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from liit.data.commits import Commit, latest_version, lineage, read_commit, write_commit, write_lock
from liit.data.sample import Sample
from liit.data.tables import LEDGER, SAMPLES, SCHEMAS, open_table, samples_of, settled, table_path
from liit.data.validate import RowError, check_sample
from liit.data.writer import PoolWriter
from liit.errors import InputError

_TAKE_ROWS = 4096
_DELETE_ROWS = 1 << 14


@dataclass(frozen=True, slots=True)
class AddReport:
    """What an add did: added + duplicates_exact + pruned is the number of samples given.

    Args:
        added: Samples that are new in the pool.
        duplicates_exact: Skipped, because the pool has them: same id, same content.
        version: Version of the pool afterwards.
        same_content: Of the added ones, those whose content the pool has under another id.
        pruned: Skipped, because they were removed for good; `Pool.restore` brings them back.
    """

    added: int
    duplicates_exact: int
    version: int
    same_content: int = 0
    pruned: int = 0


class Pool:
    """A versioned set of samples on disk; made by `create`, `open` or `open_or_create`."""

    def __init__(self, path: Path, commit: Commit, read_only: bool = False) -> None:
        self.path = path
        self._read_only = read_only
        self._show(commit)

    def _show(self, commit: Commit) -> None:
        self._commit = commit
        self._tables: dict[str, Any] = {}
        self._place: dict[str, int] | None = None

    @classmethod
    def create(cls, path: str | Path) -> Pool:
        """Make an empty pool.

        Args:
            path: A directory that does not exist or is empty.

        Returns:
            The pool, at version 1.

        Raises:
            InputError: There is a pool already, or the directory holds other files.
        """
        import lance

        path = Path(path)
        ours = {"lock", "commits", *(Path(table_path(path, name)).name for name in SCHEMAS)}
        try:
            path.mkdir(parents=True, exist_ok=True)
            strange = sorted({file.name for file in path.iterdir()} - ours)
        except OSError as error:
            raise InputError(f"path: cannot make a pool at {str(path)!r}: {error}") from error
        if strange:
            raise InputError(f"path: {str(path)!r} is not empty (it holds {strange[0]!r}); name a new directory")
        with write_lock(path):
            if latest_version(path / "commits"):
                raise InputError(f"path: {str(path)!r} is a pool already; open it with Pool.open")
            for name in ours - {"lock"}:  # left by a creation that was killed
                shutil.rmtree(path / name, ignore_errors=True)
            for name, schema in SCHEMAS.items():
                lance.write_dataset(schema.empty_table(), table_path(path, name), schema=schema, mode="create")
            (path / "commits").mkdir()
            commit = Commit(1, "create", "", "", dict.fromkeys(SCHEMAS, 1), rows=0, next_row=0)
            write_commit(path / "commits", commit)
        return cls(path, commit)

    @classmethod
    def open(cls, path: str | Path) -> Pool:
        """Open a pool at its newest version.

        Args:
            path: Its directory.

        Returns:
            The pool.

        Raises:
            InputError: There is no pool, it is damaged, or written by a newer liit.
        """
        path = Path(path)
        version = latest_version(path / "commits")
        if not version:
            what = "has no pool in it" if path.is_dir() else "is not a directory" if path.exists() else "does not exist"
            raise InputError(f"path: {str(path)!r} {what}; expected a pool made by `liit ingest` or Pool.create")
        pool = cls(path, read_commit(path / "commits", version))
        pool._table("samples")  # a damaged table shows now and not in the middle of the work
        return pool

    @classmethod
    def open_or_create(cls, path: str | Path) -> Pool:
        """Open the pool at a path, or make an empty one there; raises as `open` and `create` do."""
        return cls.open(path) if latest_version(Path(path) / "commits") else cls.create(path)

    @property
    def version(self) -> int:
        """Version this object shows."""
        return self._commit.version

    def __len__(self) -> int:
        return self._commit.rows

    def __repr__(self) -> str:
        return f"Pool({str(self.path)!r}, version={self.version}, samples={len(self)})"

    def refresh(self) -> int:
        """Show the newest version, whoever wrote it, and return its number."""
        if not self._read_only:
            newest = latest_version(self.path / "commits")
            if newest != self.version:
                self._show(read_commit(self.path / "commits", newest))
        return self.version

    def at(self, version: int) -> Pool:
        """The pool as it was.

        Args:
            version: From 1 to the newest.

        Returns:
            A read-only pool.

        Raises:
            InputError: There is no such version.
        """
        return Pool(self.path, self._find(version), read_only=True)

    def _find(self, version: int) -> Commit:
        newest = latest_version(self.path / "commits")
        if isinstance(version, bool) or not isinstance(version, int) or not 1 <= version <= newest:
            raise InputError(f"version: {version!r} is not a version of {str(self.path)!r}; expected 1 to {newest}")
        return read_commit(self.path / "commits", version)

    def _table(self, name: str) -> Any:
        if name not in self._tables:
            self._tables[name] = open_table(self.path, name, self._commit.tables[name])
        return self._tables[name]

    # Reading

    def columns(self, names: Sequence[str]) -> pa.Table:
        """Columns of every sample, in ingestion order.

        Args:
            names: Of "row", "id", "source", "skill", "format", "content_hash", "messages", "image_paths",
                "image_hashes", "image_data", "raw".

        Returns:
            A table with these columns in this order.

        Raises:
            InputError: A column does not exist.
        """
        unknown = [name for name in names if name not in SAMPLES.names]
        if unknown:
            raise InputError(f"names: the pool has no column {unknown[0]!r}; it has {', '.join(SAMPLES.names)}")
        table = self._table("samples").to_table(columns=list(dict.fromkeys([*names, "row"])))
        rows = table["row"].to_numpy()
        if np.any(rows[1:] < rows[:-1]):  # another program may have rewritten the table
            table = table.take(np.argsort(rows, kind="stable"))
        return table.select(list(names))

    def ids(self) -> list[str]:
        """Ids of all samples, in ingestion order."""
        found: list[str] = self.columns(["id"])["id"].to_pylist()
        return found

    def take(self, ids: Iterable[str]) -> list[Sample]:
        """Samples by id.

        Args:
            ids: Ids; the same one may come twice.

        Returns:
            The samples, in the order of the ids.

        Raises:
            InputError: An id is not in the pool.
        """
        return [sample for batch in self._batches(self._places(ids)) for sample in samples_of(batch)]

    def _places(self, ids: Iterable[str]) -> list[int]:
        if self._place is None:
            found = self._table("samples").to_table(columns=["id"])["id"].to_pylist()
            self._place = {id: place for place, id in enumerate(found)}
        ids = list(map(str, ids))
        missing = [id for id in ids if id not in self._place]
        if missing:
            raise InputError(
                f"ids: {missing[0]!r} is not in the pool {str(self.path)!r} at version {self.version} "
                f"({len(missing)} of {len(ids)} ids are not)"
            )
        return [self._place[id] for id in ids]

    def _batches(self, places: list[int], columns: list[str] | None = None) -> Iterator[pa.Table]:
        table = self._table("samples")
        for start in range(0, len(places), _TAKE_ROWS):
            yield table.take(places[start : start + _TAKE_ROWS], columns=columns or SAMPLES.names)

    def scan(self, batch_size: int = 1024) -> Iterator[list[Sample]]:
        """Stream all samples in ingestion order.

        Args:
            batch_size: Samples per list; only the last one may be shorter.

        Yields:
            Lists of samples.

        Raises:
            InputError: `batch_size` is not positive.
        """
        if batch_size < 1:
            raise InputError(f"batch_size: expected a positive number, got {batch_size}")
        waiting: list[Sample] = []
        for batch in self._table("samples").to_batches(columns=SAMPLES.names, batch_size=batch_size):
            waiting += samples_of(pa.Table.from_batches([batch]))
            while len(waiting) >= batch_size:
                yield waiting[:batch_size]
                waiting = waiting[batch_size:]
        if waiting:
            yield waiting

    def quarantine(self) -> pa.Table:
        """Rows that could not be taken: source, line, id, reason, raw, detail, file, number (from 1 in the file)."""
        return self._table("quarantine").to_table().drop_columns(["digest"])

    def ledger(self) -> pa.Table:
        """Rows removed for good.

        Returns:
            id, step, cluster, neighbour, similarity, reason, version (which removed it), row, source, content_hash.
        """
        return self._table("ledger").to_table()

    def log(self) -> list[dict[str, Any]]:
        """Every commit up to this version, oldest first: version, kind, message, key, rows, report, time and so on."""
        return [asdict(read_commit(self.path / "commits", version)) for version in range(1, self.version + 1)]

    def find_commit(self, key: str) -> dict[str, Any] | None:
        """The commit made under a key, or None; what a later restore undid does not count.

        Args:
            key: As given to `add` or `ingest`.

        Returns:
            The commit as `log` shows it.
        """
        found = (commit for commit in lineage(self.path / "commits", self.version) if key and commit.key == key)
        commit = next(found, None)
        return asdict(commit) if commit else None

    def to_llava_json(self, path: str | Path, ids: Iterable[str]) -> None:
        """Write a selection as LLaVA JSON: see `liit.data.export.write_llava_json`."""
        from liit.data.export import write_llava_json

        write_llava_json(self, path, ids)

    # Writing

    def writer(self) -> PoolWriter:
        """A writer for one commit, for readers of new formats; `add` and `ingest` are what most code wants.

        Raises:
            InputError: This is an old version (`at`).
        """
        self._check_writable()
        return PoolWriter(self.path)

    def _check_writable(self) -> None:
        if self._read_only:
            raise InputError(
                f"pool {str(self.path)!r} at version {self.version} is an old version and cannot be changed; "
                "bring it back with restore"
            )

    def add(self, samples: Iterable[Sample], source: str | None = None, message: str = "", key: str = "") -> AddReport:
        """Add samples in one commit; they are streamed, and all or none are added.

        Args:
            samples: The samples.
            source: Their dataset, in place of the one each names.
            message: For the log.
            key: Names this work; when a commit under that key exists, its report is returned and nothing is read.

        Returns:
            What was added.

        Raises:
            InputError: A sample is not well-formed, or its id belongs to other content; nothing is added then.
        """
        self._check_writable()
        self.refresh()
        if done := self.find_commit(key):
            return AddReport(**{**done["report"], "version": done["version"]})
        counts = {"added": 0, "duplicate": 0, "pruned": 0}
        with self.writer() as writer:
            for number, sample in enumerate(samples, 1):
                if source is not None:
                    sample = replace(sample, source=source)
                try:
                    check_sample(sample)
                except RowError as bad:
                    raise InputError(f"samples: number {number} (id {sample.id!r}): {bad}; nothing was added") from bad
                outcome = writer.add(sample)
                if outcome == "conflict":
                    raise InputError(
                        f"samples: number {number}: id {sample.id!r} belongs to a sample with other content; "
                        "give it another id; nothing was added"
                    )
                counts[outcome] += 1
            report = {
                "added": counts["added"],
                "duplicates_exact": counts["duplicate"],
                "same_content": writer.same_content,
                "pruned": counts["pruned"],
            }
            commit = writer.commit("add", message, key, report)
        self._show(commit)
        return AddReport(version=commit.version, **report)

    def remove(
        self, ids: Iterable[str], *, step: str | int, neighbours: pa.Table | None = None, message: str = ""
    ) -> int:
        """Remove samples for good, in one commit; the ledger keeps why. Repeating it changes nothing.

        Args:
            ids: Samples of the pool, or ones this step removed before.
            step: What removes them, e.g. the step number.
            neighbours: Per removed sample why: columns id, cluster (int), neighbour (id of the near-duplicate it left
                behind, or null), similarity; optionally reason. Rows about other ids are ignored.
            message: For the log.

        Returns:
            The version without them.

        Raises:
            InputError: An id is not in the pool, or `neighbours` lacks a column or one of the ids.
        """
        from liit.data.removal import removal_rows

        self._check_writable()
        with write_lock(self.path):
            self.refresh()
            gone = self.ledger()
            before = {
                id: version
                for id, by, version in zip(*(gone[name].to_pylist() for name in ("id", "step", "version")), strict=True)
                if by == str(step)
            }
            wanted = list(dict.fromkeys(map(str, ids)))
            present = set(self.ids())
            leaving = [id for id in wanted if id in present or id not in before]
            if not leaving:
                return max((before[id] for id in wanted), default=self.version)
            places = self._places(leaving)
            known = pa.concat_tables(list(self._batches(places, ["row", "id", "source", "content_hash"])))
            rows = removal_rows(known, neighbours, str(step), self.version + 1)
            tables = dict(self._commit.tables)
            ledger = settled(self.path, "ledger", tables["ledger"])
            tables["ledger"] = _append(ledger.uri, rows)
            samples = settled(self.path, "samples", tables["samples"])
            numbers = sorted(known["row"].to_pylist())
            for start in range(0, len(numbers), _DELETE_ROWS):
                samples.delete(f"row IN ({', '.join(map(str, numbers[start : start + _DELETE_ROWS]))})")
            tables["samples"] = samples.version
            self._commit_tables("remove", message, tables, len(self) - len(numbers), {"removed": len(numbers)})
        return self.version

    def restore(self, version: int, message: str = "") -> int:
        """Bring an old version back, as a new version: its samples, ledger and quarantine.

        Args:
            version: Whose content to bring back.
            message: For the log.

        Returns:
            The new version.

        Raises:
            InputError: There is no such version.
        """
        self._check_writable()
        with write_lock(self.path):
            self.refresh()
            old = self._find(version)
            tables = {
                name: settled(self.path, name, lance_version).version for name, lance_version in old.tables.items()
            }
            self._commit_tables("restore", message, tables, old.rows, {"restored": version}, restored=version)
        return self.version

    def _commit_tables(
        self,
        kind: str,
        message: str,
        tables: dict[str, int],
        rows: int,
        report: dict[str, Any],
        restored: int | None = None,
    ) -> None:
        next_row = self._commit.next_row
        commit = Commit(self.version + 1, kind, message, "", tables, rows, next_row, restored, report)
        write_commit(self.path / "commits", commit)
        self._show(commit)


def _append(uri: str, rows: pa.Table) -> int:
    import lance

    version: int = lance.write_dataset(rows, uri, schema=LEDGER, mode="append").version
    return version
