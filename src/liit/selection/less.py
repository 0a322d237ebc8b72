"""LESS (Xia et al. 2024): influence on sub-tasks as cosine of preconditioned gradient sketches over checkpoints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from liit.errors import InputError
from liit.selection.arrays import Floats, as_array
from liit.selection.blocks import product
from liit.selection.options import as_count, as_names
from liit.selection.problem import Problem
from liit.selection.queries import read_queries
from liit.selection.ranking import best_first, settled, take
from liit.selection.registry import register_selector
from liit.selection.result import Choice


def adam_direction(
    gradient: npt.ArrayLike,
    first: npt.ArrayLike,
    second: npt.ArrayLike,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
    step: int | None = None,
) -> Floats:
    """The step Adam would take for one sample, up to the learning rate (LESS, section 3.1).

    m' = b1 m + (1 - b1) g, v' = b2 v + (1 - b2) g^2, m' / sqrt(v' + eps). Applied to full gradients of pool samples
    before they are sketched; queries stay plain gradients. As in the official code m' and v' are not corrected for
    their start at zero, unless `step` is given: then they are divided by 1 - b1^t and 1 - b2^t first.

    Args:
        gradient: [N, P] or [P].
        first: [P], the optimiser's first moment m.
        second: [P], the optimiser's second moment v, at least 0.
        beta1: decay of the first moment.
        beta2: decay of the second moment.
        eps: added under the root.
        step: t, the number of the step that would be taken, 1 for the first; None: no bias correction.

    Returns:
        float64, the shape of `gradient`.

    Raises:
        InputError: shapes that do not fit, or a negative second moment.
    """
    named = {"gradient": gradient, "first": first, "second": second}
    arrays = {name: as_array(values, name) for name, values in named.items()}
    for name, array in arrays.items():
        if array.dtype.kind not in "fiub":
            raise InputError(f"{name} must be numbers, got an array of {array.dtype}")
    g, m, v = (array.astype(np.float64) for array in arrays.values())
    if g.ndim not in (1, 2) or m.shape != g.shape[-1:] or v.shape != m.shape:
        raise InputError(f"first and second must have shape {list(g.shape[-1:])}, got {list(m.shape)}, {list(v.shape)}")
    if (v < 0).any():
        raise InputError("second must be at least 0 everywhere: it is a mean of squares")
    moved, squared = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g**2
    if step is not None:
        t = as_count(step, "step", minimum=1)
        moved, squared = moved / (1 - beta1**t), squared / (1 - beta2**t)
    direction: Floats = moved / np.sqrt(squared + eps)
    return direction


@register_selector(
    "less",
    needs=("gradient",),
    description="targeted: learning-rate-weighted cosine of gradients to queries, mean per sub-task, best sub-task",
)
def less(
    problem: Problem,
    *,
    queries: Any = None,
    groups: npt.ArrayLike | None = None,
    checkpoints: Sequence[str] = ("gradient",),
    learning_rates: Sequence[float] | None = None,
) -> Choice:
    """Select the rows of highest influence on the sub-task they influence most.

    influence(z, v) = sum_c eta_c cos(z_c, v_c), eta_c normalised to sum 1; the score of a row is the maximum over
    sub-tasks of the mean over the queries of the sub-task (LESS, section 4.2).

    Args:
        problem: a gradient sketch [N, m] per checkpoint (of Adam directions, see `adam_direction`), budget, seed.
        queries: gradient sketches of the target examples: [M, m] for one checkpoint, otherwise a mapping with the same
            names as the pool's.
        groups: sub-task of each query, [M]; None: all queries are one sub-task.
        checkpoints: names of the gradient features, one per checkpoint.
        learning_rates: mean learning rate of each checkpoint's epoch; None: equal.

    Returns:
        The choice. Rows without a gradient at some checkpoint come last.

    Raises:
        InputError: missing features, or queries or options malformed.
    """
    checkpoints = as_names(checkpoints, "checkpoints")
    absent = [name for name in checkpoints if name not in problem]
    if absent:
        raise InputError(f"less needs the features {', '.join(absent)}, which are not there")
    given = np.ones(len(checkpoints)) if learning_rates is None else as_array(learning_rates, "learning_rates")
    rates = given.astype(np.float64) if given.dtype.kind in "fiub" else np.full(given.shape, np.nan)
    if rates.shape != (len(checkpoints),) or not (np.isfinite(rates) & (rates >= 0)).all() or rates.sum() <= 0:
        raise InputError(f"learning_rates must be {len(checkpoints)} numbers of at least 0, got {learning_rates!r}")
    if not problem.n:
        return take(problem, np.zeros(0, dtype=np.int64), np.zeros(0), "influence", "influence")
    means: Floats = np.zeros((0, 0))
    missing = 0
    for name, rate in zip(checkpoints, rates / rates.sum(), strict=True):
        part, missing = _mean_cosines(problem, name, queries, groups)
        means = rate * part if not means.size else means + rate * part
    scores = settled(means.max(axis=1))
    choice = take(problem, best_first(problem, scores), scores, "influence", "influence on its best sub-task")
    choice.info |= {"subtasks": means.shape[1], "checkpoints": checkpoints, "queries_missing": missing}
    return choice


def _mean_cosines(problem: Problem, name: str, queries: Any, groups: npt.ArrayLike | None) -> tuple[Floats, int]:
    """Mean cosine of each row to the queries of each sub-task, [N, T]; NaN rows where the gradient is missing."""
    rows = problem.unit_rows(name)
    asked = read_queries(queries, groups, name, rows.dim)
    lengths = np.linalg.norm(asked.vectors, axis=1, keepdims=True)
    units = asked.vectors / np.where(lengths > 0, lengths, 1.0)
    labels = np.zeros(len(units), dtype=np.int64) if asked.groups is None else asked.groups
    # the mean of cosines is the product with the mean of unit vectors
    centres = np.stack([units[labels == t].mean(axis=0) for t in range(int(labels.max()) + 1)])
    out = np.empty((len(rows), len(centres)))
    for part in rows.parts():
        out[part] = product(rows.unit64(part), centres)
    out[rows.missing] = np.nan
    return out, asked.missing
