"""How sure a mean score is: bootstrap intervals over evaluation rows and over seeds, and the spread between seeds.

Pure arrays. Skills weigh the same everywhere, whatever their number of rows, as in the matrix's average accuracy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri, stdtrit

from liit.errors import InputError

Numbers = NDArray[np.float64]


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


@dataclass(frozen=True, slots=True)
class Spread:
    """How a number differs between seeds.

    Attributes:
        n: number of seeds.
        mean: over the seeds.
        sd: sample standard deviation, divisor n - 1; NaN with a single seed.
        low: smallest value.
        high: largest value.
    """

    n: int
    mean: float
    sd: float
    low: float
    high: float


def seed_spread(values: ArrayLike) -> Spread:
    """Mean, standard deviation and range of one number over seeds.

    Args:
        values: [K] the number at every seed. A NaN makes mean, sd and range NaN: a mean over the seeds that happen
            to be there would compare methods on different seeds.

    Returns:
        The spread.

    Raises:
        InputError: no values, or not a row of numbers.
    """
    numbers = np.asarray(values, dtype=np.float64)
    if numbers.ndim != 1 or not len(numbers):
        raise InputError(f"values: shape {numbers.shape} given, expected one number per seed")
    sd = float(numbers.std(ddof=1)) if len(numbers) > 1 else float("nan")
    return Spread(len(numbers), float(numbers.mean()), sd, float(numbers.min()), float(numbers.max()))


def bootstrap_interval(
    groups: Sequence[ArrayLike], *, level: float = 0.95, resamples: int = 2000, seed: int = 0
) -> Interval:
    """Percentile bootstrap of a mean of group means, resampling the rows inside each group.

    With the rows' scores grouped by skill this is the interval of the average accuracy; with the paired differences of
    two methods on the same rows it is the interval of their difference. It covers the chance in the evaluation rows,
    not the chance in training: for that, run several seeds and use `paired_bootstrap_over_seeds`.

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
    _check_level(level)
    rng = np.random.default_rng(seed)
    means = np.zeros(resamples)
    for group in rows:
        # How often each distinct value is drawn; scores are mostly 0 and 1, so this is much less than drawing rows.
        values, counts = np.unique(group, return_counts=True)
        means += rng.multinomial(len(group), counts / len(group), size=resamples) @ values / len(group)
    return _percentiles(means / len(rows), float(np.mean([group.mean() for group in rows])), level)


