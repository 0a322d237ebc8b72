"""The accuracy matrix a[t][s] and what is computed from it.

Everywhere below `scores` is a [T + 1, S] array: row 0 is the base model before any step, row t the model after step t,
one column per skill; NaN marks an entry that was not evaluated. `introduced` holds for every skill the step (1 to T)
that introduced it, or 0 for a skill that no step teaches; those are left out of every mean here.

A mean over skills is NaN as soon as one of its skills is NaN: two methods must never be compared on different skills.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from liit.errors import InputError

Scores = NDArray[np.float64]

FORMULAS: Mapping[str, str] = {
    "average_accuracy": "mean over s of a[T][s]",
    "relative_gain": "100 · mean over s of a[T][s] / u[s]; u[s] = the reference's final accuracy on s",
    "forgetting_max": "100 · mean over s of (m[s] − a[T][s]) / m[s]; m[s] = max over t ≥ t_s of a[t][s]",
    "forgetting_first": "100 · mean over s of max(0, a[t_s][s] − a[T][s]) / a[t_s][s]",
    "backward_transfer": "mean over s of a[T][s] − a[t_s][s]",
    "forward_transfer": "mean over s of a[t_s − 1][s] − a[base][s]",
    "rare_accuracy": "mean over rare s of a[T][s]",
    "unseen_accuracy": "mean over the skills that no step teaches of a[T][s]",
}
"""The formula behind every number, as shown to readers; t_s is the step that introduced skill s, T the last step."""


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with a bootstrap interval."""

    estimate: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Whether the whole interval lies on one side of zero."""
        return self.low > 0 or self.high < 0


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

    Args:
        scores: [T + 1, S].
        introduced: [S].
        earlier_only: leave out the skills of the last step, which can only contribute 0. With one skill per step this
            is the common BWT, and BWT = T / (T - 1) * (MFN - MFT) with MFN the mean final accuracy and MFT the mean
            accuracy right after a skill's own step.

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


def bootstrap_interval(
    groups: Sequence[ArrayLike], *, level: float = 0.95, resamples: int = 2000, seed: int = 0
) -> Interval:
    """Percentile bootstrap of a mean of group means, resampling the rows inside each group.

    With the rows' scores grouped by skill this is the interval of the average accuracy; with the paired differences of
    two methods on the same rows it is the interval of their difference. It covers the chance in the evaluation rows,
    not the chance in training: for that, run several seeds.

    Args:
        groups: one array of row values per skill, none empty, no NaN.
        level: coverage, between 0 and 1.
        resamples: number of bootstrap samples.
        seed: of the generator.

    Returns:
        Mean of the group means and its interval.

    Raises:
        InputError: no groups, an empty group, a NaN, or a level outside (0, 1).
    """
    rows = [np.asarray(group, dtype=np.float64) for group in groups]
    if not rows or any(group.ndim != 1 or len(group) == 0 or np.isnan(group).any() for group in rows):
        raise InputError("groups: expected at least one group, each a non-empty row of numbers without NaN")
    if not 0 < level < 1:
        raise InputError(f"level: {level} given, expected a coverage between 0 and 1, for instance 0.95")
    rng = np.random.default_rng(seed)
    means = np.zeros(resamples)
    for group in rows:
        # How often each distinct value is drawn; scores are mostly 0 and 1, so this is much less than drawing rows.
        values, counts = np.unique(group, return_counts=True)
        means += rng.multinomial(len(group), counts / len(group), size=resamples) @ values / len(group)
    low, high = np.quantile(means / len(rows), [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(np.mean([group.mean() for group in rows])), float(low), float(high))


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
