"""GIST (Min et al. 2026): cosine to target gradients inside the subspace that the targets span."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from liit.errors import InputError
from liit.selection.arrays import AnyArray, Floats, Ints, as_labels, as_matrix
from liit.selection.blocks import UnitRows, product
from liit.selection.options import as_count, one_of
from liit.selection.problem import Problem
from liit.selection.queries import read_queries, single64
from liit.selection.ranking import best_first, settled, take
from liit.selection.registry import register_selector
from liit.selection.result import Choice

AGGREGATES = ("example", "subtask")


def gist_scores(
    train: npt.ArrayLike,
    targets: npt.ArrayLike,
    rank: float,
    groups: npt.ArrayLike | None = None,
    aggregate: str = "example",
) -> Floats:
    """Score rows by their best cosine to a target inside the leading subspace of the target gradients.

    G = U S Y^T of the raw target gradients; with the leading k right singular vectors P = Y_k a row has coordinates
    z_i = P^T g_i and a target z_v = P^T g_v; score_i = max_v cos(z_i, z_v) (GIST, equations 14 to 17). The official
    code reaches the same P through the Gram matrix, averages the raw z_v of each sub-task first
    (`aggregate="subtask"`), and takes a fixed k (150) where the paper takes the rank that holds 95 % of the energy.

    Args:
        train: [N, m] gradients or sketches of them; their lengths do not matter. A row with NaN gets NaN.
        targets: [M, m], raw: lengths matter when k is below the number of targets.
        rank: a whole number k, or a share of the energy (squared singular values) above 0 and at most 1: the least k
            that reaches it. k never exceeds the rank of the targets.
        groups: [M] sub-task labels, for aggregate="subtask".
        aggregate: "example" (the paper): the best target; "subtask" (the official code): the best mean of a sub-task.

    Returns:
        float64 [N], between -1 and 1; 0 for a row without a component in the subspace.

    Raises:
        InputError: malformed arrays or options, no targets, or targets that were normalised while k is below their
            number.
    """
    pool = as_matrix(train, "train")
    goal = single64(as_matrix(targets, "targets", None), "targets")
    if goal.shape[1] != pool.shape[1]:
        raise InputError(f"targets must have {pool.shape[1]} columns like train, got {goal.shape[1]}")
    if not len(goal) or np.isnan(goal).any():
        raise InputError(f"targets must be at least one vector without NaN, got shape {list(goal.shape)}")
    numbered = None if groups is None else as_labels(groups, "groups", len(goal))
    return _scores(UnitRows(pool, "train"), goal, rank, numbered, aggregate)[0]


def target_subspace(targets: Floats, rank: float) -> Floats:
    """The leading right singular vectors of the targets, orthonormal columns [m, k].

    Raises:
        InputError: rank neither a whole number of at least 1 nor a share in (0, 1], or normalised targets with k < M.
    """
    _, s, vectors = np.linalg.svd(targets, full_matrices=False)
    full = int((s > s[0] * max(targets.shape) * np.finfo(np.float64).eps).sum()) if s[0] > 0 else 0
    if isinstance(rank, (float, np.floating)):
        if not 0.0 < rank <= 1.0:
            raise InputError(f"rank must be a whole number, or a share of the energy in (0, 1], got {rank!r}")
        energy = np.cumsum(s[:full] ** 2)
        k = int(np.searchsorted(energy, float(rank) * energy[-1] * (1 - 1e-12))) + 1 if full else 0
    else:
        k = as_count(rank, "rank", minimum=1)
    k = min(k, full)
    if k < full and np.abs(np.linalg.norm(targets, axis=1) - 1.0).max() < 1e-3:
        raise InputError(
            f"targets must be raw gradients when rank ({k}) is below their number ({len(targets)}): all have length 1, "
            "and normalising them changes the subspace; give raw ones, or a rank that keeps every direction"
        )
    basis: Floats = vectors[:k].T
    return basis


def _scores(rows: UnitRows, targets: Floats, rank: float, groups: Ints | None, aggregate: str) -> tuple[Floats, int]:
    one_of(aggregate, "aggregate", AGGREGATES)
    if aggregate == "subtask" and groups is None:
        raise InputError("groups must be given with aggregate='subtask': the sub-task of each target")
    basis = np.ascontiguousarray(target_subspace(targets, rank).T)
    targets = targets / max(float(np.abs(targets).max()), np.finfo(np.float64).tiny)
    goals = product(targets, basis) if len(basis) else np.zeros((len(targets), 0))
    if aggregate == "subtask" and groups is not None:
        goals = np.stack([goals[groups == g].mean(axis=0) for g in range(int(groups.max()) + 1)])
    goals = _unit(goals)
    scores = np.zeros(len(rows))
    for part in rows.parts():
        if goals.shape[1]:
            scores[part] = product(_unit(product(rows.unit64(part), basis)), goals).max(axis=1)
    scores[rows.missing] = np.nan
    return scores, len(basis)


def _unit(z: AnyArray) -> Floats:
    lengths = np.linalg.norm(z, axis=1, keepdims=True)
    # a row orthogonal to the subspace leaves rounding noise, which has no direction worth amplifying
    return np.where(lengths > 1e-12, z / np.maximum(lengths, 1e-300), 0.0)


@register_selector(
    "gist",
    needs=("gradient",),
    description="targeted: best cosine to a query gradient inside the leading subspace of the query gradients",
)
def gist(
    problem: Problem,
    *,
    queries: Any = None,
    groups: npt.ArrayLike | None = None,
    rank: float = 0.95,
    aggregate: str = "example",
) -> Choice:
    """Select the rows that `gist_scores` puts first (on sketches: "GIST-on-sketch", an approximation).

    Args:
        problem: feature `gradient` [N, m], budget, seed.
        queries: raw gradients of the target examples with the same sketch, [M, m], or a mapping that has them.
        groups: sub-task of each query, [M].
        rank: see `gist_scores`.
        aggregate: see `gist_scores`.

    Returns:
        The choice. Rows without a gradient come last.

    Raises:
        InputError: as `gist_scores`.
    """
    if not problem.n:
        return take(problem, np.zeros(0, dtype=np.int64), np.zeros(0), "gist", "cosine to the nearest target")
    rows = problem.unit_rows("gradient")
    asked = read_queries(queries, groups, "gradient", rows.dim)
    scores, k = _scores(rows, asked.vectors, rank, asked.groups, aggregate)
    scores = settled(scores)
    choice = take(problem, best_first(problem, scores), scores, "gist", f"cosine to the nearest {aggregate}")
    choice.info |= {"rank": k, "aggregate": aggregate, "queries": len(asked.vectors), "queries_missing": asked.missing}
    return choice
