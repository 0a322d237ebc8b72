"""Removing samples for good: out of the sample table, and into the ledger with when, by which step, and near what."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from liit.data.lance_files import settle_version
from liit.data.lock import write_lock
from liit.data.tables import LEDGER, open_table, settled
from liit.errors import InputError

if TYPE_CHECKING:
    from liit.data.pool import Pool

_DELETE_ROWS = 1 << 14
_NEEDED = ("id", "cluster", "neighbour", "similarity")


def remove(pool: Pool, wanted: list[str], step: str, neighbours: pa.Table | None, message: str) -> int:
    """Remove samples in one commit: see `Pool.remove`."""
    import lance

    with write_lock(pool.path):
        pool.refresh()
        before = _removed_by(pool, step)
        leaving = [id for id, here in zip(wanted, pool.contains(wanted), strict=True) if here or id not in before]
        if not leaving:
            return max((before[id] for id in wanted), default=pool.version)
        known = pool.rows_of(leaving, ["row", "source", "content_hash"])
        rows = removal_rows(known, neighbours, step, pool.version + 1)
        tables = dict(pool.tables)
        ledger = settled(pool.path, "ledger", tables["ledger"])
        new = lance.write_dataset(rows, ledger.uri, schema=LEDGER, mode="append")
        settle_version(new, since=tables["ledger"])
        samples = settled(pool.path, "samples", tables["samples"])
        numbers = sorted(known["row"].to_pylist())
        for start in range(0, len(numbers), _DELETE_ROWS):
            samples.delete(f"row IN ({', '.join(map(str, numbers[start : start + _DELETE_ROWS]))})")
        settle_version(samples, since=tables["samples"])
        left = open_table(pool.path, "samples", samples.version).count_rows()
        if left != len(pool) - len(numbers):
            raise OSError(f"removing {len(numbers)} of {len(pool)} samples left {left}; the table is damaged")
        tables |= {"ledger": new.version, "samples": samples.version}
        pool.commit_tables("remove", message, tables, left, {"removed": len(numbers), "step": step})
    return pool.version


def _removed_by(pool: Pool, step: str) -> dict[str, int]:
    """What a step has removed already: id to the version without it."""
    ledger = open_table(pool.path, "ledger", pool.tables["ledger"])
    quoted = step.replace("'", "''")
    found = ledger.to_table(columns=["id", "version"], filter=f"step = '{quoted}'")
    return dict(zip(found["id"].to_pylist(), found["version"].to_pylist(), strict=True))


def removal_rows(known: pa.Table, neighbours: pa.Table | None, step: str, version: int) -> pa.Table:
    """Rows of the ledger.

    Args:
        known: row, id, source and content_hash of the samples that leave.
        neighbours: Why, as given to `Pool.remove`, or None.
        step: What removes them.
        version: The pool version without them.

    Returns:
        A table with the schema `LEDGER`, in the order of `known`.

    Raises:
        InputError: `neighbours` lacks a column or a sample, has a sample twice, or its types do not fit.
    """
    count = known.num_rows
    columns: dict[str, pa.Array | pa.ChunkedArray] = {
        name: pa.nulls(count, LEDGER.field(name).type) for name in ("cluster", "neighbour", "similarity", "reason")
    }
    if neighbours is not None:
        columns.update(_aligned(known["id"], neighbours))
    columns |= {name: known[name] for name in ("id", "row", "source", "content_hash")}
    columns["step"] = pa.array([step] * count, pa.string())
    columns["version"] = pa.array([version] * count, pa.int64())
    return pa.table({name: columns[name] for name in LEDGER.names}, schema=LEDGER)


def _aligned(ids: pa.ChunkedArray, neighbours: pa.Table) -> dict[str, pa.ChunkedArray]:
    if not isinstance(neighbours, pa.Table):
        raise InputError(f"neighbours: expected a pyarrow Table, got {type(neighbours).__name__}")
    lacking = [name for name in _NEEDED if name not in neighbours.column_names]
    if lacking:
        raise InputError(f"neighbours: column {lacking[0]!r} is missing; expected {', '.join(_NEEDED)}")
    try:
        given = neighbours["id"].cast(pa.string())
        at = pc.index_in(ids.combine_chunks(), value_set=given.combine_chunks())
        if at.null_count:
            first = ids.filter(pc.is_null(at))[0].as_py()
            raise InputError(f"neighbours: no row for {first!r}, which is removed ({at.null_count} such ids)")
        if len(given.unique()) != len(given):
            raise InputError("neighbours: an id has two rows; expected one per removed sample")
        names = [*_NEEDED[1:], *(["reason"] if "reason" in neighbours.column_names else [])]
        return {name: neighbours[name].take(at).cast(LEDGER.field(name).type) for name in names}
    except pa.ArrowException as error:
        raise InputError(f"neighbours: a column has the wrong type: {' '.join(str(error).split())[:160]}") from error
