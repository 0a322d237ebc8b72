"""Reading a pool at one version."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from liit.data.commits import Commit, lineage, read_commit
from liit.data.places import Places
from liit.data.sample import Sample
from liit.data.tables import SAMPLES, open_table, samples_of
from liit.errors import InputError

_TAKE_ROWS = 4096


class Snapshot:
    """What a pool holds at one version; `liit.data.pool.Pool` adds how it changes.

    Args:
        path: The pool's directory.
        commit: The version.
    """

    def __init__(self, path: Path, commit: Commit) -> None:
        self.path = path
        self._show(commit)

    def _show(self, commit: Commit) -> None:
        self._commit = commit
        self._tables: dict[str, Any] = {}
        self._where: Places | None = None

    @property
    def version(self) -> int:
        """Version this object shows."""
        return self._commit.version

    @property
    def oldest(self) -> int:
        """The oldest version whose rows are still on disk; a gc frees those before it."""
        return self._commit.oldest

    @property
    def tables(self) -> dict[str, int]:
        """Lance version of each table at this version."""
        return dict(self._commit.tables)

    def __len__(self) -> int:
        return self._commit.rows

    def __repr__(self) -> str:
        return f"Pool({str(self.path)!r}, version={self.version}, samples={len(self)})"

    def _table(self, name: str) -> Any:
        if name not in self._tables:
            self._tables[name] = open_table(self.path, name, self._commit.tables[name])
        return self._tables[name]

    def columns(self, names: Sequence[str]) -> pa.Table:
        """Columns of every sample, in ingestion order.

        Args:
            names: Of "row", "id", "source", "skill", "format", "content_hash", "messages", "image_paths",
                "image_hashes", "image_held", "raw", "form".

        Returns:
            A table with these columns in this order.

        Raises:
            InputError: A column does not exist.
        """
        _check_columns(names)
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
            The samples, in the order of the ids. Images held by value are read when they are opened.

        Raises:
            InputError: An id is not in the pool.
        """
        return [sample for table in self._tables_of(ids, SAMPLES.names) for sample in samples_of(table, self.path)]

    def rows_of(self, ids: Iterable[str], columns: Sequence[str]) -> pa.Table:
        """Columns of some samples.

        Args:
            ids: Ids.
            columns: As for `columns`.

        Returns:
            A table with "id" and these columns, a row per id, in the order of the ids.

        Raises:
            InputError: An id is not in the pool, or a column does not exist.
        """
        names = list(dict.fromkeys(["id", *columns]))
        _check_columns(names)
        tables = list(self._tables_of(ids, names))
        return pa.concat_tables(tables) if tables else SAMPLES.empty_table().select(names)

    def contains(self, ids: Iterable[str]) -> list[bool]:
        """Whether each of some ids is in the pool."""
        ids = list(map(str, ids))
        places = self._places().find(ids)
        found: list[bool] = (places >= 0).tolist()
        there = places[places >= 0].tolist()
        if there:  # a hash may be shared: compare
            names = iter(self._table("samples").take(there, columns=["id"])["id"].to_pylist())
            found = [place >= 0 and next(names) == id for id, place in zip(ids, places, strict=True)]
        return found

    def _places(self) -> Places:
        if self._where is None:
            table = self._table("samples")
            self._where = Places(lambda: (batch["id"] for batch in table.to_batches(columns=["id"])))
        return self._where

    def _tables_of(self, ids: Iterable[str], columns: list[str]) -> Iterator[pa.Table]:
        ids = list(map(str, ids))
        places = self._places().find(ids)
        if np.any(places < 0):
            raise self._missing(ids, [id for id, place in zip(ids, places, strict=True) if place < 0])
        table = self._table("samples")
        for start in range(0, len(ids), _TAKE_ROWS):
            found = table.take(places[start : start + _TAKE_ROWS].tolist(), columns=columns)
            wanted = ids[start : start + _TAKE_ROWS]
            if (names := found["id"].to_pylist()) != wanted:
                raise self._missing(ids, [id for id, name in zip(wanted, names, strict=True) if id != name])
            yield found

    def _missing(self, ids: list[str], missing: list[str]) -> InputError:
        return InputError(
            f"ids: {missing[0]!r} is not in the pool {str(self.path)!r} at version {self.version} "
            f"({len(missing)} of {len(ids)} ids are not)"
        )

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
            waiting += samples_of(pa.Table.from_batches([batch]), self.path)
            while len(waiting) >= batch_size:
                yield waiting[:batch_size]
                waiting = waiting[batch_size:]
        if waiting:
            yield waiting

    def batches(self, columns: Sequence[str], batch_size: int = 1 << 14) -> Iterator[pa.RecordBatch]:
        """Stream columns of every sample in ingestion order, without having all in memory.

        Args:
            columns: As for `columns`.
            batch_size: Rows per batch, at most.

        Yields:
            Arrow batches.

        Raises:
            InputError: A column does not exist.
        """
        _check_columns(columns)
        yield from self._table("samples").to_batches(columns=list(columns), batch_size=batch_size)

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


def _check_columns(names: Sequence[str]) -> None:
    unknown = [name for name in names if name not in SAMPLES.names]
    if unknown:
        raise InputError(f"names: the pool has no column {unknown[0]!r}; it has {', '.join(SAMPLES.names)}")
