from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from liit.selection import score_entropy
from liit.selection.sampling import histogram_entropy


def reference_entropy(scores: np.ndarray, bins: int) -> float:
    """Bits of the histogram over 4 standard deviations either side, values outside in the end bins."""
    z = (scores - scores.mean()) / scores.std()
    counts = [0] * bins
    for value in z:
        counts[min(bins - 1, max(0, math.floor((value + 4) / (8 / bins))))] += 1
    return -sum(c / len(z) * math.log2(c / len(z)) for c in counts if c)


@pytest.mark.parametrize("bins", [1, 2, 7, 50])
@pytest.mark.parametrize("draw", ["normal", "exponential", "standard_cauchy", "random"])
def test_equals_the_formula(draw: str, bins: int) -> None:
    scores = getattr(np.random.default_rng(5), draw)(size=700).astype(np.float32).astype(np.float64)
    assert score_entropy(scores, bins) == pytest.approx(reference_entropy(scores, bins), abs=1e-9)


@given(st.lists(st.integers(-500, 500), min_size=2, max_size=80), st.floats(1e-3, 1e3), st.floats(-1e3, 1e3))
def test_affine_rescaling_changes_nothing(values: list[int], factor: float, shift: float) -> None:
    scores = np.array(values, dtype=np.float64)
    assert score_entropy(factor * scores + shift) == pytest.approx(score_entropy(scores), abs=1e-2)


def test_affine_rescaling_by_numbers_floats_hold_exactly_changes_not_one_bit() -> None:
    scores = np.random.default_rng(2).gamma(2, 1, 999).astype(np.float32)
    for factor in (2.0**-20, 0.5, 4.0, 2.0**20):
        assert score_entropy(scores * np.float32(factor)) == score_entropy(scores)


def test_constant_missing_and_empty_scores_have_no_entropy() -> None:
    assert score_entropy(np.full(10, 0.1)) == 0.0
    assert score_entropy(np.full(10, np.nan)) == 0.0
    assert score_entropy(np.array([])) == 0.0
    assert score_entropy(np.array([3.0])) == 0.0


def test_missing_scores_are_left_out() -> None:
    scores = np.random.default_rng(0).normal(size=100)
    assert score_entropy(np.concatenate((scores, [np.nan] * 50))) == score_entropy(scores)


def test_two_equal_halves_are_one_bit_and_a_flat_score_nears_the_most() -> None:
    assert score_entropy(np.array([0.0, 1.0] * 8)) == pytest.approx(1.0)
    flat = score_entropy(np.linspace(0, 1, 10_000))
    assert math.log2(20) < flat < math.log2(50)


def test_a_score_far_from_zero_keeps_its_spread() -> None:
    scores = np.random.default_rng(1).normal(size=2000)
    for shift in (10.0, 1e3, 1e6, 1e9):
        assert score_entropy(shift + scores) == pytest.approx(score_entropy(scores), abs=1e-3)


def test_official_variant_leaves_out_what_lies_outside() -> None:
    scores = np.concatenate((np.random.default_rng(0).normal(size=2000), np.full(3, 60.0)))
    clipped, dropped = histogram_entropy(scores, 50, clip=True), histogram_entropy(scores, 50, clip=False)
    assert clipped > dropped


@pytest.mark.parametrize("scores", [[[1.0, 2.0]], [np.inf, 0.0], ["a", "b"]])
def test_bad_scores_are_refused(scores: list[object]) -> None:
    with pytest.raises(ValueError, match="scores"):
        score_entropy(scores)  # type: ignore[arg-type]
