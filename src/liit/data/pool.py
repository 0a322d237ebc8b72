"""The pool: every sample that may still be trained on, in a directory of versioned Lance tables.

    pool/
      samples.lance      the samples, in ingestion order; `row` numbers are never given twice
      images.lance       the images that are held by value, each once
      ledger.lance       what was removed for good: by which step, from which cluster, near which neighbour
      quarantine.lance   rows that could not be taken, with the reason
      commits/           one JSON file per version of the pool, naming the Lance version of each table
      schemas/           columns of the Parquet files that rows came from
      known.sqlite       an index for writers, made again when it is missing or behind
      holds.json         versions that an unfinished run needs, which a gc leaves
      lock               held by the one process that writes

Why nothing is lost or counted twice, whenever the process is killed: a change first writes its rows into the tables,
has them on the disk, and last gives the commit file its name, which is atomic. Readers open the
tables at the versions the newest commit file names, so they see all of a change or nothing of it. A writer holds the
lock and first takes each table it will change back to the version the newest commit names, so rows that a killed
writer left behind are never part of a later version. Repeating the killed command therefore gives what it would have
given; repeating a finished one changes nothing, because known samples, ledger rows and quarantine rows are recognised.

A `Pool` is a snapshot: it follows its own changes, and those of other processes after `refresh`.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from liit.data.commits import Commit, latest_version, read_commit, write_commit
from liit.data.holds import NAME as HOLDS
from liit.data.holds import read_holds, write_holds
from liit.data.lance_files import settle_version, sync_folder
from liit.data.lock import write_lock
from liit.data.sample import Sample
from liit.data.snapshot import Snapshot
from liit.data.tables import SCHEMAS, settled, table_path
from liit.data.validate import RowError, check_sample
from liit.data.writer import PoolWriter
from liit.errors import InputError

if TYPE_CHECKING:
    from liit.data.export import WriteReport
    from liit.data.history import Difference

_ADD_ROWS = 1024


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


class Pool(Snapshot):
    """A versioned set of samples on disk; made by `create`, `open` or `open_or_create`."""

    def __init__(self, path: Path, commit: Commit, read_only: bool = False) -> None:
        super().__init__(path, commit)
        self._read_only = read_only

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
        tables = {Path(table_path(path, name)).name for name in SCHEMAS}
        ours = {"lock", "commits", "schemas", *tables}
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
                place = table_path(path, name)
                settle_version(lance.write_dataset(schema.empty_table(), place, schema=schema, mode="create"))
            (path / "commits").mkdir()
            sync_folder(path)
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
        try:
            pool = cls(path, read_commit(path / "commits", version))
            pool._table("samples")  # a damaged table shows now and not in the middle of the work
        except InputError:
            if latest_version(path / "commits") == version:
                raise
            return cls.open(path)  # a gc has freed that version meanwhile
        return pool

    @classmethod
    def open_or_create(cls, path: str | Path) -> Pool:
        """Open the pool at a path, or make an empty one there; raises as `open` and `create` do."""
        commits = Path(path) / "commits"
        if not latest_version(commits):
            try:
                return cls.create(path)
            except InputError:
                if not latest_version(commits):  # else another process has made it meanwhile
                    raise
        return cls.open(path)

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
        oldest = read_commit(self.path / "commits", newest).oldest
        if version < oldest:
            raise InputError(
                f"version: {version} of {str(self.path)!r} was freed by a gc; the oldest one left is {oldest}"
            )
        return read_commit(self.path / "commits", version)

    def to_llava_json(self, path: str | Path, ids: Iterable[str]) -> WriteReport:
        """Write a selection as LLaVA JSON: see `liit.data.export.write_rows`."""
        return self.write(path, ids, "llava-json")

    def write(self, path: str | Path, ids: Iterable[str], format: str, copy_images: bool = False) -> WriteReport:
        """Write a selection in a format, the user's own rows as they were: see `liit.data.export.write_rows`."""
        from liit.data.export import write_rows

        return write_rows(self, path, ids, format, copy_images)

    def difference(self, old: int, new: int) -> Difference:
        """What changed between two versions: see `liit.data.history.difference`."""
        from liit.data.history import difference

        return difference(self, old, new)

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
        counts: Counter[str] = Counter()
        with self.writer() as writer:
            waiting: list[Sample] = []
            for number, sample in enumerate(samples, 1):
                if source is not None:
                    sample = replace(sample, source=source)
                try:
                    check_sample(sample)
                except RowError as bad:
                    raise InputError(f"samples: number {number} (id {sample.id!r}): {bad}; nothing was added") from bad
                waiting.append(sample)
                if len(waiting) == _ADD_ROWS:
                    counts.update(_add(writer, waiting, number))
                    waiting = []
            counts.update(_add(writer, waiting, counts.total() + len(waiting)))
            report = {
                "added": counts["added"],
                "duplicates_exact": counts["duplicate"],
                "same_content": sum(writer.same_content.values()),
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
        from liit.data.removal import remove

        self._check_writable()
        return remove(self, list(dict.fromkeys(map(str, ids))), str(step), neighbours, message)

    def restore(self, version: int, message: str = "") -> int:
        """Bring an old version back, as a new version: its samples, ledger and quarantine.

        Args:
            version: Whose content to bring back.
            message: For the log.

        Returns:
            The new version.

        Raises:
            InputError: There is no such version, or a gc has freed it.
        """
        self._check_writable()
        with write_lock(self.path):
            self.refresh()
            old = self._find(version)
            tables = {}
            for name, lance_version in old.tables.items():
                # Images are never taken back: rows of every version name them.
                back = self._commit.tables[name] if name == "images" else lance_version
                table = settled(self.path, name, back)
                settle_version(table, since=self._commit.tables[name])
                tables[name] = table.version
            self.commit_tables("restore", message, tables, old.rows, {"restored": version}, restored=version)
        return self.version

    def gc(self, keep: int = 0, message: str = "", *, ignore_holds: bool = False) -> dict[str, Any]:
        """Free what only old versions need, for good: see `liit.data.gc.collect`."""
        from liit.data.gc import collect

        self._check_writable()
        return collect(self, keep, message, ignore_holds)

    def hold(self, holder: str, version: int) -> None:
        """Keep a version and all later ones from being freed by a gc, until they are released; as a run does.

        Args:
            holder: Who needs them; its earlier hold is replaced.
            version: The oldest that is needed.

        Raises:
            InputError: There is no such version, or a gc has freed it.
        """
        self._check_writable()
        with write_lock(self.path):
            self._find(version)
            try:
                holds = read_holds(self.path)
            except InputError:  # damaged; whoever needs something says so again
                holds = {}
            if holds.get(holder) != version:
                write_holds(self.path, {**holds, holder: version})

    def release(self, holder: str) -> None:
        """Let a gc free what `hold` kept; nothing happens when nothing is held under that name."""
        self._check_writable()
        if not (self.path / HOLDS).is_file():
            return
        with write_lock(self.path):
            holds = read_holds(self.path)
            if holds.pop(holder, None) is not None:
                write_holds(self.path, holds)

    def commit_tables(
        self,
        kind: str,
        message: str,
        tables: dict[str, int],
        rows: int,
        report: dict[str, Any],
        **changes: Any,
    ) -> None:
        """Make a new version of the pool out of table versions that are on the disk; the caller holds the lock.

        Args:
            kind: As in `Commit`, like all the others.
            message: For the log.
            tables: Lance version of each table.
            rows: Samples in the new version.
            report: Figures for the log.
            changes: Other fields of the commit.
        """
        commit = replace(
            self._commit,
            **{"restored": None, **changes},
            version=self.version + 1, kind=kind, message=message, key="", tables=tables, rows=rows, report=report,
            time=Commit.now(),
        )  # fmt: skip
        write_commit(self.path / "commits", commit)
        self._show(commit)


def _add(writer: PoolWriter, samples: list[Sample], last: int) -> list[str]:
    outcomes = writer.add(samples)
    if "conflict" in outcomes:
        at = outcomes.index("conflict")
        raise InputError(
            f"samples: number {last - len(samples) + at + 1}: id {samples[at].id!r} belongs to a sample with other "
            "content; give it another id; nothing was added"
        )
    return list(outcomes)
