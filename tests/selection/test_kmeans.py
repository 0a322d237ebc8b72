from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from liit.selection import spherical_kmeans
from liit.selection.blocks import UnitRows, product
from liit.selection.kmeans import _seed_chain, cluster, elbow


def planted(n: int, skills: int, dim: int = 24, noise: float = 0.25, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = rng.integers(skills, size=n)
    return rng.normal(size=(skills, dim))[truth] + noise * rng.normal(size=(n, dim)), truth


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def groups(labels: np.ndarray) -> set[frozenset[int]]:
    return {frozenset(np.flatnonzero(labels == c).tolist()) for c in np.unique(labels)}


@pytest.mark.parametrize("spherical", [False, True])
@pytest.mark.parametrize("n", [400, 9000])
def test_planted_skills_are_found(n: int, spherical: bool) -> None:
    x, truth = planted(n, 6)
    found = cluster(UnitRows(x, "x"), k=6, spherical=spherical)
    assert groups(found.labels) == groups(truth)


def test_elbow_finds_the_planted_number() -> None:
    x, _ = planted(3000, 10)
    found = cluster(UnitRows(x, "x"), grid=range(2, 21, 2))
    assert found.k == 10
    assert [p["k"] for p in found.curve] == list(range(2, 21, 2))


def test_inertia_is_that_of_the_labels_and_close_to_scikit_learns() -> None:
    from sklearn.cluster import KMeans

    x, _ = planted(6000, 9, noise=1.5)
    found = cluster(UnitRows(x, "x"), k=9)
    u = unit(x)
    own = ((u - found.centroids[found.labels]) ** 2).sum()
    assert found.curve[0]["inertia"] == pytest.approx(own, rel=1e-4)
    assert own <= 1.02 * KMeans(9, n_init=3, random_state=0).fit(u).inertia_


def test_every_row_has_the_nearest_centroid() -> None:
    x, _ = planted(500, 5, noise=1.0)
    found = cluster(UnitRows(x, "x"), k=7)
    distances = ((unit(x)[:, None, :] - found.centroids[None]) ** 2).sum(axis=2)
    assert (distances[np.arange(500), found.labels] <= distances.min(axis=1) + 1e-5).all()


def test_clusters_are_numbered_by_size_without_gaps() -> None:
    x, _ = planted(500, 5)
    labels = cluster(UnitRows(x, "x"), k=8).labels
    sizes = np.bincount(labels)
    assert (sizes > 0).all()
    assert (np.diff(sizes) <= 0).all()


def test_fewer_distinct_rows_than_clusters() -> None:
    x = np.repeat(np.eye(3), 5, axis=0)
    found = cluster(UnitRows(x, "x"), k=10)
    assert found.k == 3
    assert groups(found.labels) == groups(np.repeat(np.arange(3), 5))
    assert cluster(UnitRows(np.ones((4, 2)), "x"), grid=(5, 10)).k == 1


def test_rows_without_a_vector_are_a_cluster_of_their_own() -> None:
    x, _ = planted(60, 3)
    x[[4, 40], 2] = np.nan
    found = cluster(UnitRows(x, "x"), k=3)
    assert np.flatnonzero(found.labels == found.k).tolist() == [4, 40]
    assert cluster(UnitRows(np.full((5, 2), np.nan), "x")).labels.tolist() == [0] * 5


def test_length_and_width_of_the_rows_do_not_matter() -> None:
    x = planted(700, 6)[0].astype(np.float16)
    base = cluster(UnitRows(x, "x"), seed=3).labels
    for other in (
        x.astype(np.float32),
        x.astype(np.float64),
        x.astype(np.float64) * 2.0**-70,
        x.astype(np.float64) * 1e25,
    ):
        assert np.array_equal(cluster(UnitRows(other, "x"), seed=3).labels, base)


def test_same_seed_same_labels_and_another_seed_may_differ() -> None:
    x = np.random.default_rng(0).normal(size=(800, 10))
    labels = [cluster(UnitRows(x, "x"), k=12, seed=s).labels for s in (0, 0, 1)]
    assert np.array_equal(labels[0], labels[1])
    assert not np.array_equal(labels[0], labels[2])


def test_elbow_of_lines_and_short_curves_is_the_smallest() -> None:
    assert elbow([5, 10, 15], [3.0, 2.0, 1.0]) == 0
    assert elbow([5, 10], [3.0, 2.0]) == 0
    assert elbow([5, 10, 15], [3.0, 3.0, 3.0]) == 0
    assert elbow([5, 10, 15, 20], [9.0, 2.0, 1.5, 1.0]) == 1


@pytest.mark.parametrize("arguments", [{"k": 0}, {"k": 2.5}, {"grid": ()}, {"grid": (0, 5)}])
def test_bad_numbers_of_clusters_are_refused(arguments: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="k"):
        cluster(UnitRows(np.eye(3), "x"), **arguments)  # type: ignore[arg-type]


def test_blocked_product_equals_the_product() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(5, 700)), rng.normal(size=(4, 700))
    assert np.allclose(product(a, b), a @ b.T)
    assert np.allclose(product(a.astype(np.float32), b.astype(np.float32)), a @ b.T, atol=1e-3)


