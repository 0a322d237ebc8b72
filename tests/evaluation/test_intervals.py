from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from liit.errors import InputError
from liit.evaluation.intervals import (
    bootstrap_interval,
    bootstrap_over_seeds,
    paired_bootstrap,
    paired_bootstrap_over_seeds,
    seed_spread,
)

NAN = float("nan")
SKILLS = np.repeat(["a", "b", "c"], [40, 10, 25])


def test_bootstrap_weighs_skills_equally_and_is_reproducible() -> None:
    groups = [np.ones(400), np.zeros(10)]
    interval = bootstrap_interval(groups)
    assert (interval.estimate, interval.low, interval.high) == (0.5, 0.5, 0.5)
    noisy = [np.arange(50) % 2, np.arange(30) % 3 == 0]
    assert bootstrap_interval(noisy, seed=1) == bootstrap_interval(noisy, seed=1)


def test_bootstrap_interval_is_as_wide_as_theory_says() -> None:
    rows = np.repeat([0.0, 1.0], 200)
    interval = bootstrap_interval([rows])
    half = 1.96 * 0.5 / np.sqrt(400)
    assert interval.low == pytest.approx(0.5 - half, abs=0.006)
    assert interval.high == pytest.approx(0.5 + half, abs=0.006)
    assert not bootstrap_interval([rows - 0.5]).excludes_zero
    assert bootstrap_interval([rows]).excludes_zero


def test_bootstrap_refuses_what_it_cannot_resample() -> None:
    for groups in ([], [[]], [[1.0, NAN]]):
        with pytest.raises(InputError, match="groups"):
            bootstrap_interval(groups)
    with pytest.raises(InputError, match="level"):
        bootstrap_interval([[1.0]], level=95)


def test_spread_over_seeds() -> None:
    spread = seed_spread([0.4, 0.5, 0.9])
    assert (spread.n, spread.low, spread.high) == (3, 0.4, 0.9)
    assert spread.mean == pytest.approx(0.6)
    assert spread.sd == pytest.approx(np.sqrt((0.04 + 0.01 + 0.09) / 2))
    assert np.isnan(seed_spread([0.4]).sd)
    assert np.isnan(seed_spread([0.4, NAN]).mean)
    for wrong in ([], [[0.4]]):
        with pytest.raises(InputError, match="values"):
            seed_spread(wrong)


def test_paired_difference_is_stratified_and_pairs_rows() -> None:
    rng = np.random.default_rng(0)
    a = rng.random(75)
    b = a - np.where(SKILLS == "b", 0.3, 0.0)  # rows differ much, their differences not at all inside a skill
    interval = paired_bootstrap(a, b, SKILLS)
    assert interval.estimate == pytest.approx(0.1)
    assert interval.low == pytest.approx(0.1) == pytest.approx(interval.high)
    assert paired_bootstrap(b, a, SKILLS).estimate == pytest.approx(-0.1)


def test_one_seed_is_the_interval_over_rows() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.integers(0, 2, (2, 75)).astype(float)
    assert paired_bootstrap_over_seeds(a[None], b[None], SKILLS) == paired_bootstrap(a, b, SKILLS)
    groups = [(a - b)[skill == SKILLS] for skill in np.unique(SKILLS)]
    rows_only = bootstrap_interval(groups)
    assert paired_bootstrap(a, b, SKILLS).low == pytest.approx(rows_only.low, abs=0.02)
    assert paired_bootstrap(a, b, SKILLS).high == pytest.approx(rows_only.high, abs=0.02)


def test_the_same_rows_at_every_seed_are_no_new_evidence() -> None:
    """Seeds without any difference between them: three or one, the interval is that of the rows."""
    values = np.random.default_rng(2).normal(size=75)
    one, three = (bootstrap_over_seeds(np.tile(values, (seeds, 1)), SKILLS) for seeds in (1, 3))
    assert three.high - three.low == pytest.approx(one.high - one.low, rel=0.1)


def test_seeds_that_differ_give_about_the_interval_of_a_t_test() -> None:
    by_seed = np.random.default_rng(3).normal(0.5, 0.1, 8)
    interval = bootstrap_over_seeds(np.tile(by_seed[:, None], (1, 75)), SKILLS, resamples=20_000)
    low, high = stats.t.interval(0.95, 7, by_seed.mean(), by_seed.std(ddof=1) / np.sqrt(8))
    assert interval.estimate == pytest.approx(by_seed.mean())
    assert interval.high - interval.low == pytest.approx(high - low, rel=0.1)


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    """Seed effects, row effects and their interaction, truth zero; with few seeds the plain bootstrap is too narrow."""
    rng, seeds = np.random.default_rng(3), 3
    covered = {"t": 0, "none": 0}
    trials = 150
    for _ in range(trials):
        table = 0.1 * rng.normal(size=(seeds, 1)) + 0.3 * rng.normal(size=75) + 0.3 * rng.normal(size=(seeds, 75))
        for way in covered:
            interval = bootstrap_over_seeds(table, SKILLS, few_seeds=way, resamples=200)  # type: ignore[arg-type]
            covered[way] += not interval.excludes_zero
    assert covered["t"] >= 0.93 * trials
    assert covered["none"] < covered["t"]


def test_what_cannot_be_resampled_over_seeds_is_refused_by_name() -> None:
    good = np.zeros((3, 75))
    with pytest.raises(InputError, match="scores_b: shape"):
        paired_bootstrap_over_seeds(good, good[:2], SKILLS)
    with pytest.raises(InputError, match="skills: shape"):
        bootstrap_over_seeds(good, SKILLS[:-1])
    with pytest.raises(InputError, match="scores: shape"):
        bootstrap_over_seeds(good[0], SKILLS)
    with pytest.raises(InputError, match="without NaN"):
        bootstrap_over_seeds(good + NAN, SKILLS)
    with pytest.raises(InputError, match="few_seeds"):
        bootstrap_over_seeds(good, SKILLS, few_seeds="z")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="level"):
        bootstrap_over_seeds(good, SKILLS, level=1.0)
