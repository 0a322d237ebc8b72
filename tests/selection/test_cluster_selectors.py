"""semdedup, density and coincide against slow references, on clusters that are given."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from liit.pruning import semantic_prune
from liit.selection import select

TAU = 0.1


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


@pytest.fixture
def pool() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    labels = np.sort(rng.choice(4, size=160, p=[0.5, 0.3, 0.15, 0.05]))
    spread = np.array([0.3, 0.6, 1.0, 0.2])[labels][:, None]
    return (rng.normal(size=(4, 10))[labels] + spread * rng.normal(size=(160, 10))).astype(np.float32), labels


def test_semdedup_keeps_what_semantic_pruning_keeps(pool: Any) -> None:
    x, labels = pool
    found = select("semdedup", {"embedding": x}, 70, labels=labels)
    assert found.rows.tolist() == semantic_prune(x, labels, 70).tolist()
    assert found.labels.tolist() == labels.tolist()


def test_earlier_means_the_smaller_id(pool: Any) -> None:
    x, labels = pool
    ids = np.arange(160)[::-1].copy()
    found = select("semdedup", {"id": ids, "embedding": x}, 70, labels=labels)
    assert found.rows.tolist() == semantic_prune(x, labels, 70, order=np.arange(160)[::-1]).tolist()


def test_with_centroid_order_the_least_typical_of_two_twins_stays(pool: Any) -> None:
    x, labels = pool
    _, cosine = density_reference(x, labels)
    found = select("semdedup", {"embedding": x}, 70, labels=labels, order="centroid")
    assert found.rows.tolist() == semantic_prune(x, labels, 70, order=np.argsort(cosine)).tolist()
    assert found.rows.tolist() != select("semdedup", {"embedding": x}, 70, labels=labels).rows.tolist()
    with pytest.raises(ValueError, match="order must be one of arrival, centroid"):
        select("semdedup", {"embedding": x}, 70, order="random")


def density_reference(x: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    u = unit(x.astype(float))
    centres = unit(np.stack([u[labels == c].mean(axis=0) for c in range(4)]))
    intra = np.array([np.mean([1 - u[i] @ centres[c] for i in np.flatnonzero(labels == c)]) for c in range(4)])
    inter = np.array([np.mean([1 - centres[c] @ centres[o] for o in range(4) if o != c]) for c in range(4)])
    return intra * inter, np.array([u[i] @ centres[labels[i]] for i in range(len(u))])


def shares_by_the_rule(sizes: np.ndarray, weights: np.ndarray, total: int) -> list[int]:
    """Parts in proportion; a cluster that is smaller than its part gives all and the others' parts are raised."""
    shares, open_ = np.zeros(len(sizes), int), np.ones(len(sizes), bool)
    while True:
        part = (total - shares[~open_].sum()) * weights / weights[open_].sum()
        full = open_ & (part >= sizes)
        if not full.any():
            break
        shares[full], open_ = sizes[full], open_ & ~full
    shares[open_] = np.floor(part[open_])
    by_remainder = sorted(np.flatnonzero(open_), key=lambda c: -(part[c] - np.floor(part[c])))
    for c in by_remainder[: total - shares.sum()]:
        shares[c] += 1
    return shares.tolist()


@pytest.mark.parametrize("budget", [30, 90, 140])
@pytest.mark.parametrize("compat", [None, "official"])
def test_density_shares_and_rows_follow_the_formula(pool: Any, compat: str | None, budget: int) -> None:
    x, labels = pool
    complexity, cosine = density_reference(x, labels)
    weights = complexity if compat else np.exp(complexity / TAU)
    found = select("density", {"embedding": x}, budget, labels=labels, compat=compat)
    shares = [c["budget"] for c in found.info["clusters"]]
    assert shares == shares_by_the_rule(np.bincount(labels), weights, budget)
    for c, share in enumerate(shares):
        members = np.flatnonzero(labels == c)
        expected = members[np.argsort(cosine[members])[:share]]
        assert sorted(expected.tolist()) == found.rows[labels[found.rows] == c].tolist()


