from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from liit.selection import leverage, select


def by_svd(x: np.ndarray, energy: float) -> tuple[np.ndarray, int]:
    u, s, _ = np.linalg.svd(x - x.mean(axis=0), full_matrices=False)
    k = int(np.argmax(np.cumsum(s**2) / (s**2).sum() >= energy - 1e-12)) + 1
    return (u[:, :k] ** 2).sum(axis=1), k


def matrix(n: int, d: int, seed: int, offset: float = 0.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, d)) * np.geomspace(10, 0.1, d) + offset
    return x.astype(np.float32).astype(float)


@pytest.mark.parametrize("energy", [0.1, 0.5, 0.9, 0.999])
@pytest.mark.parametrize(("n", "d"), [(5, 3), (300, 20), (12, 30), (9000, 40)])
def test_streaming_equals_the_full_svd(n: int, d: int, energy: float) -> None:
    x = matrix(n, d, n)
    scores, k = leverage(x, energy)
    expected, rank = by_svd(x, energy)
    assert k == rank
    assert np.abs(scores - expected).max() < 1e-6


def test_a_large_mean_costs_no_digits() -> None:
    x = matrix(500, 10, 0, offset=1000.0)
    assert np.abs(leverage(x)[0] - by_svd(x, 0.9)[0]).max() < 1e-6


@given(st.integers(2, 60), st.integers(1, 12), st.floats(0.05, 1.0), st.integers(0, 10**6))
def test_leverage_sums_to_its_rank_and_lies_between_0_and_1(n: int, d: int, energy: float, seed: int) -> None:
    scores, k = leverage(matrix(n, d, seed), energy)
    assert scores.sum() == pytest.approx(k, abs=1e-6)
    assert scores.min() >= 0
    assert scores.max() <= 1 + 1e-6
    assert 1 <= k <= min(d, n - 1)


@given(st.integers(0, 10**6))
def test_rotation_and_shift_change_nothing(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = matrix(80, 6, seed)
    q, _ = np.linalg.qr(rng.normal(size=(6, 6)))
    scores, k = leverage(x, 0.8)
    moved, rank = leverage(x @ q + rng.normal(size=6), 0.8)
    assert rank == k
    assert np.allclose(moved, scores, atol=1e-5)


def test_equal_rows_have_no_leverage_and_empty_pools_no_rank() -> None:
    scores, k = leverage(np.full((50, 4), 0.1))
    assert k == 0
    assert not scores.any()
    assert leverage(np.zeros((0, 4)))[1] == 0
    assert leverage(np.ones((1, 4)))[0].tolist() == [0.0]


def test_rows_with_missing_values_are_left_out() -> None:
    x = matrix(100, 5, 1)
    holed = np.concatenate((x[:50], np.full((10, 5), np.nan), x[50:]))
    scores, k = leverage(holed)
    whole, rank = leverage(x)
    assert k == rank
    assert np.isnan(scores[50:60]).all()
    assert np.allclose(np.delete(scores, np.s_[50:60]), whole)


def test_selector_takes_the_highest_leverage_and_fills_with_the_rest() -> None:
    x = matrix(100, 5, 2)
    x[:20] = np.nan
    expected = np.argsort(-np.nan_to_num(leverage(x)[0], nan=-1))[:30]
    assert select("scalselect", {"instructed_vision": x}, 30).rows.tolist() == sorted(expected.tolist())
    filled = select("scalselect", {"instructed_vision": x}, 90)
    assert set(range(20, 100)) <= set(filled.rows.tolist())
    assert filled.table["score"].null_count == 10


@pytest.mark.parametrize("energy", [0.0, 1.1, -1, True, "much"])
def test_bad_energy_is_refused(energy: object) -> None:
    with pytest.raises(ValueError, match="energy"):
        leverage(np.eye(3), energy)  # type: ignore[arg-type]


def test_bad_matrices_are_refused() -> None:
    for wrong in (np.ones(3), np.full((2, 2), np.inf)):
        with pytest.raises(ValueError, match="x "):
            leverage(wrong)


def official_defaults(x: np.ndarray, energy: float) -> tuple[np.ndarray, int]:
    """`cur.py` as it runs without flags: centred, standardised, unit rows, then a full SVD of that."""
    z = x - x.mean(axis=0)
    deviation = z.std(axis=0)
    z = z / np.where(deviation == 0, 1, deviation)
    norms = np.linalg.norm(z, axis=1, keepdims=True)
    u, s, _ = np.linalg.svd(z / np.where(norms == 0, 1, norms), full_matrices=False)
    k = int(np.searchsorted(np.cumsum(s**2) / (s**2).sum(), energy)) + 1
    return (u[:, :k] ** 2).sum(axis=1), k


@pytest.mark.parametrize(("n", "d"), [(40, 6), (500, 12), (9000, 5)])
def test_official_compatibility_is_the_code_without_flags(n: int, d: int) -> None:
    x = matrix(n, d, n, offset=3.0)
    x[:, -1] = 0.1  # a column that says nothing
    expected, k = official_defaults(x, 0.9)
    found = select("scalselect", {"instructed_vision": x}, n, compat="official")
    assert found.info["rank"] == k
    assert np.abs(found.table["score"].to_numpy() - expected).max() < 1e-6
    top = select("scalselect", {"instructed_vision": x}, n // 5, compat="official").rows
    assert not np.array_equal(top, select("scalselect", {"instructed_vision": x}, n // 5).rows)
    flat = select("scalselect", {"instructed_vision": np.full((9, 3), 0.1)}, 4, compat="official")
    assert flat.info["rank"] == 0
