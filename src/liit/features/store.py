"""The feature store: one Lance table per (checkpoint, template, settings), appended shard by shard.

The table's schema carries its key. Opening it with another key is refused, so two checkpoints never meet in one
matrix. An append is one Lance commit: a killed extraction loses at most the shard it was working on. Vectors are kept
raw, never normalised.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from liit.errors import InputError
from liit.features.settings import VECTORS

KEY = b"liit"


class FeatureStore(Mapping[str, np.ndarray]):
    """Columns by standard feature name; what `liit.select` takes.

    Indexing gives a column over all rows in the store's order, or in the order of `view`.

    Args:
        path: directory of the table.
        key: what the features depend on; None accepts whatever the table says.
        ids: restricts and orders the rows.

    Raises:
        InputError: nothing there and no key given, or another key there.
    """

    def __init__(self, path: Path, key: Mapping[str, Any] | None = None, ids: Sequence[str] | None = None) -> None:
        self.path = Path(path)
        self._columns: dict[str, np.ndarray] = {}
        self._ids = None if ids is None else list(ids)
        table = self._dataset()
        if table is None:
            if key is None:
                raise InputError(f"features: nothing at {self.path}; expected a directory written by liit extract")
            self.key: dict[str, Any] = dict(key)
            return
        metadata = table.schema.metadata or {}
        if KEY not in metadata:
            raise InputError(f"features: {self.path} is not a feature store; expected a directory of liit extract")
        self.key = json.loads(metadata[KEY])
        if key is not None and self.key != dict(key):
            differs = sorted(k for k in {*self.key, *key} if self.key.get(k) != key.get(k))
            raise InputError(
                f"features: {self.path} was written for another {', '.join(differs)}; features of two checkpoints or "
                "settings are never mixed: name another directory or delete this one"
            )

    def view(self, ids: Sequence[str]) -> FeatureStore:
        """The same store, restricted to these ids in this order."""
        return FeatureStore(self.path, self.key, ids)

    def stored_ids(self) -> list[str]:
        """Ids of all rows, in the order in which they were written."""
        table = self._dataset()
        return [] if table is None else table.to_table(columns=["id"])["id"].to_pylist()

    def append(self, ids: Sequence[str], columns: Mapping[str, np.ndarray]) -> None:
        """Add rows in one commit.

        Args:
            ids: the rows' ids, new to the store.
            columns: (N,) or (N, d) arrays by feature name.
        """
        import lance

        arrays: dict[str, pa.Array] = {"id": pa.array(list(ids), pa.string())}
        for name, values in columns.items():
            arrays[name] = _to_arrow(name, values)
        table = pa.table(arrays)
        table = table.replace_schema_metadata({KEY: json.dumps(self.key, sort_keys=True).encode()})
        exists = self._dataset() is not None
        lance.write_dataset(table, str(self.path), mode="append" if exists else "create")
        self._columns.clear()

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self._columns:
            if name not in self.names():
                raise KeyError(name)
            self._columns[name] = self._read(name)
        return self._columns[name]

    def __contains__(self, name: object) -> bool:
        return name in self.names()  # without reading the column

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def __len__(self) -> int:
        return len(self.names())

    def names(self) -> list[str]:
        """Column names, ``id`` first."""
        table = self._dataset()
        return [] if table is None else list(table.schema.names)

    def _read(self, name: str) -> np.ndarray:
        table = self._dataset()
        assert table is not None
        values = _to_numpy(name, table.to_table(columns=[name])[name])
        if self._ids is None:
            return values
        place = {sample: row for row, sample in enumerate(self.stored_ids())}
        missing = [sample for sample in self._ids if sample not in place]
        if missing:
            raise InputError(
                f"features: {len(missing)} of {len(self._ids)} rows have no features in {self.path}, first "
                f"{missing[0]!r}; run liit extract again to add them"
            )
        return values[np.fromiter((place[sample] for sample in self._ids), dtype=np.int64, count=len(self._ids))]

    def _dataset(self) -> Any:
        import lance

        if not any((self.path / "_versions").glob("*.manifest")):  # killed before its first commit: nothing there
            return None
        return lance.dataset(str(self.path))


def concatenate(parts: Iterable[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Stack the columns of several shards."""
    listed = list(parts)
    return {name: np.concatenate([part[name] for part in listed]) for name in listed[0]}


def _to_arrow(name: str, values: np.ndarray) -> pa.Array:
    if values.ndim == 1:
        return pa.array(values)
    if name not in VECTORS:
        raise ValueError(f"{name}: got {values.ndim} dimensions, expected one value per row")
    return pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(values).reshape(-1)), values.shape[1])


def _to_numpy(name: str, column: pa.ChunkedArray) -> np.ndarray:
    if name == "id":
        return np.asarray(column.to_pylist(), dtype=str)
    array = column.combine_chunks()
    if isinstance(array, pa.ChunkedArray):  # zero chunks
        array = pa.concat_arrays(array.chunks)
    if pa.types.is_fixed_size_list(array.type):
        return np.asarray(array.flatten().to_numpy(zero_copy_only=False)).reshape(-1, array.type.list_size)
    return np.asarray(array.to_numpy(zero_copy_only=False))