def test_density_gives_spread_out_clusters_more(pool: Any) -> None:
    x, labels = pool
    found = select("density", {"embedding": x}, 30, labels=labels, temperature=0.02)
    cool = [c["budget"] for c in found.info["clusters"]]
    assert cool[2] == max(cool)


def greedy_reference(u: np.ndarray, share: int) -> list[int]:
    """Greedy MMD with every candidate set written out."""
    kernel = np.exp(-((u[:, None] - u[None]) ** 2).sum(axis=2) / 2)
    chosen: list[int] = []
    for _ in range(share):
        free = [i for i in range(len(u)) if i not in chosen]
        value = [kernel[np.ix_(c, c)].mean() - 2 * kernel[c].mean() for c in ([*chosen, i] for i in free)]
        chosen.append(free[int(np.argmin(np.round(value, 9)))])
    return chosen


@pytest.mark.parametrize("compat", [None, "official"])
def test_coincide_follows_the_formula(pool: Any, compat: str | None) -> None:
    x, labels = pool
    u = unit(x.astype(float))
    centres = unit(np.stack([u[labels == c].mean(axis=0) for c in range(4)]))
    cosine = centres @ centres.T
    transfer, dense = [], []
    for c in range(4):
        others = [cosine[c, o] for o in range(4) if o != c and cosine[c, o] <= 0.9]
        transfer.append(np.mean(others))
        rows = u[labels == c]
        pairs = [
            np.exp(-((a - b) ** 2).sum() / 2)
            for i, a in enumerate(rows)
            for j, b in enumerate(rows)
            if compat or i != j
        ]
        dense.append(np.mean(pairs))
    found = select("coincide", {"embedding": x}, 40, labels=labels, compat=compat)
    entries = found.info["clusters"]
    assert [e["transferability"] for e in entries] == pytest.approx(transfer, abs=1e-6)
    assert [e["density"] for e in entries] == pytest.approx(dense, abs=1e-6)
    weights = np.exp(np.array(transfer) / (np.array(dense) * TAU))
    left, mass, shares = 40, weights.sum(), np.zeros(4, int)
    for c in np.argsort(-weights):
        shares[c] = min((labels == c).sum(), round(left * weights[c] / mass))
        left, mass = left - shares[c], mass - weights[c]
    assert left == 0
    assert [e["budget"] for e in entries] == shares.tolist()
    for c, share in enumerate(shares):
        members = np.flatnonzero(labels == c)
        expected = members[greedy_reference(u[members], share)]
        assert sorted(expected.tolist()) == found.rows[labels[found.rows] == c].tolist()


def test_near_copies_do_not_count_as_transfer_targets() -> None:
    directions = np.array([[1.0, 0.0, 0.0], [1.0, 0.05, 0.0], [0.5, 0.0, 1.0]])
    found = select("coincide", {"embedding": np.repeat(directions, 3, axis=0)}, 3, labels=np.repeat([0, 1, 2], 3))
    u = unit(directions)
    expected = [u[0] @ u[2], u[1] @ u[2], (u[2] @ u[0] + u[2] @ u[1]) / 2]
    assert [e["transferability"] for e in found.info["clusters"]] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("name", "options", "named"),
    [
        ("density", {"temperature": 0}, "temperature"),
        ("density", {"compat": "paper"}, "compat"),
        ("coincide", {"temperature": -1.0}, "temperature"),
        ("coincide", {"sigma": 0.0}, "sigma"),
        ("coincide", {"k": 0}, "k must"),
        ("semdedup", {"k_grid": [0]}, "k_grid"),
        ("semdedup", {"labels": [1]}, "labels"),
        ("semdedup", {"memory": 0}, "memory"),
    ],
)
def test_bad_options_are_named(pool: Any, name: str, options: dict[str, object], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        select(name, {"embedding": pool[0]}, 5, **options)
