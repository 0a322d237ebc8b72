"""Parquet: rows of any layout; written back with the schema, metadata and values they had.

A row's text in the pool is JSON. What JSON has no word for is kept in words it has, chosen by the column's type, so
that the way back is exact: times and durations as integers, decimals as text, bytes as base64, images by their hash.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from liit.data.containers.rows import Fetch, HeldImage, Meter, Row
from liit.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa

_READ_ROWS = 128
_WRITE_ROWS, _WRITE_BYTES = 4096, 1 << 26


class Parquet:
    """The container of `.parquet` files."""

    name = "parquet"
    suffixes = (".parquet",)

    def read(self, path: Path, meter: Meter) -> Iterator[Row]:
        """Stream the rows."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        number = 0
        try:
            size = path.stat().st_size
            with pq.ParquetFile(path) as file:
                plain = _plain_schema(file.schema_arrow)
                total = max(1, file.metadata.num_rows)
                for batch in file.iter_batches(batch_size=_READ_ROWS):
                    for value in pa.Table.from_batches([batch]).cast(plain).to_pylist():
                        number += 1
                        yield Row(number, number, "", value)
                    meter.bytes = size * number // total
        except (pa.ArrowException, OSError, ValueError) as error:
            if isinstance(error, InputError):
                raise
            detail = " ".join(str(error).split())[:200]
            raise InputError(f"path: {str(path)!r} is not readable Parquet after row {number}: {detail}") from error

    def schema(self, path: Path) -> bytes | None:
        """The columns with their types and metadata, as Arrow writes a schema."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            return bytes(pq.read_schema(path).serialize().to_pybytes())
        except (pa.ArrowException, OSError, ValueError) as error:
            detail = " ".join(str(error).split())[:200]
            raise InputError(f"path: {str(path)!r} is not readable Parquet: {detail}") from error

    def keep(self, row: Row, images: Sequence[HeldImage]) -> str:
        """The row as JSON; the bytes of its images are named by hash."""
        held = {image.sha256 for image in images}

        def plain(value: object) -> object:
            if not isinstance(value, bytes):
                return str(value)
            if len(value) > 64 and (sha256 := hashlib.sha256(value).hexdigest()) in held:
                return {"sha256": sha256, "bytes": len(value)}
            return {"base64": base64.b64encode(value).decode("ascii")}

        return json.dumps(row.value, ensure_ascii=False, default=plain)

    def writer(self, path: Path, schema: bytes | None) -> ParquetWriter:
        """Start a file with these columns."""
        import pyarrow as pa

        assert schema is not None, "Parquet rows have columns"
        return ParquetWriter(path, pa.ipc.read_schema(pa.py_buffer(schema)))


class ParquetWriter:
    """Writes rows under one schema."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        import pyarrow.parquet as pq

        self._schema, self._plain = schema, _plain_schema(schema)
        self._file = pq.ParquetWriter(path, schema)
        self._rows: list[Mapping[str, Any]] = []
        self._size = 0

    def raw(self, text: str, fetch: Fetch) -> None:
        """Write a row with the values it had."""
        row = json.loads(text)
        self._take({field.name: _restored(row.get(field.name), field.type, fetch) for field in self._plain}, len(text))

    def value(self, row: Mapping[str, Any], images: Sequence[tuple[str, bytes]] = ()) -> None:
        """Write a row."""
        assert not images, "Parquet has nothing beside its rows"
        self._take(row, sum(len(str(value)) for value in row.values() if not isinstance(value, bytes)))

    def _take(self, row: Mapping[str, Any], size: int) -> None:
        self._rows.append(row)
        self._size += size + _image_bytes(row)
        if len(self._rows) >= _WRITE_ROWS or self._size >= _WRITE_BYTES:
            self._flush()

    def _flush(self) -> None:
        import pyarrow as pa

        if self._rows:
            self._file.write_table(pa.Table.from_pylist(self._rows, schema=self._plain).cast(self._schema))
        self._rows, self._size = [], 0

    def close(self) -> None:
        """Finish the file."""
        self._flush()
        self._file.close()


