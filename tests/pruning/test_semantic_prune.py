from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from liit.pruning import prune_semantically, semantic_prune
from liit.selection import allocate


def quadratic_reference(embeddings: np.ndarray, labels: np.ndarray, keep: int, order: np.ndarray) -> list[int]:
    """M_j over all pairs in float64, the smallest M stay, ties to the earlier row."""
    e = embeddings.astype(np.float64)
    u = e / np.maximum(np.linalg.norm(e, axis=1, keepdims=True), 1e-300)
    names, sizes = np.unique(labels, return_counts=True)
    kept: list[int] = []
    for name, share in zip(names, allocate(sizes, keep), strict=True):
        rows = [r for r in order if labels[r] == name]
        m = [max((float(u[i] @ u[j]) for i in rows[:p]), default=-np.inf) for p, j in enumerate(rows)]
        kept += [rows[p] for p in np.argsort(np.round(m, 12), kind="stable")[:share]]
    return sorted(kept)


def test_equals_the_quadratic_reference_on_5000_rows() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(5000, 32)).astype(np.float32)
    labels = rng.integers(5, size=5000)
    u = x.astype(np.float64)
    u /= np.linalg.norm(u, axis=1, keepdims=True)
    kept: list[np.ndarray] = []
    for c, share in enumerate(allocate(np.bincount(labels), 2500)):
        rows = np.flatnonzero(labels == c)
        cosine = np.where(np.tri(len(rows), k=-1, dtype=bool), u[rows] @ u[rows].T, -np.inf)
        kept.append(rows[np.argsort(cosine.max(axis=1), kind="stable")[:share]])
    assert np.array_equal(semantic_prune(x, labels, 2500), np.sort(np.concatenate(kept)))


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 40), st.integers(0, 50), st.integers(1, 4), st.integers(0, 10**6), st.booleans())
def test_equals_the_definition_for_any_order_duplicates_included(
    n: int, keep: int, clusters: int, seed: int, twins: bool
) -> None:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 3)).astype(np.float32)
    if twins and n:
        x = x[rng.integers(max(1, n // 3), size=n)]
    labels, order = rng.integers(clusters, size=n), rng.permutation(n)
    kept = semantic_prune(x, labels, keep, order)
    assert len(kept) == min(keep, n)
    assert kept.tolist() == quadratic_reference(x, labels, keep, order)


def test_ties_stay_with_the_older_row_and_the_copy_goes() -> None:
    x = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 2.0]])
    assert semantic_prune(x, np.zeros(4, int), 2).tolist() == [0, 1]
    assert semantic_prune(x, np.zeros(4, int), 3).tolist() == [0, 1, 2]
    assert semantic_prune(x, np.zeros(4, int), 2, order=[3, 2, 1, 0]).tolist() == [2, 3]


def test_rare_clusters_lose_nothing() -> None:
    rng = np.random.default_rng(0)
    labels = np.array(["common"] * 90 + ["rare"] * 5)
    kept = semantic_prune(rng.normal(size=(95, 4)), labels, 40)
    assert set(range(90, 95)) <= set(kept.tolist())


def test_memory_setting_does_not_change_the_answer() -> None:
    rng = np.random.default_rng(1)
    x, labels = rng.normal(size=(3000, 8)).astype(np.float32), np.zeros(3000, int)
    whole = prune_semantically(x, labels, 1500)
    for memory in (1, 10_000, 300_000):
        small = prune_semantically(x, labels, 1500, memory=memory)
        assert np.array_equal(small.kept, whole.kept)
        assert np.array_equal(small.similarity, whole.similarity)


def test_evidence_names_the_most_similar_earlier_row() -> None:
    x = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.1], [np.nan, 0.0], [0.0, 0.0]])
    out = prune_semantically(x, [0, 0, 0, 0, 0], 4)
    assert out.neighbour.tolist() == [-1, 0, 0, -1, 0]
    assert out.similarity[2] == pytest.approx(1 / np.sqrt(1.01))
    assert out.similarity[0] == out.similarity[3] == -np.inf
    assert out.pruned.tolist() == [2]


def test_of_equal_neighbours_the_oldest_is_named_in_whichever_block_it_lies() -> None:
    x = np.random.default_rng(0).normal(size=(5, 4))[np.tile(np.arange(5), 40)]
    for memory in (1, 1 << 28):
        out = prune_semantically(x, np.zeros(200, int), 5, memory=memory)
        assert out.neighbour[5:].tolist() == np.tile(np.arange(5), 39).tolist()


def test_width_and_length_of_embeddings_do_not_matter() -> None:
    rng = np.random.default_rng(2)
    x, labels = rng.normal(size=(400, 5)).astype(np.float16), rng.integers(3, size=400)
    base = semantic_prune(x, labels, 123)
    for other in (x.astype(np.float32), x.astype(np.float64), x.astype(np.float64) * 2.0**-70):
        assert np.array_equal(semantic_prune(other, labels, 123), base)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ((np.ones(3), [0, 0, 0], 1), "embeddings"),
        ((np.ones((3, 2)), [0, 0], 1), "labels"),
        ((np.ones((3, 2)), [0.5, 0, 0], 1), "labels"),
        ((np.ones((3, 2)), [0, 0, 0], -1), "keep"),
        ((np.ones((3, 2)), [0, 0, 0], 1, [0, 1, 1]), "order"),
        ((np.ones((3, 2)), [0, 0, 0], 1, [0, 1]), "order"),
        ((np.full((3, 2), np.inf), [0, 0, 0], 1), "embeddings"),
    ],
)
def test_bad_input_names_the_argument(arguments: tuple[object, ...], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        semantic_prune(*arguments)  # type: ignore[arg-type]
