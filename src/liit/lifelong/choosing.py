"""The stage that chooses what a step trains on: a method's selectors on the pool's features."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from liit.config import Continuum
from liit.data.pool import Pool
from liit.errors import InputError
from liit.features import FeatureStore
from liit.lifelong.methods import PRUNER_NEEDS, Method, Part
from liit.lifelong.rundir import read_table, write_json, write_table
from liit.lifelong.workbench import derived_seed
from liit.selection import Selection, select, spherical_kmeans

Facts = dict[str, Any]


@dataclass(frozen=True)
class QueryFeatures:
    """Examples of what the model should be good at.

    Attributes:
        columns: feature columns of the queries, one row each.
        groups: the skill (or source) of each.
    """

    columns: Mapping[str, Any]
    groups: Sequence[str]


@dataclass(frozen=True)
class Candidates:
    """What may be chosen at a step.

    Attributes:
        ids: in ingestion order.
        new: which of them came with the step.
        features: the feature store, for methods that need one.
        queries: for selectors that need them.
    """

    ids: Sequence[str]
    new: Sequence[bool]
    features: Path | None = None
    queries: QueryFeatures | None = None


def select_step(
    method: Method, continuum: Continuum, pool: Pool, candidates: Candidates, number: int, out: Path
) -> Facts:
    """Choose what to train on and write why.

    Args:
        method: names the selectors.
        continuum: budget, seed and selection settings.
        pool: for sources and skills.
        candidates: what may be chosen.
        number: of the step.
        out: directory that gets selection.parquet, selection.json and labels.parquet.

    Raises:
        InputError: nothing to choose from, or a selector refuses what it is given.
    """
    rows = np.flatnonzero(candidates.new) if method.new_only else np.arange(len(candidates.ids))
    budget = len(rows) if method.once else continuum.budget_at(number)
    columns = _columns(pool, candidates)
    seed = derived_seed(continuum.seed, number, "select")
    if method.replay is None:
        selection = _chosen(method.part, continuum, _taken(columns, candidates, rows), candidates.queries, budget, seed)
        selection = _numbered(selection, rows)
    else:
        selection = _with_replay(method, continuum, columns, candidates, budget, number)
    facts = write_selection(selection, method.name, budget, pool, [candidates.ids[int(row)] for row in rows], out)
    if method.prunes and (selection.labels is None or len(rows) < len(candidates.ids)):
        # the pruner compares within clusters, and needs one for every sample
        settings, seed = continuum.selection, derived_seed(continuum.seed, number, "prune")
        labels = spherical_kmeans(columns[PRUNER_NEEDS], settings.k, settings.k_grid, seed).labels
        write_labels(out / "labels.parquet", candidates.ids, labels)
    return facts


def _with_replay(
    method: Method, continuum: Continuum, columns: Mapping[str, Any], candidates: Candidates, budget: int, number: int
) -> Selection:
    """New samples by one selector, samples of earlier steps by another; each side fills up what the other lacks."""
    assert method.replay is not None
    new = np.asarray(candidates.new, dtype=bool)
    sides = {"select": np.flatnonzero(new), "select-replay": np.flatnonzero(~new)}
    wanted = int(np.floor(method.replay.share * budget + 0.5))
    old = min(max(wanted, budget - len(sides["select"])), len(sides["select-replay"]))
    shares = {"select": budget - old, "select-replay": old}
    found = {}
    for (purpose, rows), part in zip(sides.items(), method.parts, strict=True):
        seed = derived_seed(continuum.seed, number, purpose)
        taken = _taken(columns, candidates, rows)
        chosen = _chosen(part, continuum, taken, candidates.queries, shares[purpose], seed)
        found[purpose] = _numbered(chosen, rows)
    return _joined(found["select"], found["select-replay"])


def _columns(pool: Pool, candidates: Candidates) -> Mapping[str, Any]:
    """What selectors may read; a stored column is read from disk when it is asked for, and only then."""
    table = pool.columns(["id", "source"]).to_pydict()
    sources = dict(zip(table["id"], table["source"], strict=True))
    own: dict[str, Any] = {
        "id": np.asarray(candidates.ids, dtype=str),
        "source": np.asarray([sources[sample] for sample in candidates.ids], dtype=str),
        "new": np.asarray(candidates.new, dtype=bool),
    }
    stored: Any = {} if candidates.features is None else FeatureStore(candidates.features).view(candidates.ids)
    return ChainMap(own, stored)


class _Rows(Mapping[str, Any]):
    """Some rows of columns, taken when a column is asked for."""

    def __init__(self, columns: Mapping[str, Any], rows: np.ndarray) -> None:
        self._columns, self._rows = columns, rows

    def __getitem__(self, name: str) -> Any:
        return self._columns[name][self._rows]

    def __contains__(self, name: object) -> bool:
        return name in self._columns

    def __iter__(self) -> Any:
        return iter(self._columns)

    def __len__(self) -> int:
        return len(self._columns)


def _taken(columns: Mapping[str, Any], candidates: Candidates, rows: np.ndarray) -> Mapping[str, Any]:
    return columns if len(rows) == len(candidates.ids) else _Rows(columns, rows)


def _chosen(
    part: Part, continuum: Continuum, columns: Mapping[str, Any], queries: QueryFeatures | None, budget: int, seed: int
) -> Selection:
    options = part.settings(continuum)
    if part.targeted:
        if queries is None:
            raise InputError(f"{part.selector} needs queries, and there are none at this step")
        options |= {"queries": queries.columns}
        if "groups" in part.info.options:
            options |= {"groups": list(queries.groups)}
    return select(part.selector, columns, budget, seed, **options)


def _numbered(selection: Selection, rows: np.ndarray) -> Selection:
    """The same selection with row numbers among all candidates."""
    numbers = rows[selection.rows]
    place = selection.table.schema.get_field_index("row")
    numbered = pa.array(rows[selection.table["row"].to_numpy()], pa.int64())
    table = selection.table.set_column(place, "row", numbered)
    return Selection(selection.ids, numbers, table, selection.info, selection.labels)


def _joined(new: Selection, replayed: Selection) -> Selection:
    table = pa.concat_tables([new.table, replayed.table]).sort_by("row")
    rows = np.concatenate([new.rows, replayed.rows])
    order = np.argsort(rows)
    ids = np.concatenate([np.asarray(new.ids, str), np.asarray(replayed.ids, str)])[order]
    info = {**new.info, "new": len(new), "replayed": len(replayed), "replay": replayed.info}
    return Selection(ids, rows[order], table, info)


def write_selection(
    selection: Selection, method: str, budget: int, pool: Pool, candidates: Sequence[str], out: Path
) -> Facts:
    """Write a selection with the sources and skills of its rows; the skill is for reports only.

    Args:
        selection: what was chosen.
        method: its name.
        budget: how many were wanted.
        pool: for sources and skills.
        candidates: ids that the rows of the selection's labels belong to.
        out: directory that gets selection.parquet, selection.json and, from a selector that clusters, labels.parquet.

    Returns:
        Samples in the pool, candidates that could be chosen of it, and samples to be trained on.
    """
    out.mkdir(parents=True, exist_ok=True)
    table = pool.columns(["id", "source", "skill"])
    place = {sample: row for row, sample in enumerate(table["id"].to_pylist())}
    rows = pa.array([place[i] for i in selection.table["id"].to_pylist()], pa.int64())
    described = selection.table
    for name in ("source", "skill"):
        described = described.append_column(name, table[name].take(rows))
    write_table(out / "selection.parquet", described)
    if selection.labels is not None:
        write_labels(out / "labels.parquet", candidates, selection.labels)
    facts = {
        "method": method,
        "budget": budget,
        "pool_size": len(pool),
        "candidates": len(candidates),
        "trained": len(selection),
    }
    write_json(out / "selection.json", {**facts, "selector": selection.info})
    return facts


def write_labels(path: Path, ids: Sequence[str], labels: np.ndarray) -> None:
    """Write the cluster of every candidate."""
    write_table(path, pa.table({"id": pa.array(list(ids), pa.string()), "cluster": pa.array(labels)}))


def read_labels(path: Path) -> tuple[list[str], np.ndarray]:
    """Ids and clusters of a file of labels, in its order.

    Raises:
        InputError: not a file of labels.
    """
    try:
        table = read_table(path, ["id", "cluster"])
        return table["id"].to_pylist(), table["cluster"].to_numpy()
    except (OSError, pa.ArrowException, KeyError, ValueError) as error:
        raise InputError(f"labels: cannot read {path} ({error}); expected a labels.parquet") from error


def read_selection(path: Path) -> list[str]:
    """Ids of a selection file, in its order.

    Raises:
        InputError: not a selection.
    """
    try:
        ids: list[str] = read_table(path, ["id"])["id"].to_pylist()
    except (OSError, pa.ArrowException, KeyError, ValueError) as error:
        raise InputError(f"selection: cannot read {path} ({error}); expected a selection.parquet") from error
    return ids
