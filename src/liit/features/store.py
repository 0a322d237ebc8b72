"""The feature store: what `liit.extract` wrote and `liit.select` reads.

    features/           a Lance table: one row per sample, one column per feature
    features/added/1    columns that were asked for later, a table of the same kind; and so on
    features/lock       held by the one process that writes

Every table carries the key of its columns: checkpoint, chat template and settings. Tables of two checkpoints under one
roof are refused, so they never meet in one matrix.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from liit.errors import InputError
from liit.features.key import FeatureKey
from liit.features.table import FeatureTable, has_table

if TYPE_CHECKING:
    from liit.features.report import ExtractionReport

ADDED = "added"


class FeatureStore(Mapping[str, np.ndarray]):
    """Columns by standard feature name; what `liit.select` takes.

    Indexing gives a column over all rows that have every column, in the order in which they were written, or over the
    rows of `view` in theirs.

    Args:
        path: directory of the store.
        ids: restricts and orders the rows.
        key: what the columns depend on, for a store that may have no rows yet.

    Attributes:
        report: what the extraction did that gave this store; None for one that was opened.

    Raises:
        InputError: nothing there, something else, or tables of two checkpoints.
    """

    def __init__(self, path: Path | str, ids: Sequence[str] | None = None, *, key: FeatureKey | None = None) -> None:
        self.path = Path(path)
        self.report: ExtractionReport | None = None
        self._ids = None if ids is None else list(ids)
        self._key = key
        self._columns: dict[str, np.ndarray] = {}
        self._versions: tuple[int, ...] = ()
        if not self.tables() and key is None:
            raise InputError(f"features: nothing at {self.path}; expected a directory written by liit extract")

    def tables(self) -> list[FeatureTable]:
        """The tables that the columns lie in.

        Raises:
            InputError: they belong to two checkpoints, templates or kinds of weights.
        """
        return open_tables(self.path)

    @property
    def key(self) -> FeatureKey:
        """What the columns depend on."""
        tables = self.tables()
        if not tables:
            assert self._key is not None
            return self._key
        return FeatureKey(tables[0].key.model, {n: table.key.columns[n] for table in tables for n in table.names})

    def view(self, ids: Sequence[str]) -> FeatureStore:
        """The same store, restricted to these ids in this order."""
        return FeatureStore(self.path, ids, key=self._key)

    def stored_ids(self) -> list[str]:
        """Ids of all rows that have every column, in the order in which they were written."""
        ids: list[str] = _common_ids(self.tables()).to_pylist()
        return ids

    def __getitem__(self, name: str) -> np.ndarray:
        tables = self.tables()
        versions = tuple(table.version for table in tables)
        if versions != self._versions:
            self._columns, self._versions = {}, versions
        if name not in self._columns:
            if name not in _names(tables):
                raise KeyError(name)
            self._columns[name] = self._read(name, tables)
        return self._columns[name]

    def __contains__(self, name: object) -> bool:
        return name in self.names()  # without reading the column

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def __len__(self) -> int:
        return len(self.names())

    def names(self) -> list[str]:
        """Column names, ``id`` first."""
        return _names(self.tables())

    def _read(self, name: str, tables: Sequence[FeatureTable]) -> np.ndarray:
        wanted = _common_ids(tables) if self._ids is None else pa.array(self._ids, pa.string())
        if name == "id":
            self._check_rows(wanted, _common_ids(tables))
            return np.asarray(wanted.to_pylist(), dtype=str)
        table = next(table for table in tables if name in table.names)
        stored = table.rows()["id"]
        rows = self._check_rows(wanted, stored)
        values = table.read(name)
        return values if len(rows) == len(values) and np.array_equal(rows, np.arange(len(rows))) else values[rows]

    def _check_rows(self, wanted: pa.Array, stored: pa.Array) -> np.ndarray:
        """Places of the wanted ids among the stored ones."""
        places = places_of(wanted, stored)
        if (places < 0).any():
            missing = int((places < 0).sum())
            raise InputError(
                f"features: {missing} of {len(places)} rows have no features in {self.path}, first "
                f"{wanted[int(np.argmin(places))].as_py()!r}; run liit extract again to add them"
            )
        return places


def open_tables(path: Path) -> list[FeatureTable]:
    """The tables of a store, the first one first; none where nothing was written yet.

    Raises:
        InputError: not a feature store, or tables of two checkpoints.
    """
    folders = [path, *sorted((path / ADDED).glob("*"), key=lambda folder: (len(folder.name), folder.name))]
    tables = [FeatureTable(folder) for folder in folders if has_table(folder)]
    for table in tables[1:]:
        if table.key.model != tables[0].key.model:
            raise InputError(
                f"features: {path} mixes {_difference(table.key.model, tables[0].key.model)} in {table.path.name}; "
                "features of two checkpoints are never mixed: delete one of them or extract anew with refresh"
            )
    return tables


def concatenate(stores: Iterable[FeatureStore]) -> dict[str, np.ndarray]:
    """Stack the columns of stores that hold different rows, such as those of several machines.

    Raises:
        InputError: their keys differ, or a row is in two of them.
    """
    listed = list(stores)
    for store in listed[1:]:
        if store.key != listed[0].key:
            differs = _difference(store.key.as_dict(), listed[0].key.as_dict())
            raise InputError(
                f"features: {store.path} and {listed[0].path} differ in {differs}; features of two checkpoints or "
                "settings are never mixed"
            )
    columns = {name: np.concatenate([store[name] for store in listed]) for name in listed[0]}
    names, counts = np.unique(columns["id"], return_counts=True)
    if (counts > 1).any():
        raise InputError(f"features: {(counts > 1).sum()} rows are in two stores, first {str(names[counts > 1][0])!r}")
    return columns


def places_of(wanted: pa.Array | pa.ChunkedArray, stored: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """Where each wanted value is among the stored ones; -1 where it is not. int64."""
    if len(stored) == 0:
        return np.full(len(wanted), -1, dtype=np.int64)
    found = pc.fill_null(pc.index_in(wanted, value_set=stored), -1)
    return np.asarray(found.to_numpy(zero_copy_only=False) if isinstance(found, pa.Array) else found.to_numpy()).astype(
        np.int64
    )


def _names(tables: Sequence[FeatureTable]) -> list[str]:
    return ["id", *(name for table in tables for name in table.names)] if tables else []


def _common_ids(tables: Sequence[FeatureTable]) -> pa.Array:
    """Ids that are in every table, in the first one's order."""
    if not tables:
        return pa.array([], pa.string())
    ids = tables[0].rows()["id"].combine_chunks()
    ids = pa.concat_arrays(ids.chunks) if isinstance(ids, pa.ChunkedArray) else ids
    for table in tables[1:]:
        ids = ids.filter(pc.is_in(ids, value_set=table.rows()["id"]))
    return ids


def _difference(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    return ", ".join(sorted(name for name in {*one, *other} if one.get(name) != other.get(name)))
