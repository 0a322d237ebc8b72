"""Which rows of the last step are scored again, and what the others' features are taken to be.

A checkpoint changes every feature, but not of all rows alike. Rows that the last step has scored are cut into strata:
a cluster's rows that were trained on, and its other rows. Some rows of every stratum are scored again. How badly the
stratum's new features follow from its old ones is its drift, and what is left of the budget goes to strata by size
times drift, as Neyman allocation has it: first to the rows whose features are oldest. The rest is predicted:

- a score s becomes s + a + b (s - m), with a, b and the mean m from the stratum's rows that were scored again, b pulled
  towards 0 where they are few;
- hidden states move by the stratum's mean movement, pulled towards 0 in the same way;
- a gradient stays what it was. Measured on the demo, its direction from the last step is nearer to the new one than
  any mean or regression of a stratum is.

Which rows are drawn depends on their ids, the seed and the checkpoint only, never on their order.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from liit.features.settings import COUNTED, VECTORS

AGE = "steps_since_scored"
LEAST = 4  # rows of a stratum that are scored again, if it has as many
PULL = 8.0  # a stratum's own line weighs n / (n + PULL)


@dataclass(frozen=True, slots=True)
class Earlier:
    """What the last step leaves to this one.

    Attributes:
        features: its feature store.
        clusters: the cluster of a row, by id; rows without one are a cluster of their own.
        trained: ids of the rows that were trained on since.
    """

    features: Path
    clusters: Mapping[str, int]
    trained: frozenset[str]

    def strata(self, ids: Sequence[str]) -> np.ndarray:
        """Stratum number (N,) int64 of some rows."""
        cluster = np.asarray([self.clusters.get(one, -1) for one in ids], dtype=np.int64)
        trained = np.asarray([one in self.trained for one in ids], dtype=bool)
        return np.asarray(2 * cluster + trained)


def lots(ids: Sequence[str], seed: int, checkpoint: str) -> np.ndarray:
    """A random number (N,) uint64 for each row, from its id, the seed and the checkpoint."""
    salt = f"{seed} {checkpoint} "
    digests = [hashlib.blake2b(f"{salt}{one}".encode(), digest_size=8).digest() for one in ids]
    found: np.ndarray = np.frombuffer(b"".join(digests), dtype="<u8")
    return found


def draw_sample(strata: np.ndarray, lot: np.ndarray, count: int) -> np.ndarray:
    """Rows of every stratum, by its size and at least `LEAST` of each; sorted.

    Args:
        strata: (N,) stratum numbers.
        lot: (N,) random numbers.
        count: how many rows in all, about: every stratum's number is rounded up.
    """
    numbers, member, sizes = np.unique(strata, return_inverse=True, return_counts=True)
    wanted = _sampled(sizes, count).astype(np.int64)
    return _first(member, lot, wanted, np.zeros(len(strata), dtype=np.int64), len(numbers))


def count_again(sizes: np.ndarray, share: float, sample: float) -> int:
    """How many of the known rows are scored again: the share, or more where every stratum's least is more.

    Args:
        sizes: (S,) rows of each stratum; need not be whole numbers.
        share: `features.rescore.share`.
        sample: `features.rescore.sample`.
    """
    rows = round(float(sizes.sum()))
    budget = math.ceil(share * rows)
    first = round(float(_sampled(sizes, math.ceil(sample * budget)).sum()))
    return min(rows, max(budget, first))


def _sampled(sizes: np.ndarray, count: int) -> np.ndarray:
    """Rows of each stratum for a sample of about so many in all: in proportion, rounded up, and `LEAST` at least."""
    found: np.ndarray = np.minimum(sizes, np.maximum(LEAST, np.ceil(sizes * (count / max(1, sizes.sum())))))
    return found


def draw_rest(
    strata: np.ndarray, lot: np.ndarray, age: np.ndarray, drift: Mapping[int, float], count: int
) -> np.ndarray:
    """Rows of the strata that have moved most, oldest first; sorted.

    Args:
        strata: (N,) stratum numbers of the rows not scored yet.
        lot: (N,) random numbers.
        age: (N,) steps since each row was scored.
        drift: of each stratum.
        count: how many, exactly, or all.
    """
    numbers, member, sizes = np.unique(strata, return_inverse=True, return_counts=True)
    weight = sizes * np.asarray([drift.get(int(one), 0.0) for one in numbers])
    if not weight.sum() > 0:
        weight = sizes.astype(float)
    wanted = _shares(weight, sizes, min(count, len(strata)))
    return _first(member, lot, wanted, -np.asarray(age, dtype=np.int64), len(numbers))


def _shares(weight: np.ndarray, sizes: np.ndarray, total: int) -> np.ndarray:
    """Whole numbers in proportion to the weights, none above its size, that sum to the total."""
    wanted = np.zeros(len(sizes))
    open_ = np.ones(len(sizes), dtype=bool)
    while open_.any():
        left = total - wanted[~open_].sum()
        whole = weight[open_].sum()
        part = weight[open_] / whole if whole > 0 else sizes[open_] / sizes[open_].sum()
        wanted[open_] = left * part
        full = open_ & (wanted >= sizes)
        if not full.any():
            break
        wanted[full], open_ = sizes[full], open_ & ~full
    counts = np.floor(wanted + 1e-9).astype(np.int64)
    order = np.lexsort((np.arange(len(sizes)), -(wanted - counts)))
    room = order[counts[order] < sizes[order]]
    counts[room[: max(0, total - int(counts.sum()))]] += 1
    return counts


def _first(member: np.ndarray, lot: np.ndarray, wanted: np.ndarray, before: np.ndarray, n: int) -> np.ndarray:
    """The first so many rows of each of n strata, by `before` and then by lot; sorted."""
    order = np.lexsort((lot, before, member))
    start = np.searchsorted(member[order], np.arange(n))
    rank = np.arange(len(order)) - start[member[order]]
    return np.sort(order[rank < wanted[member[order]]])


class Prediction:
    """What a stratum's features become, learnt from its rows that were scored again.

    Args:
        strata: (S,) stratum numbers of these rows.
        old: their last features by name, (S,) or (S, d).
        new: their features now.
    """

    def __init__(self, strata: np.ndarray, old: Mapping[str, np.ndarray], new: Mapping[str, np.ndarray]) -> None:
        self.strata = strata
        self.names = [name for name in new if name in old]
        self._old = {name: np.asarray(old[name], dtype=np.float32) for name in self.names}
        self._new = {name: np.asarray(new[name], dtype=np.float32) for name in self.names}

    def __call__(self, strata: np.ndarray, name: str, old: np.ndarray) -> np.ndarray:
        """Predicted values of one feature, float32.

        Args:
            strata: (N,) stratum numbers.
            name: of the feature.
            old: its last values, (N,) or (N, d).
        """
        old = np.asarray(old, dtype=np.float32)
        if name in COUNTED or name == "gradient":
            return old
        out = old.copy()
        for stratum in np.unique(strata):
            rows, known = strata == stratum, self.strata == stratum
            before, after = self._old[name][known], self._new[name][known]
            out[rows] = (_moved if name in VECTORS else _line)(before, after, old[rows])
        return out

    def drift(self) -> dict[int, float]:
        """How badly each stratum's new features follow from its old ones: 0 for perfectly, about 1 for not at all.

        The root of the mean, over features, of the squared error over the feature's variance among all these rows (for
        a vector, of 1 - cosine).
        """
        parts = []
        for name in self.names:
            if name in COUNTED:
                continue
            guess, new = self(self.strata, name, self._old[name]), self._new[name]
            if new.ndim == 1:
                spread = float(np.nanvar(new)) if np.isfinite(new).any() else 0.0
                error = np.square(guess - new) / spread if spread > 0 else np.zeros(len(new), dtype=np.float32)
            else:
                sizes = np.linalg.norm(guess, axis=1) * np.linalg.norm(new, axis=1)
                error = 1 - (guess * new).sum(1) / np.where(sizes > 0, sizes, np.nan)
            parts.append(np.clip(error, 0.0, 4.0))  # one row far out does not decide
        found: dict[int, float] = {}
        for stratum in np.unique(self.strata):
            own = np.concatenate([part[self.strata == stratum] for part in parts] or [np.zeros(1)])
            own = own[np.isfinite(own)]
            found[int(stratum)] = math.sqrt(float(own.mean())) if len(own) else 0.0
        return found


def _line(before: np.ndarray, after: np.ndarray, old: np.ndarray) -> np.ndarray:
    """Scores by the pulled line; scores are never negative, and one that was missing stays missing."""
    known = np.isfinite(before) & np.isfinite(after)
    n = int(known.sum())
    if not n:
        return old
    x, change = before[known].astype(float), (after - before)[known].astype(float)
    mean = x.mean()
    squares = float(((x - mean) ** 2).sum())
    slope = float(((x - mean) * change).sum()) / squares * n / (n + PULL) if squares > 0 else 0.0
    predicted = old + change.mean() + max(-1.0, slope) * (old - mean)
    return np.asarray(np.maximum(predicted, 0), dtype=np.float32)


def _moved(before: np.ndarray, after: np.ndarray, old: np.ndarray) -> np.ndarray:
    """Hidden states by the pulled mean movement."""
    known = np.isfinite(before).all(1) & np.isfinite(after).all(1)
    n = int(known.sum())
    if not n:
        return old
    moved: np.ndarray = old + (after - before)[known].mean(0) * np.float32(n / (n + PULL))
    return moved