def joined(schemas: Sequence[bytes]) -> bytes:
    """One schema for rows of several files.

    Args:
        schemas: Theirs.

    Returns:
        The one they share, or one with the columns of all; without the files' metadata then, which speak of theirs.

    Raises:
        InputError: A column has types that do not go together.
    """
    import pyarrow as pa

    found = [pa.ipc.read_schema(pa.py_buffer(schema)) for schema in dict.fromkeys(schemas)]
    if len(found) == 1:
        return schemas[0]
    try:
        both = pa.unify_schemas([schema.remove_metadata() for schema in found], promote_options="permissive")
    except pa.ArrowException as error:
        raise InputError(
            f"ids: the rows come from Parquet files whose columns do not go together ({' '.join(str(error).split())}); "
            "write the rows of each file by themselves"
        ) from error
    return bytes(both.serialize().to_pybytes())


def with_image_features(schema: pa.Schema) -> bytes:
    """A schema with the note from which `datasets` knows that `{bytes, path}` columns are images.

    Args:
        schema: The columns.

    Returns:
        The schema as Arrow writes it.
    """
    note = {"info": {"features": {field.name: _feature(field.type) for field in schema}}}
    return bytes(schema.with_metadata({"huggingface": json.dumps(note)}).serialize().to_pybytes())


def _feature(type: pa.DataType) -> Any:
    import pyarrow as pa

    if pa.types.is_list(type):
        return [_feature(type.value_type)]
    if pa.types.is_struct(type):
        if {field.name for field in type} == {"bytes", "path"}:
            return {"_type": "Image"}
        return {field.name: _feature(field.type) for field in type}
    return {"dtype": str(type), "_type": "Value"}


def _plain_schema(schema: pa.Schema) -> pa.Schema:
    import pyarrow as pa

    return pa.schema([pa.field(field.name, _plain(field.type)) for field in schema])


def _plain(type: pa.DataType) -> pa.DataType:
    """The type JSON can hold (and bytes), to which and from which Arrow converts exactly."""
    import pyarrow as pa

    if pa.types.is_list(type) or pa.types.is_large_list(type) or pa.types.is_fixed_size_list(type):
        return pa.large_list(_plain(type.value_type)) if pa.types.is_large_list(type) else pa.list_(
            _plain(type.value_type), -1 if pa.types.is_list(type) else type.list_size
        )  # fmt: skip
    if pa.types.is_struct(type):
        return pa.struct([pa.field(field.name, _plain(field.type)) for field in type])
    if pa.types.is_dictionary(type):
        return _plain(type.value_type)
    if pa.types.is_decimal(type):
        return pa.string()
    if pa.types.is_temporal(type) and not pa.types.is_interval(type):
        return pa.int32() if type.bit_width == 32 else pa.int64()
    return type


def _restored(value: Any, type: pa.DataType, fetch: Fetch) -> Any:
    import pyarrow as pa

    if value is None:
        return None
    if pa.types.is_binary(type) or pa.types.is_large_binary(type) or pa.types.is_fixed_size_binary(type):
        return fetch(value["sha256"]) if "sha256" in value else base64.b64decode(value["base64"])
    if pa.types.is_struct(type):
        return {field.name: _restored(value.get(field.name), field.type, fetch) for field in type}
    if pa.types.is_list(type) or pa.types.is_large_list(type) or pa.types.is_fixed_size_list(type):
        return [_restored(item, type.value_type, fetch) for item in value]
    if pa.types.is_map(type):
        return [tuple(_restored(v, t, fetch) for v, t in zip(item, (type.key_type, type.item_type), strict=True))
                for item in value]  # fmt: skip
    return value


def _image_bytes(value: Any) -> int:
    if isinstance(value, bytes):
        return len(value)
    if isinstance(value, Mapping):
        return sum(map(_image_bytes, value.values()))
    return sum(map(_image_bytes, value)) if isinstance(value, list) else 0