def paired_bootstrap(
    scores_a: ArrayLike,
    scores_b: ArrayLike,
    skills: ArrayLike,
    *,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """Difference of two methods on the same rows at one seed, with its bootstrap interval over rows.

    Rows are drawn inside each skill (stratified), the same rows for both methods.

    Args:
        scores_a: [N] score of every evaluation row under method a.
        scores_b: [N] the same rows under method b.
        skills: [N] skill of every row.
        level: coverage, between 0 and 1.
        resamples: number of bootstrap samples.
        seed: of the generator.

    Returns:
        Mean over skills of the mean of a - b over the skill's rows, and its interval.

    Raises:
        InputError: shapes that do not fit, no rows, a NaN, or a level outside (0, 1).
    """
    a, b = (np.atleast_2d(np.asarray(x, dtype=np.float64)) for x in (scores_a, scores_b))
    return paired_bootstrap_over_seeds(a, b, skills, level=level, resamples=resamples, seed=seed)


def paired_bootstrap_over_seeds(
    scores_a: ArrayLike,
    scores_b: ArrayLike,
    skills: ArrayLike,
    *,
    few_seeds: Literal["t", "none"] = "t",
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """Difference of two methods over seeds and rows, with an interval that covers the chance in both.

    The evaluation rows are the same at every seed, so seeds and rows are crossed. A resample draws seeds, and
    independently of them rows inside each skill, and averages over all pairs of what was drawn: Owen, "The pigeonhole
    bootstrap", Annals of Applied Statistics 1(2), 2007. Drawing other rows at every seed would
    make the interval too narrow, for it would average the chance in the rows away.

    The bootstrap alone knows too little of the chance in three seeds: it leaves out the factor K / (K - 1) of the
    variance and the heavy tails of Student's t. With `few_seeds="t"` a resample's deviation from the mean over seeds is
    stretched by sqrt(K / (K - 1)) * t / z, with t and z the quantiles of Student's t with K - 1 degrees of freedom and
    of the normal distribution at this level; so when all chance is in the seeds, the interval is about that of a paired
    t test over seeds, and when all is in the rows, that of `paired_bootstrap`. With one seed the two are the same, and
    nothing is said about other seeds.

    Args:
        scores_a: [K, N] score of every evaluation row at every seed, method a.
        scores_b: [K, N] method b, seeds and rows in the same order.
        skills: [N] skill of every row. To weigh skills otherwise, multiply their rows before: by 100 / u[s] for the
            difference of two relative gains.
        few_seeds: "t" as above; "none" for the bootstrap as it is.
        level: coverage, between 0 and 1.
        resamples: number of bootstrap samples.
        seed: of the generator.

    Returns:
        Mean over skills of the mean of a - b over seeds and the skill's rows, and its interval.

    Raises:
        InputError: shapes that do not fit, no seeds or rows, a NaN, an unknown `few_seeds`, a level outside (0, 1).
    """
    a, b = np.asarray(scores_a, dtype=np.float64), np.asarray(scores_b, dtype=np.float64)
    if a.shape != b.shape:
        raise InputError(
            f"scores_b: shape {b.shape} given, expected that of scores_a, {a.shape}: same seeds, same rows"
        )
    return bootstrap_over_seeds(a - b, skills, few_seeds=few_seeds, level=level, resamples=resamples, seed=seed)


def bootstrap_over_seeds(
    values: ArrayLike,
    skills: ArrayLike,
    *,
    few_seeds: Literal["t", "none"] = "t",
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """Mean of one method's scores (or of any value per seed and row) with its interval over seeds and rows.

    Args:
        values: [K, N], see `paired_bootstrap_over_seeds`, which also says how it is done.
        skills: [N] skill of every row.
        few_seeds: "t" or "none".
        level: coverage, between 0 and 1.
        resamples: number of bootstrap samples.
        seed: of the generator.

    Returns:
        Mean over skills of the mean over seeds and rows, and its interval.

    Raises:
        InputError: as for `paired_bootstrap_over_seeds`.
    """
    table, labels = np.asarray(values, dtype=np.float64), np.asarray(skills)
    if table.ndim != 2 or not table.size or np.isnan(table).any():
        raise InputError(f"scores: shape {table.shape} given, expected [seeds, rows], neither empty, without NaN")
    if labels.shape != (table.shape[1],):
        raise InputError(f"skills: shape {labels.shape} given, expected one skill per row, ({table.shape[1]},)")
    _check_level(level)
    names, members = np.unique(labels, return_inverse=True)
    rng = np.random.default_rng(seed)
    by_seed, resampled = np.zeros(len(table)), np.zeros((resamples, len(table)))
    for skill in range(len(names)):
        rows = table[:, members == skill]
        n = rows.shape[1]
        by_seed += rows.mean(axis=1)
        resampled += rng.multinomial(n, np.full(n, 1 / n), size=resamples) @ rows.T / n
    by_seed, resampled = by_seed / len(names), resampled / len(names)
    means = (resampled * _seed_weights(len(table), resamples, level, few_seeds, rng)).sum(axis=1)
    return _percentiles(means, float(by_seed.mean()), level)


def _seed_weights(count: int, resamples: int, level: float, few_seeds: str, rng: np.random.Generator) -> Numbers:
    """[resamples, count] weight of every seed in every resample; each row sums to 1."""
    if few_seeds not in ("t", "none"):
        raise InputError(f"few_seeds: {few_seeds!r} is unknown; use 't' or 'none'")
    even = np.full(count, 1 / count)
    weights = rng.multinomial(count, even, size=resamples) / count
    if count == 1 or few_seeds == "none":
        return weights
    upper = (1 + level) / 2
    stretch = np.sqrt(count / (count - 1)) * stdtrit(count - 1, upper) / ndtri(upper)
    stretched: Numbers = even + stretch * (weights - even)
    return stretched


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise InputError(f"level: {level} given, expected a coverage between 0 and 1, for instance 0.95")


def _percentiles(means: Numbers, estimate: float, level: float) -> Interval:
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(estimate, float(low), float(high))
