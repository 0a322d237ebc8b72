"""Coverage-centric sampling over one score, and the entropy by which an expert is chosen."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from liit.selection.arrays import Floats, Ints, as_scores
from liit.selection.budget import allocate
from liit.selection.options import as_count, as_fraction

LOW_TAIL = -1
HIGH_TAIL = -2

# Standardised scores are binned over this range either side of the mean; what lies outside counts in the end bins.
_REACH = 4.0
# Bin positions are rounded to this many decimals first: float32 rounding, which differs with the unit, decides nothing.
_GRID = 5


def stratified_sample(scores: npt.ArrayLike, n: int, bins: int = 50, trim: float = 0.05, seed: int = 0) -> Ints:
    """Draw rows so that every range of the score is represented (coverage-centric sampling).

    The lowest and the highest `trim` of the rows are set aside as outliers; the rest is cut into `bins` strata of equal
    width; every stratum gives the same number of rows, what a small one cannot give is passed on; inside a stratum rows
    are drawn uniformly without replacement (Zheng et al. 2023; Adapt-infinity, section 3.2). Rows whose score is
    missing form a stratum of their own. Only when those strata hold fewer than `n` rows are outliers drawn, uniformly.
    The official code's rounding returns more than asked (100 for 56); this returns exactly `n`.

    Args:
        scores: one number per row, [N]; NaN is legal. Equal scores are drawn from uniformly.
        n: rows wanted.
        bins: number of strata.
        trim: share of rows set aside at each end, 0 <= trim < 0.5; `int(trim * N)` rows each.
        seed: seed of the draw.

    Returns:
        int64 row numbers, sorted, exactly `min(n, N)` of them.

    Raises:
        InputError: scores not [N] or infinite, or n, bins or trim out of range.
    """
    values = as_scores(scores)
    wanted = as_count(n, "n")
    draws = np.random.default_rng(as_count(seed, "seed")).random(len(values))
    return draw(stratify(values, draws, bins, trim), wanted, draws)


def stratify(scores: Floats, draws: Floats, bins: int, trim: float) -> Ints:
    """Number the stratum of every row.

    Args:
        scores: float64 [N], NaN where missing.
        draws: one random number per row; it decides which of several equal scores counts as an outlier.
        bins: number of strata.
        trim: share of rows set aside at each end.

    Returns:
        int64 [N]: 0 to bins - 1, `bins` where the score is missing, `LOW_TAIL` or `HIGH_TAIL` for outliers.

    Raises:
        InputError: bins or trim out of range.
    """
    bins = as_count(bins, "bins", minimum=1)
    trim = as_fraction(trim, "trim", 0.0, 0.5)
    strata = np.full(len(scores), bins, dtype=np.int64)
    known = np.flatnonzero(~np.isnan(scores))
    if not known.size:
        return strata
    ascending = known[np.lexsort((draws[known], scores[known]))]
    cut = int(trim * len(ascending))
    core = ascending[cut : len(ascending) - cut]
    strata[ascending[:cut]] = LOW_TAIL
    strata[ascending[len(ascending) - cut :]] = HIGH_TAIL
    low, high = scores[core[0]], scores[core[-1]]
    if high > low:
        # dividing before subtracting keeps scores near the float64 limit from overflowing
        scale = max(abs(low), abs(high))
        place = (scores[core] / scale - low / scale) / (high / scale - low / scale) * bins
        strata[core] = np.clip(np.floor(np.round(place, _GRID)).astype(np.int64), 0, bins - 1)
    else:
        strata[core] = 0
    return strata


def draw(strata: Ints, n: int, draws: Floats) -> Ints:
    """Draw evenly over strata, outliers last.

    Args:
        strata: as returned by `stratify`.
        n: rows wanted.
        draws: one random number per row; inside a stratum the smallest are taken.

    Returns:
        int64 positions, sorted, exactly `min(n, N)`.
    """
    inside = np.flatnonzero(strata >= 0)
    _, member, sizes = np.unique(strata[inside], return_inverse=True, return_counts=True)
    shares = allocate(sizes, n)
    by_stratum = np.lexsort((draws[inside], member))
    place = np.arange(len(inside)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    chosen = inside[by_stratum[place < np.repeat(shares, sizes)]]
    missing = min(n, len(strata)) - len(chosen)
    if missing > 0:
        tails = np.flatnonzero(strata < 0)
        chosen = np.concatenate((chosen, tails[np.argsort(draws[tails], kind="stable")[:missing]]))
    return np.sort(chosen)


def score_entropy(scores: npt.ArrayLike, bins: int = 50) -> float:
    """How evenly a score spreads over its range: the entropy of its histogram, in bits.

    Scores are standardised (mean 0, standard deviation 1) and counted in `bins` bins of equal width over [-4, 4];
    values outside count in the end bins; H = -sum p_b log2 p_b (Adapt-infinity, section 3.2). The official code takes
    the range from the raw standard deviation although the scores are already standardised, so that its answer changes
    with the unit of the score, and drops what lies outside; this one does neither.

    Args:
        scores: one number per row, [N]; missing ones (NaN) are left out.
        bins: number of bins.

    Returns:
        Bits, between 0 (constant, or nothing there) and log2(bins).

    Raises:
        InputError: scores not [N] or infinite, or bins below 1.
    """
    return histogram_entropy(as_scores(scores), as_count(bins, "bins", minimum=1), clip=True)


def histogram_entropy(scores: Floats, bins: int, clip: bool) -> float:
    """Entropy in bits of checked scores; without `clip`, values beyond 4 standard deviations are dropped."""
    known = scores[~np.isnan(scores)]
    if not known.size or known.min() == known.max():
        return 0.0
    scaled = known / np.abs(known).max()
    centred = scaled - scaled.mean()
    spread = float(np.sqrt(np.mean(centred**2)))
    if spread == 0.0:
        return 0.0
    place = np.floor(np.round((centred / spread + _REACH) * (bins / (2 * _REACH)), _GRID)).astype(np.int64)
    if not clip:
        place = place[(place >= 0) & (place < bins)]
    counts = np.bincount(np.clip(place, 0, bins - 1), minlength=bins)
    p = counts[counts > 0] / max(1, counts.sum())
    return max(0.0, float(-(p * np.log2(p)).sum()))
