"""One Lance table of features: rows with id, content hash and columns, under the key in its schema.

An append is one commit, so a process that dies loses at most the rows it was about to append. Numbers are stored raw,
never normalised. Lance has no bfloat16 column that other readers of Arrow understand: such numbers lie there as the
uint16 of their bits, the upper half of a float32's, and are read as float32.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from liit.data import checksums
from liit.data.lance_files import check_whole, open_newest, settle_fragments, settle_version
from liit.errors import InputError
from liit.features.key import FeatureKey
from liit.features.settings import VECTORS

KEY = b"liit"
CONTENT = "content_hash"
_DELETE_ROWS = 4096


class FeatureTable:
    """A table on disk, or the place for one.

    Args:
        path: its directory.
        key: what its columns depend on, for a table that may have to be made; None reads what is there.

    Raises:
        InputError: something else lies there, or there is nothing and no key.
    """

    def __init__(self, path: Path, key: FeatureKey | None = None) -> None:
        self.path = path
        dataset = self.dataset()
        if dataset is None:
            if key is None:
                raise InputError(f"features: nothing at {path}; expected a directory written by liit extract")
            self.key = key
            return
        metadata = dataset.schema.metadata or {}
        if KEY not in metadata or "columns" not in (value := json.loads(metadata[KEY])):
            raise InputError(f"features: {path} is not a feature store; expected a directory of liit extract")
        self.key = FeatureKey.from_dict(value)

    @property
    def names(self) -> list[str]:
        """The features, in their order."""
        return list(self.key.columns)

    @property
    def version(self) -> int:
        """Lance's version number; 0 before the first append."""
        dataset = self.dataset()
        return 0 if dataset is None else int(dataset.version)

    def dataset(self) -> Any:
        """The table as Lance sees it now, or None before the first append."""
        return open_newest(self.path) if has_table(self.path) else None

    def rows(self) -> pa.Table:
        """Id and content hash of every row, in the order in which they were written."""
        dataset = self.dataset()
        if dataset is None:
            return pa.table({"id": pa.array([], pa.string()), CONTENT: pa.array([], pa.string())})
        check_whole(dataset)
        return dataset.to_table(columns=["id", CONTENT])

    def append(self, ids: Sequence[str], contents: Sequence[str], columns: Mapping[str, np.ndarray]) -> int:
        """Add rows in one commit.

        Args:
            ids: the rows' ids, new to the table.
            contents: their content hashes.
            columns: (N,) or (N, d) arrays by feature name.

        Returns:
            Bytes of the columns.

        Raises:
            InputError: a number that the type on disk cannot hold.
        """
        arrays: dict[str, pa.Array] = {"id": pa.array(list(ids), pa.string())}
        arrays[CONTENT] = pa.array(list(contents), pa.string())
        for name in self.names:
            arrays[name] = self._to_arrow(name, columns[name], ids)
        table = pa.table(arrays)
        table = table.replace_schema_metadata({KEY: json.dumps(self.key.as_dict(), sort_keys=False).encode()})
        self._commit(table)
        return int(table.nbytes)

    def _commit(self, rows: pa.Table) -> None:
        """Append rows in one commit, which is not made before their file is whole: a disk may be full."""
        import lance
        from lance.fragment import write_fragments

        before, path = self.version, str(self.path)
        written = write_fragments(rows, path, schema=rows.schema, mode="append" if before else "create")
        settle_fragments(path, written)
        make = lance.LanceOperation.Append if before else partial(lance.LanceOperation.Overwrite, rows.schema)
        settle_version(lance.LanceDataset.commit(path, make(written), read_version=before), since=before)

    def delete(self, ids: Sequence[str]) -> None:
        """Remove rows."""
        dataset, before = self.dataset(), self.version
        for start in range(0, len(ids), _DELETE_ROWS):
            listed = ", ".join("'" + sample.replace("'", "''") + "'" for sample in ids[start : start + _DELETE_ROWS])
            dataset.delete(f"id IN ({listed})")
        settle_version(dataset, since=before)

    def destroy(self) -> None:
        """Remove the table; without versions it is no table any more, so they go first."""
        for folder in ("_versions", "_transactions", "_deletions", "_indices", "data"):
            shutil.rmtree(self.path / folder, ignore_errors=True)
        (self.path / checksums.NAME).unlink(missing_ok=True)

    def read(self, name: str) -> np.ndarray:
        """One column over all rows: float32, or float16 where it is stored so."""
        dataset = self.dataset()
        if dataset is None:
            return np.zeros(0, dtype=np.float32)
        check_whole(dataset)
        array = dataset.to_table(columns=[name])[name].combine_chunks()
        if isinstance(array, pa.ChunkedArray):  # zero chunks
            array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], array.type)
        width = array.type.list_size if pa.types.is_fixed_size_list(array.type) else None
        flat = np.asarray((array if width is None else array.flatten()).to_numpy(zero_copy_only=False))
        if flat.dtype == np.uint16:
            flat = from_bfloat16(flat)
        return flat if width is None else flat.reshape(-1, width)

    def _to_arrow(self, name: str, values: np.ndarray, ids: Sequence[str]) -> pa.Array:
        if values.ndim == 1:
            return pa.array(values.astype(np.float32, copy=False))
        if name not in VECTORS:
            raise ValueError(f"{name}: got {values.ndim} dimensions, expected one value per row")
        dtype = str(self.key.columns[name].get("dtype", "float16"))
        stored, bad = _narrowed(values, dtype)
        if bad.any():
            row = int(np.argmax(bad))
            raise InputError(
                f"features: {name} of sample {ids[row]!r} reaches {float(np.abs(values[row]).max()):.3g}, more than "
                f"{dtype} holds; set features.dtype to {'float32' if dtype == 'bfloat16' else 'bfloat16 or float32'}"
            )
        return pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(stored).reshape(-1)), values.shape[1])


def has_table(path: Path) -> bool:
    """Whether a table was ever committed there; a process killed before leaves folders only."""
    return any((path / "_versions").glob("*.manifest"))


def to_bfloat16(values: np.ndarray) -> np.ndarray:
    """Bits of float32 numbers rounded to the nearest bfloat16, ties to even, as uint16."""
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    rounded = ((bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)).astype(np.uint16)
    return np.where(np.isnan(values), np.uint16(0x7FC0), rounded)


def from_bfloat16(bits: np.ndarray) -> np.ndarray:
    """Float32 numbers of bfloat16 bits; exact."""
    return np.asarray((bits.astype(np.uint32) << np.uint32(16)).view(np.float32))


def _narrowed(values: np.ndarray, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """The values in their type on disk, and which rows do not fit it."""
    if dtype == "bfloat16":
        stored = to_bfloat16(values)
        finite = np.isfinite(from_bfloat16(stored))
    else:
        with np.errstate(over="ignore"):
            stored = values.astype(dtype)
        finite = np.isfinite(stored)
    return stored, (np.isfinite(values) & ~finite).any(axis=1)
