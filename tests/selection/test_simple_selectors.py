from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from liit.selection import select

Features = dict[str, np.ndarray]

BY_SCORE = {
    "perplexity": "log_perplexity",
    "el2n": "el2n",
    "entropy": "entropy",
    "image-grounding": "image_grounding",
    "grad-norm": "grad_norm",
    "length": "n_answer_tokens",
}


@pytest.mark.parametrize(("name", "feature"), BY_SCORE.items())
def test_top_middle_and_bottom_of_a_score(name: str, feature: str) -> None:
    scores = np.random.default_rng(0).permutation(41).astype(float)
    for where, expected in (("top", range(34, 41)), ("bottom", range(7)), ("middle", range(17, 24))):
        rows = select(name, {feature: scores}, 7, where=where).rows
        assert sorted(scores[rows].tolist()) == list(expected)


def test_ties_go_to_the_earlier_row_or_the_smaller_id_and_missing_scores_come_last() -> None:
    scores = np.array([1.0, np.nan, 2.0, 1.0, 1.0])
    assert select("el2n", {"el2n": scores}, 3).rows.tolist() == [0, 2, 3]
    ids = np.array(["e", "d", "c", "b", "a"])
    assert select("el2n", {"el2n": scores, "id": ids}, 3).rows.tolist() == [2, 3, 4]
    assert select("el2n", {"el2n": scores}, 4).rows.tolist() == [0, 2, 3, 4]


def test_stratified_covers_the_range(make_features: Callable[..., Features]) -> None:
    features = make_features(1000, ids=False)
    rows = select("el2n", features, 100, stratified=True).rows
    top = select("el2n", features, 100).rows
    quarter, half = np.quantile(features["el2n"], [0.25, 0.5])
    assert (features["el2n"][top] > half).all()
    assert 10 < (features["el2n"][rows] < quarter).sum() < 40


def test_ranks_and_reasons_say_where_a_row_stands() -> None:
    table = select("el2n", {"el2n": np.array([3.0, 1.0, 2.0])}, 2, explain="all").table
    assert table["rank"].to_pylist() == [1, 3, 2]
    assert table["selected"].to_pylist() == [True, False, True]
    assert table["reason"][1].as_py() == "left out: el2n (top) 1 is number 3 of 3"


def test_random_draws_every_row_equally_often() -> None:
    hits = np.zeros(20)
    for seed in range(2000):
        hits[select("random", {"id": np.arange(20)}, 5, seed=seed).rows] += 1
    assert np.abs(hits / 2000 - 0.25).max() < 0.05


def test_random_balanced_shares_evenly_over_sources() -> None:
    source = np.array(["big"] * 90 + ["mid"] * 9 + ["tiny"])
    found = select("random-balanced", {"source": source}, 30)
    assert found.info["budgets"] == {"big": 20, "mid": 9, "tiny": 1}
    assert dict(zip(*np.unique(source[found.rows], return_counts=True), strict=True)) == found.info["budgets"]


def test_new_only_takes_old_rows_only_to_fill_up() -> None:
    new = np.arange(30) % 3 == 0
    few, many = (select("new-only", {"new": new}, budget) for budget in (8, 14))
    assert new[few.rows].all()
    assert few.info["filled_with_old"] == 0
    assert new[many.rows].sum() == 10
    assert many.info["filled_with_old"] == 4
    with pytest.raises(ValueError, match="new must be booleans"):
        select("new-only", {"new": np.linspace(0, 1, 5)}, 2)


def test_all_is_all_and_says_so_when_the_budget_is_smaller() -> None:
    assert select("all", {"id": np.arange(9)}, 9).rows.tolist() == list(range(9))
    assert "smaller than the pool" in select("all", {"id": np.arange(9)}, 3).table["reason"][0].as_py()


def test_bad_where_is_refused() -> None:
    with pytest.raises(ValueError, match="where must be one of top, middle, bottom"):
        select("perplexity", {"log_perplexity": np.arange(3.0)}, 1, where="best")


def test_replay_splits_the_budget_between_old_and_new() -> None:
    new = np.arange(40) % 4 == 0  # 10 new, 30 old
    for share, budget, old in ((0.5, 8, 4), (0.25, 10, 3), (0.0, 8, 0), (1.0, 8, 8), (0.5, 30, 20), (0.9, 40, 30)):
        found = select("replay", {"new": new}, budget, share=share)
        assert (~new[found.rows]).sum() == old == found.info["old"]
    with pytest.raises(ValueError, match="share must be a number from 0 to 1"):
        select("replay", {"new": new}, 3, share=1.5)


def test_replay_draws_every_old_row_equally_often() -> None:
    new = np.arange(20) >= 10
    hits = np.zeros(20)
    for seed in range(2000):
        hits[select("replay", {"new": new, "id": np.arange(20)}, 8, seed=seed, share=0.25).rows] += 1
    assert np.abs(hits[:10] / 2000 - 0.2).max() < 0.05
    assert np.abs(hits[10:] / 2000 - 0.6).max() < 0.05


def test_the_middle_is_what_is_left_when_both_ends_are_taken_off_in_turn() -> None:
    scores = np.random.default_rng(3).normal(size=30)
    ascending = np.argsort(scores).tolist()
    for budget in range(0, 31, 2):
        cut = (30 - budget) // 2
        expected = ascending[cut : len(ascending) - cut]
        assert select("el2n", {"el2n": scores}, budget, where="middle").rows.tolist() == sorted(expected)
