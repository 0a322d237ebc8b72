"""What the ledger says about each sample that leaves the pool."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from liit.data.tables import LEDGER
from liit.errors import InputError

_NEEDED = ("id", "cluster", "neighbour", "similarity")


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
