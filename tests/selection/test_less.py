from __future__ import annotations

import numpy as np
import pytest

from liit.selection import adam_direction, select


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def test_score_is_the_rate_weighted_cosine_mean_per_sub_task_best_sub_task() -> None:
    rng = np.random.default_rng(0)
    names, rates = ("gradient", "gradient_2"), np.array([2e-5, 1e-5])
    pool = {name: rng.normal(size=(150, 12)).astype(np.float32) for name in names}
    queries = {name: rng.normal(size=(6, 12)).astype(np.float32) for name in names}
    groups = np.array(["x", "y", "x", "y", "y", "z"])
    influence = sum(
        rate / rates.sum() * unit(pool[n].astype(float)) @ unit(queries[n].astype(float)).T
        for n, rate in zip(names, rates, strict=True)
    )
    expected = np.max([influence[:, groups == g].mean(axis=1) for g in "xyz"], axis=0)
    found = select("less", pool, 40, queries=queries, groups=groups, checkpoints=names, learning_rates=rates)
    assert found.rows.tolist() == sorted(np.argsort(-expected)[:40].tolist())
    assert np.allclose(found.table["score"].to_numpy(), expected[found.rows], atol=1e-7)


def test_adam_direction_is_the_step_of_adam() -> None:
    rng = np.random.default_rng(1)
    g, m, v = rng.normal(size=(3, 5)), rng.normal(size=5), rng.random(5)
    expected = (0.9 * m + 0.1 * g[1]) / np.sqrt(0.999 * v + 0.001 * g[1] ** 2 + 1e-8)
    assert np.allclose(adam_direction(g, m, v)[1], expected)
    assert np.allclose(adam_direction(g[1], m, v), expected)
    with pytest.raises(ValueError, match="first and second"):
        adam_direction(g, m[:3], v)
    with pytest.raises(ValueError, match="second"):
        adam_direction(g, m, -v)


def test_with_the_number_of_the_step_the_moments_are_corrected_as_in_adam() -> None:
    """Adam (Kingma and Ba 2015) run by hand: its steps, with epsilon under the root, are the directions."""
    rng = np.random.default_rng(2)
    gradients = rng.normal(size=(6, 4))
    first, second = np.zeros(4), np.zeros(4)
    for t, g in enumerate(gradients, start=1):
        found = adam_direction(g, first, second, step=t)
        first, second = 0.9 * first + 0.1 * g, 0.999 * second + 0.001 * g * g
        expected = first / (1 - 0.9**t) / np.sqrt(second / (1 - 0.999**t) + 1e-8)
        assert np.allclose(found, expected)
    with pytest.raises(ValueError, match="step must be at least 1"):
        adam_direction(gradients[0], first, second, step=0)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"checkpoints": ("gradient", "gradient_9")}, "gradient_9"),
        ({"checkpoints": "gradient"}, "checkpoints"),
        ({"checkpoints": ()}, "checkpoints"),
        ({"learning_rates": [1.0, 2.0]}, "learning_rates"),
        ({"learning_rates": [-1.0]}, "learning_rates"),
        ({"learning_rates": [0.0]}, "learning_rates"),
    ],
)
def test_bad_options_are_named(options: dict[str, object], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        select("less", {"gradient": np.eye(3)}, 1, queries=np.eye(3), **options)