def test_unit_rows_survive_values_whose_squares_do_not_fit() -> None:
    x = np.array([[3e-30, 4e-30], [3e25, 4e25], [0.0, 0.0], [3.0, 4.0]])
    rows = UnitRows(x, "x")
    assert np.allclose(rows.unit(slice(0, 4)), [[0.6, 0.8], [0.6, 0.8], [0, 0], [0.6, 0.8]])
    with pytest.raises(ValueError, match="gradient has infinite"):
        UnitRows(np.array([[np.inf, 1.0]]), "gradient")


def slow_lloyd(u: np.ndarray, seeds: np.ndarray, spherical: bool) -> np.ndarray:
    """Lloyd's algorithm by its definition, one row and one centroid at a time, until nothing moves."""
    centroids, labels = u[seeds].copy(), np.full(len(u), -1)
    for _ in range(100):
        new = np.array([min(range(len(seeds)), key=lambda c: ((row - centroids[c]) ** 2).sum()) for row in u])
        if (new == labels).all():
            break
        labels = new
        for c in range(len(seeds)):
            mean = u[labels == c].mean(axis=0)
            centroids[c] = mean / np.linalg.norm(mean) if spherical else mean
    return labels


@pytest.mark.parametrize("spherical", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_from_the_same_seeds_it_ends_where_lloyds_algorithm_ends(seed: int, spherical: bool) -> None:
    x, _ = planted(150, 5, dim=4, noise=0.4, seed=seed)
    rows = UnitRows(x, "x")
    found = cluster(rows, k=4, seed=seed, spherical=spherical)
    chain = _seed_chain(rows.unit(slice(0, 150)), 4, np.random.default_rng([seed, 0x6B]))
    labels = slow_lloyd(unit(x), chain, spherical)
    inertia = sum(((unit(x)[labels == c] - found.centroids[i]) ** 2).sum() for i, c in enumerate(by_size(labels)))
    # the last move of less than a thousandth of the inertia is not made
    assert found.curve[0]["inertia"] == pytest.approx(inertia, rel=5e-3)
    same = (found.labels == np.argsort(by_size(labels))[labels]).mean()
    assert same > 0.97


def by_size(labels: np.ndarray) -> np.ndarray:
    return np.argsort(-np.bincount(labels), kind="stable")


def test_the_next_seed_leaves_the_least_inertia_of_the_candidates_drawn() -> None:
    """Greedy k-means++ (Grunau et al. 2023), with its random numbers drawn again."""
    u = unit(np.random.default_rng(5).normal(size=(80, 5))).astype(np.float32)
    chain = _seed_chain(u, 6, np.random.default_rng(11))
    rng = np.random.default_rng(11)
    seeds = [int(rng.integers(80))]
    while len(seeds) < 6:
        nearest = np.array([min(((row - u[s]) ** 2).sum() for s in seeds) for row in u.astype(float)])
        steps = np.cumsum(nearest) / nearest.sum()
        candidates = sorted({int((steps <= r).sum()) for r in rng.random(8)})
        left = [np.minimum(nearest, ((u.astype(float) - u[c]) ** 2).sum(axis=1)).sum() for c in candidates]
        seeds.append(candidates[int(np.argmin(left))])
    assert chain.tolist() == seeds


@given(st.lists(st.integers(0, 1000), min_size=3, max_size=12), st.integers(0, 10**6))
def test_elbow_is_farthest_from_the_chord(drops: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    sizes = np.cumsum(rng.integers(1, 9, size=len(drops)))
    inertia = 1.0 + np.cumsum(drops[::-1])[::-1]
    if inertia[0] == inertia[-1]:
        assert elbow(sizes.tolist(), inertia.tolist()) == 0
        return
    x = (sizes - sizes[0]) / (sizes[-1] - sizes[0])
    y = (inertia - inertia[-1]) / (inertia[0] - inertia[-1])
    below = (1.0 - x - y) / np.sqrt(2.0)  # distance from the line between (0, 1) and (1, 0)
    found = elbow(sizes.tolist(), inertia.tolist())
    assert below[found] == pytest.approx(below.max(), abs=1e-8)
    assert found == int(np.argmax(below > below.max() - 1e-10))


def test_spherical_clusters_do_not_depend_on_the_order_of_the_rows() -> None:
    x, truth = planted(400, 6)
    found = spherical_kmeans(x, k_grid=range(2, 13))
    assert found.k == 6
    assert groups(found.labels) == groups(truth)
    assert [point["k"] for point in found.curve] == list(range(2, 13))
    assert np.allclose(np.linalg.norm(found.centroids, axis=1), 1.0, atol=1e-6)
    order = np.random.default_rng(0).permutation(400)
    assert np.array_equal(spherical_kmeans(x[order], k_grid=range(2, 13)).labels, found.labels[order])
    noise = np.random.default_rng(1).normal(size=(5000, 7))
    order = np.random.default_rng(2).permutation(5000)
    assert np.array_equal(spherical_kmeans(noise[order], 9).labels, spherical_kmeans(noise, 9).labels[order])
    assert not np.array_equal(spherical_kmeans(noise, 9).labels, spherical_kmeans(noise, 9, seed=1).labels)


def test_spherical_centroids_are_the_mean_directions_of_their_rows() -> None:
    x, _ = planted(3000, 5, noise=1.0)
    found = spherical_kmeans(x, 5)
    for c in range(found.k):
        mean = unit(x)[found.labels == c].mean(axis=0)
        assert mean / np.linalg.norm(mean) @ found.centroids[c] > 0.999
    cosine = unit(x) @ found.centroids.T
    assert (cosine[np.arange(3000), found.labels] >= cosine.max(axis=1) - 1e-6).all()
