"""The accuracy matrix a[t][s] and what is computed from it.

Everywhere below `scores` is a [T + 1, S] array: row 0 is the base model before any step, row t the model after step t,
one column per skill; NaN marks an entry that was not evaluated. `introduced` holds for every skill the step (1 to T)
that introduced it, or 0 for a skill that no step teaches; those are left out of every mean here.

A mean over skills is NaN as soon as one of its skills is NaN: two methods must never be compared on different skills.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from liit.errors import InputError
from liit.evaluation.intervals import Interval, bootstrap_interval

__all__ = [
    "FORMULAS",
    "Interval",
    "average_accuracy",
    "backward_transfer",
    "bootstrap_interval",
    "forgetting",
    "forward_transfer",
    "gain_skills",
    "mean_final",
    "mean_first",
    "rare_accuracy",
    "relative_gain",
    "unseen_accuracy",
]

Scores = NDArray[np.float64]

FORMULAS: Mapping[str, str] = {
    "average_accuracy": "mean over s of a[T][s]",
    "relative_gain": "100 · mean over s with u[s] ≠ 0 of a[T][s] / u[s]; u[s] = the reference's final accuracy on s",
    "forgetting_max": "100 · mean over s of (m[s] − a[T][s]) / m[s]; m[s] = max over t ≥ t_s of a[t][s]; "
    "0 where m[s] = 0",
    "forgetting_first": "100 · mean over s of max(0, a[t_s][s] − a[T][s]) / a[t_s][s]; 0 where a[t_s][s] = 0",
    "backward_transfer": "mean over s of a[T][s] − a[t_s][s] = MFN − MFT",
    "mean_first": "MFT = mean over s of a[t_s][s]",
    "mean_final": "MFN = mean over s of a[T][s] (the average accuracy)",
    "forward_transfer": "mean over s of a[t_s − 1][s] − a[base][s]",
    "rare_accuracy": "mean over rare s of a[T][s]",
    "unseen_accuracy": "mean over the skills that no step teaches of a[T][s]",
}
"""The formula behind every number, as shown to readers; t_s is the step that introduced skill s, T the last step."""


def average_accuracy(scores: ArrayLike, introduced: ArrayLike) -> float:
    """Mean final accuracy over the skills taught (adapt-infinity section 8).

    Args:
        scores: [T + 1, S], see the module's first lines.
        introduced: [S] step of introduction, 0 for none.

    Returns:
        A number in the unit of the scores; NaN when the final step was not evaluated on all of them.

    Raises:
        InputError: shapes that do not fit.
    """
    a, step = _checked(scores, introduced)
    return _mean(a[-1, step > 0])


def unseen_accuracy(scores: ArrayLike, introduced: ArrayLike) -> float:
    """Mean final accuracy over the skills that no step teaches; arguments as for `average_accuracy`."""
    a, step = _checked(scores, introduced)
    return _mean(a[-1, step == 0])


def rare_accuracy(scores: ArrayLike, introduced: ArrayLike, rare: ArrayLike) -> float:
    """Mean final accuracy over the rare skills.

    Args:
        scores: [T + 1, S].
        introduced: [S].
        rare: [S] booleans.

    Returns:
        A number in the unit of the scores; NaN without a rare skill.

    Raises:
        InputError: shapes that do not fit.
    """
    a, step = _checked(scores, introduced)
    chosen = np.asarray(rare, dtype=bool)
    if chosen.shape != step.shape:
        raise InputError(f"rare: shape {chosen.shape} given, expected one boolean per skill, {step.shape}")
    return _mean(a[-1, chosen & (step > 0)])


def mean_final(scores: ArrayLike, introduced: ArrayLike) -> float:
    """MFN, the mean final accuracy: mean over s of a[T][s]. Another name for `average_accuracy`."""
    return average_accuracy(scores, introduced)


def mean_first(scores: ArrayLike, introduced: ArrayLike) -> float:
    """MFT, the mean accuracy right after a skill's own step: mean over s of a[t_s][s].

    Continual-learning benchmarks call it the mean fine-tune accuracy: what is learnt before anything is forgotten.

    Args:
        scores: [T + 1, S].
        introduced: [S].

    Returns:
        A number in the unit of the scores; NaN when an entry is missing or no skill is taught.

    Raises:
        InputError: shapes that do not fit.
    """
    a, step = _checked(scores, introduced)
    taught = np.flatnonzero(step > 0)
    return _mean(a[step[taught], taught])


def relative_gain(scores: ArrayLike, introduced: ArrayLike, reference: ArrayLike) -> float:
    """Final accuracy as a percentage of a reference's, averaged over skills (adapt-infinity section 8).

    Args:
        scores: [T + 1, S].
        introduced: [S].
        reference: [S] final accuracy u[s] of the reference, usually joint training on all data.

    Returns:
        Percent. A skill on which the reference has 0 has no ratio and is left out (`gain_skills` counts the others);
        NaN when none is left or an entry is missing.

    Raises:
        InputError: shapes that do not fit.
    """
    a, step = _checked(scores, introduced)
    u = np.asarray(reference, dtype=np.float64)
    chosen = gain_skills(introduced, reference)
    with np.errstate(invalid="ignore"):
        return 100.0 * _mean(a[-1, chosen] / u[chosen]) if len(step) else float("nan")


def gain_skills(introduced: ArrayLike, reference: ArrayLike) -> NDArray[np.bool_]:
    """Which skills count in `relative_gain`: taught, and not at zero in the reference."""
    step, u = np.asarray(introduced), np.asarray(reference, dtype=np.float64)
    if u.shape != step.shape:
        raise InputError(f"reference: shape {u.shape} given, expected one accuracy per skill, {step.shape}")
    chosen: NDArray[np.bool_] = (step > 0) & (u != 0)
    return chosen


def forgetting(scores: ArrayLike, introduced: ArrayLike, convention: Literal["max", "first"] = "max") -> float:
    """How much of what was once known is lost at the end, in percent, averaged over skills.

    "max" compares with the best accuracy since the skill was introduced (adapt-infinity section 8); "first" with the
    accuracy right after the step that introduced it, and gains do not make up for losses. A skill that was never above
    zero has nothing to forget and counts as 0.

    Args:
        scores: [T + 1, S].
        introduced: [S].
        convention: "max" or "first".

    Returns:
        Percent between 0 and 100; NaN when a skill was not evaluated at its own step or at the end.

    Raises:
        InputError: shapes that do not fit, or an unknown convention.
    """
    a, step = _checked(scores, introduced)
    taught = np.flatnonzero(step > 0)
    first, last = a[step[taught], taught], a[-1, taught]
    if convention == "first":
        before = first
    elif convention == "max":
        since = np.arange(len(a))[:, None] >= step[taught]
        before = np.where(since & ~np.isnan(a[:, taught]), a[:, taught], -np.inf).max(axis=0, initial=-np.inf)
        before = np.where(np.isnan(first), np.nan, before)
    else:
        raise InputError(f"convention: {convention!r} is unknown; use 'max' or 'first'")
    lost = np.maximum(before - last, 0.0)
    return 100.0 * _mean(np.divide(lost, before, out=lost.copy(), where=before > 0))


def backward_transfer(scores: ArrayLike, introduced: ArrayLike, *, earlier_only: bool = False) -> float:
    """What later steps did to a skill, averaged over skills: a[T][s] - a[t_s][s].

    By default the mean is over all S skills taught (adapt-infinity section 8), so it equals MFN - MFT exactly, however
    many skills a step brings. The skills of the last step have had no later step: they count with 0.

    The common BWT (Lopez-Paz and Ranzato, "Gradient Episodic Memory", NeurIPS 2017) leaves them out: it is the mean
    over the S - L skills of earlier steps, with L those of the last one, so it equals S / (S - L) * (MFN - MFT). With
    one skill per step S = T and L = 1, and this is BWT = T / (T - 1) * (MFN - MFT).

    Args:
        scores: [T + 1, S].
        introduced: [S].
        earlier_only: the common BWT: leave out the skills of the last step.

    Returns:
        A difference in the unit of the scores, negative when skills were lost; NaN when an entry is missing.

    Raises:
        InputError: shapes that do not fit.
    """
    a, step = _checked(scores, introduced)
    taught = np.flatnonzero((step > 0) & (step < len(a) - 1)) if earlier_only else np.flatnonzero(step > 0)
    return _mean(a[-1, taught] - a[step[taught], taught])


def forward_transfer(scores: ArrayLike, introduced: ArrayLike) -> float:
    """What earlier steps did for a skill before it arrived, averaged over skills: a[t_s - 1][s] - a[base][s].

    The skills of step 1 contribute 0.

    Args:
        scores: [T + 1, S].
        introduced: [S].

    Returns:
        A difference in the unit of the scores; NaN when an entry is missing.

    Raises:
        InputError: shapes that do not fit.
    """
    a, step = _checked(scores, introduced)
    taught = np.flatnonzero(step > 0)
    return _mean(a[step[taught] - 1, taught] - a[0, taught])


def _checked(scores: ArrayLike, introduced: ArrayLike) -> tuple[Scores, NDArray[np.int64]]:
    a, step = np.asarray(scores, dtype=np.float64), np.asarray(introduced, dtype=np.int64)
    if a.ndim != 2 or len(a) < 1:
        raise InputError(f"scores: shape {a.shape} given, expected [T + 1, S] with the base model in row 0")
    if step.shape != (a.shape[1],):
        raise InputError(f"introduced: shape {step.shape} given, expected one step per skill, ({a.shape[1]},)")
    if ((step < 0) | (step >= len(a))).any():
        raise InputError(f"introduced: steps {sorted(set(step.tolist()))} given, expected 0 to {len(a) - 1}")
    return a, step


def _mean(values: Scores) -> float:
    return float(values.mean()) if len(values) else float("nan")
