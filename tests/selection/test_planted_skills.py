"""Each selector beats a random draw on the planted skill that its features show."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from liit.selection import select

N, BUDGET = 2000, 120


@pytest.fixture(scope="module")
def pool() -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Three skills: common (75 %), known (22 %) and rare (3 %), far apart, with the rare one more spread."""
    rng = np.random.default_rng(0)
    skill = rng.permutation(np.repeat([0, 1, 2], [1500, 440, 60]))
    centre = np.eye(12)[:3] * 4
    vectors = centre[skill] + np.array([0.6, 0.6, 1.2])[skill][:, None] * rng.normal(size=(N, 12))
    names = ("gradient", "embedding", "last_hidden_weighted")
    features = {name: vectors + 0.1 * rng.normal(size=(N, 12)) for name in names}
    features["embedding"] += 4.0 * np.eye(12)[11]  # what all samples share; transferability needs related concepts
    features["instructed_vision"] = vectors - vectors[skill == 0].mean(axis=0)
    for name in ("log_perplexity", "el2n", "entropy", "image_grounding", "grad_norm"):
        features[name] = rng.gamma(2, 1, N) + 3.0 * (skill == 2)
    features["source"] = np.array(["web", "books", "rare"])[skill]
    features["id"] = np.array([f"s{i}" for i in range(N)])
    return features, skill


QUERY = np.eye(12)[2:3] * 4 + 0.3 * np.random.default_rng(1).normal(size=(5, 12))
CASES: list[tuple[str, dict[str, Any]]] = [
    ("adapt-inf", {}),
    ("adapt-inf", {"expert": "rank-average"}),
    ("adapt-inf", {"expert": "mixture"}),
    ("semdedup", {"k": 3}),
    ("density", {"k": 3}),
    ("coincide", {}),
    ("scalselect", {}),
    ("rds-plus", {"queries": QUERY}),
    ("gist", {"queries": QUERY}),
    ("less", {"queries": QUERY}),
    ("random-balanced", {}),
    *[(name, {}) for name in ("perplexity", "el2n", "entropy", "image-grounding", "grad-norm")],
]


@pytest.mark.parametrize(("name", "options"), CASES)
def test_more_of_the_rare_skill_than_a_random_draw(pool: Any, name: str, options: dict[str, Any]) -> None:
    features, skill = pool
    drawn = [(skill[select("random", features, BUDGET, seed=s).rows] == 2).sum() for s in range(5)]
    rare = (skill[select(name, features, BUDGET, **options).rows] == 2).sum()
    assert rare > 2 * np.mean(drawn)
