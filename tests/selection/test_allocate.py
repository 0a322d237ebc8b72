from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from liit.selection import allocate
from liit.selection.budget import allocate_weighted

sizes_lists = st.lists(st.integers(0, 60), max_size=12)


def water_filled_one_by_one(sizes: list[int], total: int) -> list[int]:
    """Give rows one at a time, always to a cluster that has least and still has room."""
    out = [0] * len(sizes)
    for _ in range(min(total, sum(sizes))):
        open_ = [i for i in range(len(sizes)) if out[i] < sizes[i]]
        least = min(out[i] for i in open_)
        candidates = [i for i in open_ if out[i] == least]
        out[max(candidates, key=lambda i: (sizes[i], -i))] += 1
    return out


@given(sizes_lists, st.integers(0, 400))
def test_budget_is_exact_for_any_cluster_sizes(sizes: list[int], total: int) -> None:
    out = allocate(np.array(sizes, dtype=np.int64), total)
    assert out.sum() == min(total, sum(sizes))
    assert (out >= 0).all()
    assert (out <= np.array(sizes, dtype=np.int64)).all()


@given(sizes_lists, st.integers(0, 400))
def test_shares_equal_giving_rows_one_by_one(sizes: list[int], total: int) -> None:
    assert allocate(np.array(sizes, dtype=np.int64), total).tolist() == water_filled_one_by_one(sizes, total)


def test_small_clusters_give_all_and_the_rest_is_shared() -> None:
    assert allocate([2, 100, 100], 100).tolist() == [2, 49, 49]
    assert allocate([5, 1, 5], 4).tolist() == [2, 1, 1]
    assert allocate([], 10).tolist() == []


def test_huge_budgets_do_not_overflow_or_loop() -> None:
    assert allocate([10**12, 3], 10**12).tolist() == [10**12 - 3, 3]


@pytest.mark.parametrize("sizes", [[-1, 2], [1.5, 2.0], [[1, 2]], ["a"]])
def test_bad_sizes_are_refused(sizes: object) -> None:
    with pytest.raises(ValueError, match="sizes"):
        allocate(sizes, 1)  # type: ignore[arg-type]


@pytest.mark.parametrize("total", [-1, 1.5, True, None])
def test_bad_totals_are_refused(total: object) -> None:
    with pytest.raises(ValueError, match="total"):
        allocate([1, 2], total)  # type: ignore[arg-type]


weights_lists = st.lists(st.tuples(st.integers(0, 60), st.floats(0, 1e300)), max_size=10)


@given(weights_lists, st.integers(0, 400))
def test_weighted_budget_is_exact_for_any_weights(pairs: list[tuple[int, float]], total: int) -> None:
    sizes = np.array([p[0] for p in pairs], dtype=np.int64)
    out = allocate_weighted(sizes, [p[1] for p in pairs], total)
    assert out.sum() == min(total, sizes.sum())
    assert ((out >= 0) & (out <= sizes)).all()


def test_weighted_shares_follow_the_weights_and_pass_on_what_does_not_fit() -> None:
    assert allocate_weighted([100, 100, 100], [1, 2, 3], 60).tolist() == [10, 20, 30]
    assert allocate_weighted([100, 100, 5], [1, 2, 3], 60).tolist() == [18, 37, 5]
    assert allocate_weighted([100, 100], [0, 1], 150).tolist() == [50, 100]
    assert allocate_weighted([10, 10, 10], [1, 1, 1], 10).tolist() == [4, 3, 3]


@pytest.mark.parametrize("weights", [[1.0], [1.0, -1.0], [np.nan, 1.0], [np.inf, 1.0]])
def test_bad_weights_are_refused(weights: list[float]) -> None:
    with pytest.raises(ValueError, match="weights"):
        allocate_weighted([1, 2], weights, 1)


def weighted_by_the_rule(sizes: list[int], weights: list[int], total: int) -> list[int]:
    """In exact fractions: whoever cannot take its part gives all, and the others' parts are worked out again."""
    left = min(total, sum(sizes))
    out: dict[int, int] = {}
    while True:
        open_ = [i for i in range(len(sizes)) if i not in out and weights[i] and sizes[i]]
        mass = sum(weights[i] for i in open_)
        part = {i: Fraction(left * weights[i], mass) for i in open_}
        full = [i for i in open_ if part[i] >= sizes[i]]
        if not full or not left:
            break
        out |= {i: sizes[i] for i in full}
        left -= sum(sizes[i] for i in full)
    if left and open_:
        floors = {i: int(part[i]) for i in open_}
        over = left - sum(floors.values())
        lucky = sorted(open_, key=lambda i: (-(part[i] - floors[i]), i))[:over]
        out |= {i: floors[i] + (i in lucky) for i in open_}
        left = 0
    shares = [out.get(i, 0) for i in range(len(sizes))]
    extra = water_filled_one_by_one([s - o for s, o in zip(sizes, shares, strict=True)], left)
    return [o + e for o, e in zip(shares, extra, strict=True)]


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 9)), max_size=9), st.integers(0, 300))
def test_weighted_shares_equal_the_rule_in_exact_fractions(pairs: list[tuple[int, int]], total: int) -> None:
    sizes, weights = [p[0] for p in pairs], [p[1] for p in pairs]
    found = allocate_weighted(np.array(sizes, dtype=np.int64), weights, total)
    assert found.tolist() == weighted_by_the_rule(sizes, weights, total)
