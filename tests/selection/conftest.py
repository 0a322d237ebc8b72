from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))  # so that the tests of this folder find method_matrix.py

SCALARS = (
    "log_perplexity",
    "blind_log_perplexity",
    "image_grounding",
    "el2n",
    "entropy",
    "grad_norm",
    "n_answer_tokens",
)
VECTORS = ("gradient", "embedding", "last_hidden_weighted", "instructed_vision")

Features = dict[str, np.ndarray]


def build_features(n: int, seed: int = 0, kind: str = "plain", dim: int = 6, ids: bool = True) -> Features:
    """Every standard feature for n rows; `kind` says in which way the pool is awkward."""
    rng = np.random.default_rng([seed, n])
    skills = rng.normal(size=(4, dim)) * 3
    skill = rng.integers(4, size=n)
    features: Features = {name: rng.gamma(2.0, 1.0, n) for name in SCALARS}
    for name in VECTORS:
        features[name] = skills[skill] + rng.normal(size=(n, dim))
    features["source"] = np.array(["abc"[i] for i in rng.integers(3, size=n)], dtype="<U1")
    features["new"] = rng.random(n) < 0.3
    if kind == "missing":
        for name in SCALARS:
            features[name][rng.random(n) < 0.4] = np.nan
        for name in VECTORS:
            features[name][rng.random(n) < 0.2, 0] = np.nan
    elif kind == "all-missing":
        for name in SCALARS + VECTORS:
            features[name][...] = np.nan
    elif kind == "constant":
        for name in SCALARS + VECTORS:
            features[name][...] = 0.7
    elif kind == "zero":
        for name in SCALARS + VECTORS:
            features[name][...] = 0.0
    elif kind == "duplicates":
        twin = rng.integers(max(1, n // 4), size=n)
        for name in SCALARS + VECTORS:
            features[name] = features[name][twin]
    elif kind == "one-cluster":
        for name in VECTORS:
            features[name] = np.ones((n, dim)) + 1e-3 * rng.normal(size=(n, dim))
    if ids:
        features["id"] = np.array([f"s{i:06d}" for i in rng.permutation(n)], dtype="<U7")
    return features


@pytest.fixture(scope="session")
def make_features() -> Callable[..., Features]:
    return build_features
