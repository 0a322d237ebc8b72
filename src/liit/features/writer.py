"""Writing a feature store: which rows lack which columns, and appending them shard by shard.

A store is written by one process at a time. A row is fresh where a table has it under the content hash that the sample
has now; a row whose content has changed is deleted and computed again. Columns that are asked for later go into a table
of their own, so what is there is never rewritten.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from liit.errors import InputError
from liit.features.key import FeatureKey
from liit.features.report import ExtractionReport
from liit.features.store import ADDED, open_tables, places_of
from liit.features.table import CONTENT, FeatureTable


@dataclass(frozen=True, slots=True)
class Job:
    """Rows that lack the same columns.

    Attributes:
        rows: their numbers among the samples asked for, ascending.
        tables: where their columns go.
    """

    rows: np.ndarray
    tables: tuple[FeatureTable, ...]

    @property
    def features(self) -> tuple[str, ...]:
        """What has to be computed for them."""
        return tuple(name for table in self.tables for name in table.names)


@contextmanager
def only_writer(path: Path) -> Iterator[None]:
    """Be the one process that writes a store; the system frees the lock when the process ends, however it ends.

    Raises:
        InputError: another process is writing, or the directory cannot be written to.
    """
    import fcntl

    existed = path.exists()
    try:
        path.mkdir(parents=True, exist_ok=True)
        file = (path / "lock").open("w")
    except OSError as error:
        raise InputError(f"features: {path} cannot be written to ({error.strerror or error})") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(
                f"features: another process is extracting into {path}; wait for it or name another directory"
            ) from error
        try:
            yield
        finally:
            if not existed and not open_tables(path):  # nothing came of it: leave nothing behind
                with suppress(OSError):
                    (path / "lock").unlink()
                    path.rmdir()


def plan_jobs(
    path: Path,
    features: Sequence[str],
    key_of: Callable[[Sequence[str]], FeatureKey],
    ids: pa.Array,
    contents: pa.Array,
    report: ExtractionReport,
    *,
    refresh: bool = False,
) -> list[Job]:
    """What has to be computed; forgets rows whose content has changed.

    Args:
        path: the store.
        features: what is asked for.
        key_of: the key of some columns under the settings at hand.
        ids: of the samples asked for.
        contents: their content hashes.
        report: is told how many rows are fresh, stale and to be scored.
        refresh: give up a store of another checkpoint or other settings instead of refusing it.

    Raises:
        InputError: the store was written for something else.
    """
    tables = open_tables(path)
    touched = [table for table in tables if set(table.names) & set(features)]
    if tables and (why := _mismatch(tables, touched, key_of)):
        if not refresh:
            raise InputError(
                f"features: {path} was written for another {why}; features of two checkpoints or settings are never "
                "mixed: name another directory, or ask for a refresh, which computes the rows anew"
            )
        report.stale += int((places_of(ids, tables[0].rows()["id"]) >= 0).sum())
        for table in reversed(tables):  # the first one last: without it the others would seem to be the store
            table.destroy()
        tables = touched = []
    there = {name for table in tables for name in table.names}
    if missing := [name for name in features if name not in there]:
        folder = path / ADDED / str(_next_number(path)) if tables else path
        touched = [*touched, FeatureTable(folder, key_of(missing))]
    lacking = np.zeros((len(touched), len(ids)), dtype=bool)
    stale = np.zeros(len(ids), dtype=bool)
    for number, table in enumerate(touched):
        lacking[number], changed = _lacking(table, ids, contents)
        stale |= changed
    report.rows, report.stale = len(ids), report.stale + int(stale.sum())
    report.scored = int(lacking.any(0).sum())
    report.fresh = report.rows - report.scored
    return _grouped(lacking, touched)


def _mismatch(
    tables: Sequence[FeatureTable], touched: Sequence[FeatureTable], key_of: Callable[[Sequence[str]], FeatureKey]
) -> str:
    """What differs between the store and what is asked for; empty when nothing does."""
    model = key_of([]).model
    differs = [name for name in model if model[name] != tables[0].key.model.get(name)]
    for table in touched:
        wanted = key_of(table.names)
        for name in table.names:
            old, new = table.key.columns[name], wanted.columns[name]
            differs += [f"{part} of {name}" for part in {**old, **new} if old.get(part) != new.get(part)]
    return ", ".join(dict.fromkeys(differs))


def _next_number(path: Path) -> int:
    return 1 + max((int(p.name) for p in (path / ADDED).glob("*") if p.name.isdigit()), default=0)


def _lacking(table: FeatureTable, ids: pa.Array, contents: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """Which samples the table lacks, and for which it had another content; those are deleted from it."""
    stored = table.rows()
    places = places_of(ids, stored["id"])
    found = places >= 0
    changed = np.zeros(len(ids), dtype=bool)
    if found.any():
        old = stored[CONTENT].take(pa.array(places[found]))
        new = contents.filter(pa.array(found))
        changed[found] = np.asarray(pa.compute.not_equal(old, new).to_numpy())
    if changed.any():
        table.delete(ids.filter(pa.array(changed)).to_pylist())
    return ~found | changed, changed


def _grouped(lacking: np.ndarray, tables: Sequence[FeatureTable]) -> list[Job]:
    """Rows that lack the same tables together, in the order in which the groups first occur."""
    any_lacking = np.flatnonzero(lacking.any(0))
    if not len(any_lacking):
        return []
    patterns, first, member = np.unique(lacking[:, any_lacking], axis=1, return_index=True, return_inverse=True)
    return [
        Job(any_lacking[member.reshape(-1) == p], tuple(t for t, on in zip(tables, patterns[:, p], strict=True) if on))
        for p in np.argsort(first)
    ]
