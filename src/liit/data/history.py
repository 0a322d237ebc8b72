"""What changed between two versions of a pool, and where one sample is or went."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from liit.errors import InputError

if TYPE_CHECKING:
    from liit.data.pool import Pool


@dataclass(frozen=True, slots=True)
class Difference:
    """What lies between two versions of a pool.

    Args:
        old: The one version.
        new: The other.
        rows: Samples in each.
        added: id and source of each sample that only the new one has, in ingestion order.
        removed: id and source of each that only the old one has, and what the ledger says about it: step, cluster,
            neighbour, similarity, reason (null where it says nothing).
        quarantined: Rows in the new one's quarantine less those in the old one's.
    """

    old: int
    new: int
    rows: tuple[int, int]
    added: pa.Table
    removed: pa.Table
    quarantined: int

    def by_source(self, what: str) -> dict[str, int]:
        """How many samples were added or removed ("added", "removed"), per source."""
        return dict(sorted(Counter(getattr(self, what)["source"].to_pylist()).items()))


def difference(pool: Pool, old: int, new: int) -> Difference:
    """Compare two versions. Samples are told by their row numbers, which are never given twice.

    Args:
        pool: The pool.
        old: A version.
        new: Another, older or newer.

    Returns:
        The difference.

    Raises:
        InputError: There is no such version (any more).
    """
    before, after = pool.at(old), pool.at(new)
    rows = [np.concatenate([np.empty(0, np.int64), *(b["row"].to_numpy() for b in each.batches(["row"]))])
            for each in (before, after)]  # fmt: skip
    removed = _named(before, np.setdiff1d(rows[0], rows[1], assume_unique=True))
    ledger = after.ledger() if new >= old else before.ledger()
    place = {row: at for at, row in enumerate(ledger["row"].to_pylist())}  # the last entry of a row that left twice
    at = pa.array([place.get(row) for row in removed["row"].to_pylist()], pa.int64())
    for name in ("step", "cluster", "neighbour", "similarity", "reason"):
        removed = removed.append_column(name, ledger[name].take(at))
    added = _named(after, np.setdiff1d(rows[1], rows[0], assume_unique=True))
    quarantined = after.quarantine().num_rows - before.quarantine().num_rows
    return Difference(
        old, new, (len(before), len(after)), added.drop_columns("row"), removed.drop_columns("row"), quarantined
    )


def _named(pool: Pool, rows: np.ndarray) -> pa.Table:
    wanted = pa.array(rows, pa.int64())

    found = [
        pa.Table.from_batches([batch]).filter(pc.is_in(batch["row"], value_set=wanted))
        for batch in pool.batches(["row", "id", "source"])
    ]
    return pa.concat_tables(found) if found else pool.columns(["row", "id", "source"])


def whereabouts(pool: Pool, id: str) -> dict[str, Any]:
    """Where a sample is: in the pool, in the ledger, or in quarantine.

    Args:
        pool: The pool.
        id: The sample's id.

    Returns:
        state ("in the pool", "removed" or "set aside") and what is known: of a sample its source, skill, format,
        messages, images and raw; of a removed one its entry of the ledger; of a row set aside its entry there.

    Raises:
        InputError: Nobody has heard of it.
    """
    if pool.contains([id])[0]:
        [sample] = pool.take([id])
        images = [{"path": i.path, "sha256": i.sha256, "held": i.held} for i in sample.images]
        talk = [{"role": message.role, "text": message.text} for message in sample.messages]
        row = pool.rows_of([id], ["row", "content_hash"]).to_pylist()[0]
        return {
            "id": id, "state": "in the pool", "row": row["row"], "source": sample.source, "skill": sample.skill,
            "format": sample.format, "messages": talk, "images": images, "content_hash": row["content_hash"],
            "raw": sample.raw,
        }  # fmt: skip
    for state, table in (("removed", pool.ledger()), ("set aside", pool.quarantine())):
        found = table.filter(pc.equal(table["id"], id)).to_pylist()
        if found:
            return {"id": id, "state": state, **{name: value for name, value in found[-1].items() if name != "id"}}
    raise InputError(f"id: {id!r} is not in the pool {str(pool.path)!r}, its ledger or its quarantine")
