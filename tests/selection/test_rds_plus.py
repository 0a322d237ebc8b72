from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from liit.selection import round_robin, select


def algorithm_1(similarity: np.ndarray, n: int, spend_turn: bool) -> list[int]:
    """Full sort for every query, then turns; straight from the paper and, for spent turns, the official code."""
    order = [sorted(range(similarity.shape[1]), key=lambda x: (-row[x], x)) for row in similarity]
    chosen: list[int] = []
    while len(chosen) < min(n, similarity.shape[1]):
        for items in order:
            if len(chosen) == n or not items:
                continue
            if not spend_turn:
                while items and items[0] in chosen:
                    items.pop(0)
            if items and (item := items.pop(0)) not in chosen:
                chosen.append(item)
    return chosen


@given(st.integers(1, 6), st.integers(0, 25), st.integers(0, 30), st.booleans(), st.integers(0, 10**6), st.booleans())
def test_equals_algorithm_1(v: int, n: int, want: int, spend: bool, seed: int, ties: bool) -> None:
    rng = np.random.default_rng(seed)
    table = rng.integers(4, size=(v, n)).astype(float) if ties else rng.normal(size=(v, n))
    assert round_robin(table, want, spend_turn=spend).tolist() == algorithm_1(table, want, spend)


def test_a_shared_favourite_spends_a_turn() -> None:
    table = np.array([[9.0, 5.0, 4.0, 1.0, 0.0], [9.0, 1.0, 0.0, 5.0, 4.0]])
    assert round_robin(table, 3).tolist() == [0, 1, 3]
    assert round_robin(table, 2).tolist() == [0, 1]
    assert round_robin(table, 2, spend_turn=False).tolist() == [0, 3]


@given(st.integers(1, 4), st.integers(1, 20), st.integers(0, 10**6))
def test_smaller_selections_are_the_beginning_of_larger_ones(v: int, n: int, seed: int) -> None:
    table = np.random.default_rng(seed).normal(size=(v, n))
    whole = round_robin(table, n).tolist()
    assert sorted(whole) == list(range(n))
    assert all(round_robin(table, m).tolist() == whole[:m] for m in range(n))


def test_missing_similarities_come_last() -> None:
    assert round_robin(np.array([[np.nan, 1.0, 2.0]]), 3).tolist() == [2, 1, 0]


@pytest.mark.parametrize(
    ("table", "n", "named"),
    [([1.0], 1, "similarity"), (np.zeros((0, 3)), 1, "similarity"), ([[np.inf]], 1, "similarity"), ([[1.0]], -1, "n")],
)
def test_bad_tables_are_refused(table: object, n: int, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        round_robin(table, n)  # type: ignore[arg-type]


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=1, keepdims=True)


@pytest.fixture
def pool() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    single = [rng.normal(size=(n, 8)).astype(np.float32) for n in (200, 7)]
    return single[0], single[1], np.array(list("bbacacb"))


@pytest.mark.parametrize("memory", [1, 5000, 1 << 29])
@pytest.mark.parametrize("spend", [True, False])
def test_single_task_selection_is_round_robin_on_cosines(pool: Any, memory: int, spend: bool) -> None:
    x, queries, _ = pool
    similarity = unit(queries.astype(float)) @ unit(x.astype(float)).T
    found = select("rds-plus", {"last_hidden_weighted": x}, 40, queries=queries, spend_turn=spend, memory=memory)
    expected = round_robin(similarity, 40, spend_turn=spend)
    ranks = dict(zip(found.table["row"].to_pylist(), found.table["rank"].to_pylist(), strict=True))
    assert sorted(ranks, key=lambda row: ranks[row]) == expected.tolist()


def test_multi_task_selection_is_round_robin_on_the_best_query_of_each_task(pool: Any) -> None:
    x, queries, groups = pool
    similarity = unit(queries.astype(float)) @ unit(x.astype(float)).T
    tasks = np.stack([similarity[groups == g].max(axis=0) for g in "bac"])  # in order of appearance
    features = {"last_hidden_weighted": x}
    for memory in (1, 1 << 29):
        asked = {"last_hidden_weighted": queries}
        found = select("rds-plus", features, 50, queries=asked, groups=groups, memory=memory)
        assert found.rows.tolist() == sorted(round_robin(tasks, 50).tolist())
    best, mean = (
        select("rds-plus", features, 50, queries=queries, groups=groups, mode=mode) for mode in ("max", "mean-max")
    )
    assert best.rows.tolist() == sorted(np.argsort(-similarity.max(axis=0))[:50].tolist())
    assert mean.rows.tolist() == sorted(np.argsort(-tasks.mean(axis=0))[:50].tolist())


def test_rows_and_queries_without_a_vector_are_counted(pool: Any) -> None:
    x, queries, groups = (a.copy() for a in pool)
    x[:5, 0] = np.nan
    queries[1, 3] = np.nan
    found = select("rds-plus", {"last_hidden_weighted": x}, 195, queries=queries, groups=groups)
    assert found.rows.min() == 5
    assert found.info["without_score"] == 5
    assert found.info["queries_missing"] == 1


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({}, "queries must be given"),
        ({"queries": np.ones((2, 3))}, "queries must have 8 columns"),
        ({"queries": {"gradient": np.ones((2, 8))}}, "queries must have the feature last_hidden_weighted"),
        ({"queries": np.full((2, 8), np.nan)}, "queries must hold at least one"),
        ({"queries": np.full((2, 8), np.inf)}, "queries has infinite"),
        ({"queries": np.ones((2, 8)), "groups": [1]}, "groups"),
        ({"queries": np.ones((2, 8)), "mode": "best"}, "mode"),
        ({"queries": np.ones((2, 8)), "memory": 0}, "memory"),
    ],
)
def test_bad_options_are_named(pool: Any, options: dict[str, object], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        select("rds-plus", {"last_hidden_weighted": pool[0]}, 5, **options)


@given(st.integers(2, 6), st.integers(10, 30), st.integers(0, 10**6))
def test_a_favourite_of_all_spends_the_turn_of_all_but_the_first(v: int, n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    table = rng.random((v, n))
    table[:, 3] = 2.0
    seconds = [int(np.argsort(-row)[1]) for row in table]
    spent = round_robin(table, n).tolist()
    free = round_robin(table, n, spend_turn=False).tolist()
    assert spent[0] == free[0] == 3
    assert spent[1] == seconds[0]  # the others' first turns went by
    assert free[1] == seconds[1]  # the second query went on at once
