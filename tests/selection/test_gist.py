from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from liit.selection import gist_scores, select
from liit.selection.gist import target_subspace


def gram_route(train: np.ndarray, targets: np.ndarray, k: int, groups: np.ndarray | None = None) -> np.ndarray:
    """The official route: Gram matrix, eigenvectors, projector; with groups the means of raw coordinates."""
    values, q = np.linalg.eigh(targets @ targets.T)
    top = np.argsort(-values)[:k]
    s = np.sqrt(np.maximum(values[top], 0))
    projector = targets.T @ q[:, top] / s
    assert np.allclose(projector.T @ projector, np.eye(k), atol=1e-6)
    z_targets = q[:, top] * s
    if groups is not None:
        z_targets = np.stack([z_targets[groups == g].mean(axis=0) for g in np.unique(groups)])
    z = train @ projector
    cosine = (z / np.linalg.norm(z, axis=1, keepdims=True)) @ (
        z_targets / np.linalg.norm(z_targets, axis=1, keepdims=True)
    ).T
    return cosine.max(axis=1)


def case(seed: int, n: int = 120, m: int = 6, d: int = 30) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    lengths = rng.gamma(2, 2, size=(m, 1))
    train, targets = rng.normal(size=(n, d)), rng.normal(size=(m, d)) * lengths
    return train.astype(np.float32).astype(float), targets.astype(np.float32).astype(float)


@pytest.mark.parametrize("k", [1, 3, 6])
def test_equals_the_gram_route_of_the_official_code(k: int) -> None:
    train, targets = case(0)
    groups = np.array([0, 0, 1, 1, 2, 2])
    assert np.allclose(gist_scores(train, targets, k), gram_route(train, targets, k), atol=1e-9)
    by_task = gist_scores(train, targets, k, groups=groups, aggregate="subtask")
    assert np.allclose(by_task, gram_route(train, targets, k, groups), atol=1e-9)
    if k > 1:
        assert not np.allclose(by_task, gist_scores(train, targets, k), atol=1e-3)


def test_projector_is_orthonormal_and_rank_follows_the_energy() -> None:
    _, targets = case(1)
    s2 = np.linalg.svd(targets, compute_uv=False) ** 2
    for share in (0.3, 0.7, 0.95, 1.0):
        basis = target_subspace(targets, share)
        assert np.allclose(basis.T @ basis, np.eye(basis.shape[1]), atol=1e-12)
        assert basis.shape[1] == int(np.argmax(np.cumsum(s2) / s2.sum() >= share - 1e-12)) + 1
    assert target_subspace(targets, 99).shape[1] == 6
    assert target_subspace(np.repeat(targets[:2], 3, axis=0), 99).shape[1] == 2


@given(st.lists(st.floats(-3, 3), min_size=6, max_size=6), st.integers(0, 100))
def test_with_every_direction_the_lengths_of_the_targets_do_not_matter(logs: list[float], seed: int) -> None:
    train, targets = case(seed)
    scaled = targets * 10.0 ** np.array(logs)[:, None]
    assert np.allclose(gist_scores(train, scaled, 6), gist_scores(train, targets, 6), atol=1e-5)


def test_with_fewer_directions_they_do_matter_and_candidate_lengths_never() -> None:
    train, targets = case(3)
    factors = 10.0 ** np.arange(-3, 3)[:, None]
    assert not np.allclose(gist_scores(train, targets * factors, 2), gist_scores(train, targets, 2), atol=1e-2)
    scaled = train * np.random.default_rng(0).uniform(1e-3, 1e3, size=(120, 1))
    assert np.allclose(gist_scores(scaled, targets, 2), gist_scores(train, targets, 2), atol=1e-5)


def test_normalised_targets_are_refused_when_directions_are_dropped() -> None:
    train, targets = case(4)
    normalised = targets / np.linalg.norm(targets, axis=1, keepdims=True)
    with pytest.raises(ValueError, match="raw gradients"):
        gist_scores(train, normalised, 3)
    assert np.allclose(gist_scores(train, normalised, 6), gist_scores(train, targets, 6), atol=1e-5)


def test_on_sketches_it_converges_to_the_exact_scores() -> None:
    train, targets = case(5, n=300, m=5, d=2000)
    train += np.random.default_rng(0).normal(size=(300, 5)) @ targets
    exact = gist_scores(train, targets, 5)
    errors = []
    for m in (64, 512, 4096):
        signs = np.random.default_rng(m).choice([-1.0, 1.0], size=(2000, m)) / np.sqrt(m)
        errors.append(np.abs(gist_scores(train @ signs, targets @ signs, 5) - exact).mean())
    assert errors[0] > 1.8 * errors[1] > 3.2 * errors[2]
    assert errors[2] < 0.02


def test_tiny_gradients_are_scored_like_large_ones() -> None:
    train, targets = case(6)
    assert np.allclose(gist_scores(train * 2.0**-60, targets * 2.0**-60, 3), gist_scores(train, targets, 3))


def test_missing_and_empty_directions() -> None:
    train, targets = case(7)
    train[0, 0] = np.nan
    train[1] = 0
    scores = gist_scores(train, targets, 2)
    assert np.isnan(scores[0])
    assert scores[1] == 0.0


def test_targets_without_a_gradient_give_no_score() -> None:
    train, targets = case(7)
    assert not gist_scores(train, np.zeros_like(targets), 0.95).any()
    assert len(select("gist", {"gradient": train}, 9, queries=np.zeros_like(targets))) == 9


def test_selector_takes_the_best_scores() -> None:
    train, targets = case(8)
    found = select("gist", {"gradient": train}, 30, queries=targets, rank=0.8)
    expected = np.argsort(-gist_scores(train, targets, 0.8))[:30]
    assert found.rows.tolist() == sorted(expected.tolist())


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"rank": 0}, "rank"),
        ({"rank": 1.5}, "rank"),
        ({"rank": True}, "rank"),
        ({"rank": 2, "aggregate": "mean"}, "aggregate"),
        ({"rank": 2, "aggregate": "subtask"}, "groups"),
        ({"rank": 2, "groups": [1, 2]}, "groups"),
    ],
)
def test_bad_options_are_named(options: dict[str, object], named: str) -> None:
    train, targets = case(0)
    with pytest.raises(ValueError, match=named):
        gist_scores(train, targets, **options)  # type: ignore[arg-type]


def test_bad_arrays_are_named() -> None:
    train, targets = case(0)
    for wrong in (targets[:, :5], targets[:0], targets[0], np.full((2, 30), np.nan), np.full((2, 30), np.inf)):
        with pytest.raises(ValueError, match="targets"):
            gist_scores(train, wrong, 2)
    with pytest.raises(ValueError, match="train"):
        gist_scores(train[0], targets, 2)
