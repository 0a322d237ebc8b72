"""Seeded k-means on unit rows for a whole grid of k at the price of little more than one.

One chain of greedy k-means++ seeds is drawn on a subsample; its first k seeds start the run for k. Lloyd's iterations
run on the subsample, then two passes over all rows assign them; in each step the centroids of every k are stacked in
one matrix product. Compared with a fit per k (what the official code does with scikit-learn) the rows are read and
normalised twice and not once per k and epoch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from liit.selection.arrays import Floats, Ints, Singles
from liit.selection.blocks import UnitRows, product
from liit.selection.options import as_count, as_counts

DEFAULT_GRID = tuple(range(5, 55, 5))

_CANDIDATES = 8  # k-means++ candidates tried for each seed; plain k-means++ (one) ends up to 8 % worse
_ROWS_PER_CENTROID = 256
_MIN_SUBSAMPLE = 4096
_ITERATIONS = 20
_SETTLED = 1e-3  # Lloyd stops for a k when the inertia falls by less than this part
_SAME = 1e-6  # squared distance below which float32 cannot tell two unit rows apart


@dataclass(frozen=True)
class Clustering:
    """Clusters of a view of rows.

    Attributes:
        labels: int64 [N] by position: 0 to k - 1, the largest cluster first; k where the vector is missing.
        k: number of clusters that hold rows, those without a vector not counted.
        chosen: the k of the grid that was chosen; `k` is smaller when a cluster ended empty.
        curve: one {"k", "inertia"} per k tried; inertia is the sum of squared distances to the assigned centroid.
        centroids: float32 [k, d]; means, of unit length when spherical.
    """

    labels: Ints
    k: int
    chosen: int
    curve: list[dict[str, float]]
    centroids: Singles


def cluster(
    rows: UnitRows, k: int | None = None, grid: Sequence[int] = DEFAULT_GRID, seed: int = 0, spherical: bool = False
) -> Clustering:
    """Cluster unit rows; choose k by the elbow of the inertia curve.

    Args:
        rows: the view to cluster. The result depends on the order of its positions, so pass a canonical one.
        k: number of clusters; None chooses from the grid.
        grid: the values of k to try.
        seed: seed of the subsample and of the k-means++ chain.
        spherical: assign by cosine to centroids of unit length. False (as the official code): by distance to the mean.

    Returns:
        The clustering. With fewer than k distinct rows there are fewer clusters.

    Raises:
        InputError: k or a grid value below 1, or an empty grid.
    """
    wanted = _checked_grid(k, grid)
    present = np.flatnonzero(~rows.missing)
    labels = np.full(len(rows), 0, dtype=np.int64)
    if not present.size:
        return Clustering(labels, 0, 0, [], np.zeros((0, rows.dim), np.float32))
    known = rows if len(present) == len(rows) else rows.select(present)
    rng = np.random.default_rng([seed, 0x6B])
    most = max(wanted)
    sample_size = max(_MIN_SUBSAMPLE, _ROWS_PER_CENTROID * most)
    whole = len(known) <= 1.5 * sample_size
    sample = known.unit(np.arange(len(known)) if whole else np.sort(rng.choice(len(known), sample_size, replace=False)))
    seeds = _seed_chain(sample, most, rng)
    sizes = sorted({min(w, len(seeds)) for w in wanted})
    stack = [_scaled(sample[seeds[:size]], spherical) for size in sizes]
    stack = _lloyd(sample, stack, spherical)
    if not whole:
        stack = _one_pass(known, stack, spherical)[0]
    _, inertia, assigned = _one_pass(known, stack, spherical, update=False)
    best = elbow(sizes, inertia)
    final, order = _by_size(assigned[:, best].astype(np.int64), sizes[best])
    labels[present] = final
    labels[rows.missing] = len(order)
    curve = [{"k": size, "inertia": value} for size, value in zip(sizes, inertia, strict=True)]
    return Clustering(labels, len(order), sizes[best], curve, stack[best][order])


def elbow(sizes: Sequence[int], inertia: Sequence[float]) -> int:
    """Index of the elbow: the point farthest below the straight line that joins the ends of the curve.

    Both axes are scaled to [0, 1] first. Ties and straight lines give the smallest k.
    """
    if len(sizes) < 3:
        return 0
    x = (np.asarray(sizes, dtype=np.float64) - sizes[0]) / (sizes[-1] - sizes[0])
    y = np.asarray(inertia, dtype=np.float64)
    drop = y[0] - y[-1]
    if drop <= 0:
        return 0
    return int(np.argmax(np.round((1.0 - x) - (y - y[-1]) / drop, 9)))


def _checked_grid(k: int | None, grid: Sequence[int]) -> list[int]:
    if k is not None:
        return [as_count(k, "k", minimum=1)]
    return sorted(set(as_counts(grid, "k_grid", minimum=1)))


def _seed_chain(sample: Singles, most: int, rng: np.random.Generator) -> Ints:
    """Greedy k-means++: of a few rows drawn by squared distance, the next seed is the one that leaves least inertia."""
    squares = np.einsum("ij,ij->i", sample, sample).astype(np.float64)
    seeds = [int(rng.integers(len(sample)))]
    nearest = _distances(sample, squares, np.array(seeds))[0]
    while len(seeds) < most:
        mass = np.cumsum(nearest)
        if mass[-1] <= 0.0:  # every row equals a seed
            break
        drawn = np.searchsorted(mass, rng.random(_CANDIDATES) * mass[-1], side="right")
        candidates = np.unique(np.minimum(drawn, len(sample) - 1))
        left = np.minimum(nearest, _distances(sample, squares, candidates))
        best = int(np.argmin(left.sum(axis=1)))
        seeds.append(int(candidates[best]))
        nearest = left[best]
    return np.array(seeds, dtype=np.int64)


def _distances(sample: Singles, squares: Floats, at: Ints) -> Floats:
    d2 = squares[None, :] + squares[at][:, None] - 2.0 * product(sample[at], sample)
    d2[d2 < _SAME] = 0.0
    return d2


def _lloyd(sample: Singles, stack: list[Singles], spherical: bool) -> list[Singles]:
    stack = list(stack)
    inertia = [np.inf] * len(stack)
    active = list(range(len(stack)))
    squares = np.einsum("ij,ij->i", sample, sample).astype(np.float64)
    for _ in range(_ITERATIONS):
        sums = _Sums([stack[i] for i in active], spherical)
        for start in range(0, len(sample), 4096):
            sums.add(sample[start : start + 4096], squares[start : start + 4096])
        moved = sums.means()
        still = []
        for i, centroids, value in zip(active, moved, sums.inertia, strict=True):
            stack[i] = centroids
            if inertia[i] - value > _SETTLED * value:
                still.append(i)
            inertia[i] = value
        active = still
        if not active:
            break
    return stack


def _one_pass(
    rows: UnitRows, stack: list[Singles], spherical: bool, update: bool = True
) -> tuple[list[Singles], list[float], npt.NDArray[np.int32]]:
    """Assign all rows to the centroids of every k; with `update`, also move the centroids to the means."""
    sums = _Sums(stack, spherical)
    assigned: npt.NDArray[np.int32] = np.empty((0 if update else len(rows), len(stack)), dtype=np.int32)
    for part in rows.parts(4096):
        unit = rows.unit(part)
        squares = (rows.norms[part] > 0).astype(np.float64)
        labels = sums.add(unit, squares, update)
        if not update:
            assigned[part] = labels
    return (sums.means() if update else stack), [float(v) for v in sums.inertia], assigned


class _Sums:
    """Sums of the rows nearest to each of the stacked centroids of several k."""

    def __init__(self, stack: list[Singles], spherical: bool) -> None:
        self.stack, self.spherical = stack, spherical
        self.centroids = np.concatenate(stack)
        self.starts = np.concatenate(([0], np.cumsum([len(c) for c in stack]))).astype(np.int64)
        lengths = np.einsum("ij,ij->i", self.centroids, self.centroids)
        self.bias = (-0.5 * lengths).astype(np.float32)
        self.sums = np.zeros(self.centroids.shape)
        self.counts = np.zeros(len(self.centroids), dtype=np.int64)
        self.inertia = np.zeros(len(stack))

    def add(self, unit: Singles, squares: Floats, update: bool = True) -> Ints:
        """Assign a block; returns the label of each row under each k, [n, len(stack)]."""
        from scipy.sparse import csc_array

        nearness = product(unit, self.centroids)
        nearness += self.bias
        labels = np.empty((len(unit), len(self.stack)), dtype=np.int64)
        index = np.arange(len(unit))
        for i in range(len(self.stack)):
            scores = nearness[:, self.starts[i] : self.starts[i + 1]]
            labels[:, i] = np.argmax(scores, axis=1)
            best = scores[index, labels[:, i]].astype(np.float64)
            self.inertia[i] += float(np.maximum(squares - 2.0 * best, 0.0).sum())
        if update:
            flat = labels + self.starts[:-1]
            self.counts += np.bincount(flat.ravel(), minlength=len(self.counts))
            # a sparse product adds each row to its centroids in order, whatever the number of threads
            pointers = np.arange(0, flat.size + 1, len(self.stack))
            ones = np.ones(flat.size, dtype=np.float32)
            self.sums += csc_array((ones, flat.ravel(), pointers), shape=(len(self.counts), len(unit))) @ unit
        return labels

    def means(self) -> list[Singles]:
        """The centroids moved to the means of their rows; one without rows stays where it is."""
        held = self.counts > 0
        moved = self.centroids.copy()
        moved[held] = self.sums[held] / self.counts[held, None]
        return [_scaled(moved[a:b], self.spherical) for a, b in zip(self.starts[:-1], self.starts[1:], strict=True)]


def _scaled(centroids: Singles, spherical: bool) -> Singles:
    if not spherical:
        return centroids
    lengths = np.linalg.norm(centroids.astype(np.float64), axis=1, keepdims=True)
    return (centroids / np.where(lengths > 0, lengths, 1.0)).astype(np.float32)


def _by_size(labels: Ints, k: int) -> tuple[Ints, Ints]:
    """Renumber so that the largest cluster is 0 and no number is empty; also the old number of each new one."""
    counts = np.bincount(labels, minlength=k)
    order = np.argsort(-counts, kind="stable")
    order = order[: int((counts > 0).sum())]
    renumbered = np.full(k, -1, dtype=np.int64)
    renumbered[order] = np.arange(len(order))
    return renumbered[labels], order
