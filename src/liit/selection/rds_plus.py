"""RDS+ (Ivison et al. 2025): cosine of position-weighted last hidden states to queries, round robin over them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from liit.errors import InputError
from liit.selection.arrays import AnyArray, Floats, Ints, as_array
from liit.selection.blocks import UnitRows, product
from liit.selection.options import as_count, as_flag, one_of
from liit.selection.problem import Problem
from liit.selection.queries import Queries, read_queries
from liit.selection.ranking import best_first, take
from liit.selection.registry import register_selector
from liit.selection.result import Choice

MODES = ("round-robin", "max", "mean-max")
FEATURE = "last_hidden_weighted"

_NEVER = np.iinfo(np.int64).max


def round_robin(similarity: npt.ArrayLike, n: int, spend_turn: bool = True) -> Ints:
    """Let queries take turns, each taking the item most similar to it (RDS+, Algorithm 1).

    The printed algorithm removes an item only for the query that took it and removes duplicates afterwards. As in the
    official code, a query whose next item is already taken spends its turn on it; `spend_turn=False` lets it go on to
    its next free item instead, which gives another selection.

    Args:
        similarity: [V, N], queries by items; NaN comes last.
        n: items wanted.
        spend_turn: whether an item taken by another query costs the turn.

    Returns:
        int64 item numbers in order of selection, min(n, N) of them; ties go to the lower number.

    Raises:
        InputError: not [V, N], no query, infinite values, or n negative.
    """
    table = as_array(similarity, "similarity")
    if table.ndim != 2 or table.dtype.kind not in "fiub" or np.isinf(table).any():
        raise InputError(f"similarity must be finite numbers of shape [V, N], got {table.dtype} {list(table.shape)}")
    wanted, spend_turn = min(as_count(n, "n"), table.shape[1]), as_flag(spend_turn, "spend_turn")
    if not wanted:
        return np.zeros(0, dtype=np.int64)
    if not len(table):
        raise InputError("similarity must have at least one row (a query), got none")
    tie = np.arange(table.shape[1], dtype=np.int64)
    if not spend_turn:
        return _without_spending([_descending(row, tie) for row in table], wanted)
    return np.argsort(_turns(iter(table), len(table), tie), kind="stable")[:wanted]


def _descending(row: AnyArray, tie: Ints) -> Ints:
    values = row.astype(np.float64)
    known = ~np.isnan(values)
    return np.lexsort((tie, -np.where(known, values, 0.0), ~known)).astype(np.int64)


def _turns(rows: Iterator[AnyArray], count: int, tie: Ints) -> Ints:
    """The turn at which each item is first somebody's next: rank * V + v, least over the queries v.

    With spent turns this is all there is to Algorithm 1, and it needs one row of the similarity at a time.
    """
    turn = np.full(len(tie), _NEVER, dtype=np.int64)
    own = np.empty(len(tie), dtype=np.int64)
    for v, row in enumerate(rows):
        own[_descending(row, tie)] = np.arange(len(tie)) * count + v
        np.minimum(turn, own, out=turn)
    return turn


def _without_spending(lists: list[Ints], wanted: int) -> Ints:
    taken = np.zeros(len(lists[0]), dtype=bool)
    heads = [0] * len(lists)
    out: list[int] = []
    while len(out) < wanted:
        for v, items in enumerate(lists):
            while heads[v] < len(items) and taken[items[heads[v]]]:
                heads[v] += 1
            if heads[v] < len(items) and len(out) < wanted:
                taken[items[heads[v]]] = True
                out.append(int(items[heads[v]]))
    return np.array(out, dtype=np.int64)


@register_selector(
    "rds-plus",
    needs=(FEATURE,),
    description="targeted: cosine of weighted last hidden states to queries, round robin over queries or sub-tasks",
)
def rds_plus(
    problem: Problem,
    *,
    queries: Any = None,
    groups: npt.ArrayLike | None = None,
    mode: str = "round-robin",
    spend_turn: bool = True,
    memory: int = 512 << 20,
) -> Choice:
    """Select what is most similar to the queries.

    S[v, x] = cos(query v, row x); with groups S'[t, x] = max over the queries v of sub-task t.

    Args:
        problem: feature `last_hidden_weighted` [N, d], budget, seed.
        queries: the same feature of the target examples, [V, d], or a mapping that has it.
        groups: sub-task of each query, [V].
        mode: "round-robin" (the paper, Algorithm 1), over sub-tasks if there are groups; "max": the largest similarity
            to any query, globally (what the official `get_top_optimized.py` does); "mean-max": mean over sub-tasks of
            S'.
        spend_turn: see `round_robin`.
        memory: bytes for the block of similarities held at a time.

    Returns:
        The choice; score is the largest similarity ("mean-max": the mean). Rows without the feature come last.

    Raises:
        InputError: queries or options malformed.
    """
    one_of(mode, "mode", MODES)
    limit, spend_turn = as_count(memory, "memory", minimum=1), as_flag(spend_turn, "spend_turn")
    if not problem.n:
        return take(problem, np.zeros(0, dtype=np.int64), np.zeros(0), "cosine", "similarity to the queries")
    rows = problem.unit_rows(FEATURE)
    asked = read_queries(queries, groups, FEATURE, rows.dim)
    count = len(asked.vectors) if asked.groups is None else int(asked.groups.max()) + 1
    largest, total = np.full(problem.n, -np.inf), np.zeros(problem.n)
    turn = np.full(problem.n, _NEVER, dtype=np.int64)
    lists: list[Ints] = []
    for v, row in enumerate(_similarities(rows, asked, limit)):
        np.maximum(largest, row, out=largest)
        total += row
        if mode == "round-robin":
            items = _descending(np.where(rows.missing, np.nan, row), problem.arrival)
            lists.append(items)
            if spend_turn:
                turn[items] = np.minimum(turn[items], np.arange(problem.n) * count + v)
                lists.clear()
    score = np.where(rows.missing, np.nan, total / count if mode == "mean-max" else largest)
    if mode != "round-robin":
        sequence = best_first(problem, score)
    else:
        inside = int((~rows.missing).sum())
        first = np.argsort(turn, kind="stable") if spend_turn else _without_spending(lists, problem.n)
        first = first[~rows.missing[first]]
        sequence = np.concatenate((first, best_first(problem, score)[inside:]))
    what = "mean similarity to the sub-tasks" if mode == "mean-max" else "similarity to the nearest query"
    choice = take(problem, sequence, score, "cosine", f"{what} ({mode})")
    choice.info |= {"mode": mode, "queries": len(asked.vectors), "turns": count, "queries_missing": asked.missing}
    return choice


def _similarities(rows: UnitRows, asked: Queries, memory: int) -> Iterator[Floats]:
    """One row of S (or S' with groups) at a time, in float64: the order of near ties decides."""
    lengths = np.linalg.norm(asked.vectors, axis=1, keepdims=True)
    units = asked.vectors / np.where(lengths > 0, lengths, 1.0)
    groups = np.arange(len(units)) if asked.groups is None else asked.groups
    units = units[np.argsort(groups, kind="stable")]
    sizes = np.bincount(groups)
    ends = np.cumsum(sizes)
    fit = max(1, memory // (8 * len(rows)))
    for first in range(0, len(sizes), fit):
        last = min(first + fit, len(sizes))
        offset = int(ends[first] - sizes[first])
        batch = units[offset : int(ends[last - 1])]
        starts = ends[first:last] - sizes[first:last] - offset
        held = np.empty((last - first, len(rows)))
        for part in rows.parts():
            held[:, part] = np.maximum.reduceat(product(batch, rows.unit64(part)), starts, axis=0)
        yield from np.round(held, 9)  # equal rows need not have equal last bits
