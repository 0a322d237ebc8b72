from __future__ import annotations

import numpy as np
import pytest

from liit.selection.blocks import UnitRows, product
from liit.selection.kmeans import cluster, elbow


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
