"""What comes out: the selected rows, and why."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from liit.selection.arrays import AnyArray, Floats, Ints
from liit.selection.problem import Problem

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Selection:
    """A selection of rows with its reasons.

    Attributes:
        ids: ids of the selected rows, in the order of `rows`; row numbers when the features have no ids.
        rows: int64 row numbers, sorted, unique, exactly min(budget, N) of them.
        table: one row per selected row, in that order: `id`, `row`, `cluster` (null for methods without clusters),
            `expert` (the score that decided), `score`, `rank` (1 is best; within the cluster for `adapt-inf`, overall
            otherwise; null without a score) and `reason`, a sentence. With `explain="all"` the rows left out follow in
            row order among them, and a column `selected` tells which is which.
        info: what was decided on the way; can be written as JSON.
        labels: int64 [N], the cluster of every row; None for methods without clusters.
    """

    ids: AnyArray
    rows: Ints
    table: pa.Table
    info: dict[str, Any]
    labels: Ints | None = None

    def __len__(self) -> int:
        return len(self.rows)


Reasons = Callable[[Ints], list[str]]


@dataclass
class Choice:
    """A selector's answer in canonical positions; `select` turns it into a `Selection`.

    Attributes:
        chosen: positions, unique, exactly the budget.
        why: sentences for chosen positions.
        why_not: sentences for positions left out.
        score: float64 [N], NaN where there is none.
        rank: int64 [N], 0 where there is none.
        expert: str [N] or one name for all; "" for none.
        cluster: int64 [N].
        info: JSON-serialisable.
    """

    chosen: Ints
    why: Reasons
    why_not: Reasons
    score: Floats | None = None
    rank: Ints | None = None
    expert: AnyArray | str = ""
    cluster: Ints | None = None
    info: dict[str, Any] = field(default_factory=dict)


def finish(problem: Problem, choice: Choice, explain_all: bool) -> Selection:
    """Translate positions to rows and write the table."""
    order = problem.order
    rows = np.sort(order[choice.chosen])
    labels = None
    if choice.cluster is not None:
        labels = np.empty(problem.n, dtype=np.int64)
        labels[order] = choice.cluster
    chosen = np.zeros(problem.n, dtype=bool)
    chosen[choice.chosen] = True
    listed = np.arange(problem.n) if explain_all else np.flatnonzero(chosen)
    listed = listed[np.argsort(order[listed], kind="stable")].astype(np.int64)
    table = _table(problem, choice, listed, chosen, explain_all)
    return Selection(problem.ids[rows], rows, table, choice.info, labels)


def _table(problem: Problem, choice: Choice, listed: Ints, chosen: AnyArray, explain_all: bool) -> pa.Table:
    import pyarrow as pa

    count = len(listed)
    kept = chosen[listed]
    reasons = np.empty(count, dtype=object)
    reasons[kept] = choice.why(listed[kept])
    if explain_all:
        reasons[~kept] = choice.why_not(listed[~kept])
    score = np.full(count, np.nan) if choice.score is None else choice.score[listed]
    rank = np.zeros(count, dtype=np.int64) if choice.rank is None else choice.rank[listed]
    expert = np.full(count, choice.expert) if isinstance(choice.expert, str) else choice.expert[listed]
    cluster = np.zeros(count, dtype=np.int64) if choice.cluster is None else choice.cluster[listed]
    types = {"i": pa.int64(), "u": pa.uint64()}
    rows = problem.order[listed]
    ids = problem.ids[rows]
    columns = {
        "id": pa.array(ids.tolist(), types.get(ids.dtype.kind, pa.string())),
        "row": pa.array(rows, pa.int64()),
        "cluster": pa.array(cluster, pa.int64(), mask=np.full(count, choice.cluster is None)),
        "expert": pa.array([str(e) or None for e in expert], pa.string()),
        "score": pa.array(score, pa.float64(), mask=np.isnan(score)),
        "rank": pa.array(rank, pa.int64(), mask=rank == 0),
        "reason": pa.array(reasons.tolist(), pa.string()),
    }
    if explain_all:
        columns["selected"] = pa.array(kept, pa.bool_())
    return pa.table(columns)
