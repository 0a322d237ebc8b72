"""An extraction that builds on the last step's: rows are taken over where nothing changed, or predicted where some may.

Killed at any moment, the same call goes on: which rows are scored follows from the last step's store, the seed and what
this store holds of the rows drawn first, and these are scored before anything else is decided.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from liit.errors import InputError
from liit.features.key import FeatureKey
from liit.features.rescore import AGE, Earlier, Prediction, draw_rest, draw_sample, lots
from liit.features.store import FeatureStore, open_tables, places_of
from liit.features.table import CONTENT, FeatureTable

if TYPE_CHECKING:
    from liit.config import RescoreSettings
    from liit.features.extraction import Extraction, Listing

SHARD_ROWS = 1024
Progress = Callable[[int], None] | None


def carry(
    work: Extraction,
    earlier: Earlier,
    listing: Listing,
    names: Sequence[str],
    out: Path,
    *,
    refresh: bool,
    progress: Progress,
) -> tuple[str, ...]:
    """Do what is missing with the help of the last step's features; gives the columns of the store.

    Raises:
        InputError: the last step's store is gone, lacks a feature, or holds it under other settings.
    """
    tables = _tables(earlier.features, names)
    differs = _differences(tables, work.key_of(names))
    known = _known(tables[0], listing.ids, listing.contents)
    everything = np.arange(len(listing.ids))
    if not differs:  # the same checkpoint, a proxy's
        work.score(listing, everything[~known], names, out, refresh=refresh, progress=progress)
        old = FeatureStore(earlier.features).view(listing.ids.filter(pa.array(known)).to_pylist())
        carried = _fill(work, listing, everything[known], names, out, lambda name: old[name], progress)
        work.report.carried += carried
        if carried:
            work.report.note(f"{carried} rows keep the last step's features, because the model that scores is the same")
        return tuple(names)
    settings = work.settings.rescore
    if settings is None:
        work.score(listing, everything, names, out, refresh=refresh, progress=progress)
        return tuple(names)
    if differs != ["checkpoint"]:
        raise InputError(
            f"features.rescore: the last step's features at {earlier.features} are those of another "
            f"{', '.join(differs)}; nothing can be predicted from them: set features.rescore to null"
        )
    work.predicted = {"share": settings.share, "sample": settings.sample, "from": tables[0].key.model["checkpoint"]}
    return _Rescoring(work, earlier, listing, (*names, AGE), out, settings).run(
        known, refresh=refresh, progress=progress
    )


def carried_rows(features: Path, last: Path) -> int:
    """How many rows of a store keep what the last step's store has: nothing that their features follow from differs.

    Counted on what lies on disk, so it does not depend on how often the extraction was stopped.

    Args:
        features: the store.
        last: the last step's.
    """
    now, before = open_tables(features), open_tables(last)
    if not now or not before or _differences(before, FeatureStore(features).key):
        return 0
    stored = now[0].rows()
    ids, contents = (stored[name].combine_chunks() for name in ("id", CONTENT))
    return int(_known(before[0], ids, contents).sum())


class _Rescoring:
    """Scores new rows and some of the known ones, and predicts the others."""

    def __init__(
        self,
        work: Extraction,
        earlier: Earlier,
        listing: Listing,
        names: tuple[str, ...],
        out: Path,
        settings: RescoreSettings,
    ) -> None:
        self.work, self.earlier, self.listing = work, earlier, listing
        self.names, self.out, self.settings = names, out, settings

    def run(self, known: np.ndarray, *, refresh: bool, progress: Progress) -> tuple[str, ...]:
        """Do what is missing; gives the columns of the store."""
        work, listing, names = self.work, self.listing, self.names
        rows = np.flatnonzero(known)
        ids: list[str] = listing.ids.take(pa.array(rows)).to_pylist()
        old = FeatureStore(self.earlier.features).view(ids)
        strata = self.earlier.strata(ids)
        lot = lots(ids, work.seed, work.vlm.checkpoint_id)
        age = old[AGE] if AGE in old else np.zeros(len(rows), dtype=np.float32)
        budget = math.ceil(self.settings.share * len(rows))
        first = draw_sample(strata, lot, math.ceil(self.settings.sample * budget))
        scored = np.sort(np.concatenate([np.flatnonzero(~known), rows[first]]))
        work.score(listing, scored, names, self.out, refresh=refresh, progress=progress)
        rest = np.setdiff1d(np.arange(len(rows)), first)
        drift = self._learn(first, ids, strata, old).drift()
        more = rest[draw_rest(strata[rest], lot[rest], age[rest], drift, max(0, budget - len(first)))]
        work.score(listing, rows[more], names, self.out, progress=progress)
        again = np.union1d(first, more)
        prediction = self._learn(again, ids, strata, old)
        left = np.setdiff1d(rest, more)

        def values(name: str) -> np.ndarray:
            return age[left] + 1 if name == AGE else prediction(strata[left], name, old[name][left])

        work.report.predicted += _fill(work, listing, rows[left], names, self.out, values, progress)
        work.report.note(
            f"features.rescore: of {len(rows)} rows known from the last step {len(again)} are scored again and "
            f"{len(left)} predicted"
        )
        return names

    def _learn(
        self, rows: np.ndarray, ids: Sequence[str], strata: np.ndarray, old: Mapping[str, np.ndarray]
    ) -> Prediction:
        """From rows that the store has, as it has them: a run that goes on sees the same numbers."""
        names = [name for name in self.names if name != AGE]
        if not len(rows):
            return Prediction(strata[rows], {}, {})
        new = FeatureStore(self.out).view([ids[row] for row in rows])
        return Prediction(strata[rows], {n: old[n][rows] for n in names}, {n: new[n] for n in names})


def _fill(
    work: Extraction,
    listing: Listing,
    rows: np.ndarray,
    names: Sequence[str],
    out: Path,
    values: Callable[[str], np.ndarray],
    progress: Progress,
) -> int:
    """Append rows whose features are known without the model; how many were missing."""
    count = 0
    scored = work.report.scored
    columns: dict[str, np.ndarray] = {}
    for job in work.plan(listing, rows, names, out):
        columns |= {name: values(name) for name in job.features if name not in columns}
        for start in range(0, len(job.rows), SHARD_ROWS):
            chosen = job.rows[start : start + SHARD_ROWS]
            taken = pa.array(rows[chosen])
            ids, contents = (side.take(taken).to_pylist() for side in (listing.ids, listing.contents))
            shard = {name: np.asarray(columns[name][chosen], dtype=np.float32) for name in job.features}
            for table in job.tables:
                work.report.bytes_written += table.append(ids, contents, shard)
            count += len(chosen)
            if progress is not None:
                progress(len(chosen))
    work.report.scored = scored  # nothing was
    return count


def _tables(path: Path, names: Sequence[str]) -> list[FeatureTable]:
    tables = open_tables(path)
    there = {name for table in tables for name in table.names}
    missing = [name for name in names if name not in there]
    if missing:
        raise InputError(
            f"features: the last step's features at {path} lack {', '.join(missing)}, so nothing can be predicted from "
            "them; bring the directory back, or set features.rescore to null"
        )
    return tables


def _differences(tables: Sequence[FeatureTable], wanted: FeatureKey) -> list[str]:
    """What differs between the last step's key and this one's; whether rows were predicted does not count."""
    found = [part for part in wanted.model if tables[0].key.model.get(part) != wanted.model[part]]
    for table in tables:
        for name in table.names:
            old = {part: value for part, value in table.key.columns[name].items() if part != "predicted"}
            if name in wanted.columns and old != dict(wanted.columns[name]):
                found.append(name)
    return found


def _known(table: FeatureTable, ids: pa.Array, contents: pa.Array) -> np.ndarray:
    """Which samples the table has under the content that they have now; (N,) bool."""
    stored = table.rows()
    places = places_of(ids, stored["id"])
    known = places >= 0
    old = stored[CONTENT].take(pa.array(places[known]))
    known[known] = np.asarray(pc.equal(old, contents.filter(pa.array(known))).to_numpy())
    return known
