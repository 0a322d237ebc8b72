from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from liit.selection import allocate, stratified_sample

scores_lists = st.lists(
    st.one_of(st.floats(-1e6, 1e6, width=32), st.just(float("nan")), st.integers(-2, 2).map(float)), max_size=120
)


@given(scores_lists, st.integers(0, 150), st.integers(1, 60), st.floats(0, 0.49), st.integers(0, 5))
def test_exactly_the_asked_number_for_any_scores(s: list[float], n: int, bins: int, trim: float, seed: int) -> None:
    rows = stratified_sample(np.array(s), n, bins=bins, trim=trim, seed=seed)
    assert len(rows) == min(n, len(s))
    assert (np.diff(rows) > 0).all()
    assert rows.dtype == np.int64
    assert not len(rows) or (rows[0] >= 0 and rows[-1] < len(s))


def reference_strata(scores: np.ndarray, bins: int, trim: float) -> tuple[list[list[int]], list[int]]:
    """Strata and outliers of distinct scores, straight from the definition."""
    ascending = sorted(range(len(scores)), key=lambda i: scores[i])
    cut = int(trim * len(ascending))
    core, tails = ascending[cut : len(ascending) - cut], ascending[:cut] + ascending[len(ascending) - cut :]
    edges = np.linspace(scores[core[0]], scores[core[-1]], bins + 1)
    strata: list[list[int]] = [[] for _ in range(bins)]
    for i in core:
        strata[min(bins - 1, int(np.searchsorted(edges, scores[i], side="right")) - 1)].append(i)
    return strata, tails


@pytest.mark.parametrize("n", [0, 1, 40, 51, 300, 899, 901, 980, 1000])
def test_every_stratum_gives_its_share_and_outliers_come_last(n: int) -> None:
    scores = np.random.default_rng(1).normal(size=1000).astype(np.float32).astype(np.float64)
    strata, tails = reference_strata(scores, 50, 0.05)
    rows = set(stratified_sample(scores, n).tolist())
    shares = allocate([len(s) for s in strata], n)
    assert [len(rows & set(s)) for s in strata] == shares.tolist()
    assert len(rows & set(tails)) == max(0, n - 900)


def test_inside_a_stratum_every_row_is_as_likely() -> None:
    scores = np.repeat([0.0, 1.0], [10, 40])
    hits = np.zeros(50)
    for seed in range(2000):
        hits[stratified_sample(scores, 10, bins=2, trim=0.0, seed=seed)] += 1
    assert np.abs(hits[:10] / 2000 - 0.5).max() < 0.06
    assert np.abs(hits[10:] / 2000 - 0.125).max() < 0.04


def test_constant_scores_are_drawn_from_uniformly_first_and_last_rows_alike() -> None:
    hits = np.zeros(40)
    for seed in range(2000):
        hits[stratified_sample(np.ones(40), 10, seed=seed)] += 1
    assert np.abs(hits / 2000 - 0.25).max() < 0.05


def test_missing_scores_are_a_stratum_of_their_own() -> None:
    scores = np.concatenate((np.linspace(0, 1, 500), np.full(500, np.nan)))
    rows = stratified_sample(scores, 51, bins=50)
    assert (rows >= 500).sum() == 1
    assert (stratified_sample(np.full(9, np.nan), 4) < 9).sum() == 4


@settings(max_examples=40)
@given(st.integers(0, 100), st.integers(0, 200))
def test_float_width_does_not_matter(seed: int, n: int) -> None:
    wide = np.random.default_rng(seed).normal(size=200)
    assert np.array_equal(stratified_sample(wide, n), stratified_sample(wide.astype(np.float32), n))


def test_unit_of_the_score_does_not_matter() -> None:
    scores = np.random.default_rng(3).integers(0, 30, 500).astype(np.float64)
    for factor, shift in ((1e-3, 0.0), (1024.0, 7.0), (3.0, -1e3)):
        assert np.array_equal(stratified_sample(scores, 77), stratified_sample(factor * scores + shift, 77))


def test_scores_near_the_float64_limit_do_not_overflow() -> None:
    assert len(stratified_sample(np.array([-1.7e308, 0.0, 1.7e308] * 10), 7)) == 7


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (([[1.0]], 1), "scores"),
        (([np.inf, 1.0], 1), "scores"),
        ((["a"], 1), "scores"),
        (([1.0], -1), "n must"),
        (([1.0], 1, 0), "bins"),
        (([1.0], 1, 50, 0.5), "trim"),
        (([1.0], 1, 50, 0.05, -1), "seed"),
    ],
)
def test_bad_input_names_the_argument(arguments: tuple[object, ...], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        stratified_sample(*arguments)  # type: ignore[arg-type]
