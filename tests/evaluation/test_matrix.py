from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from liit.errors import InputError
from liit.evaluation.matrix import (
    average_accuracy,
    backward_transfer,
    forgetting,
    forward_transfer,
    gain_skills,
    mean_final,
    mean_first,
    rare_accuracy,
    relative_gain,
    unseen_accuracy,
)

NAN = float("nan")
# Three steps, skills a (step 1), b (step 2), c (step 3), z (never taught).
SCORES = np.array(
    [
        [0.1, 0.0, 0.2, 0.3],
        [0.8, 0.1, 0.2, 0.3],
        [0.9, 0.5, 0.4, 0.2],
        [0.6, 0.6, 0.7, 0.1],
    ]
)
INTRODUCED = [1, 2, 3, 0]


def test_each_metric_on_a_matrix_worked_out_by_hand() -> None:
    assert average_accuracy(SCORES, INTRODUCED) == pytest.approx((0.6 + 0.6 + 0.7) / 3)
    assert unseen_accuracy(SCORES, INTRODUCED) == pytest.approx(0.1)
    assert forgetting(SCORES, INTRODUCED) == pytest.approx(100 * (0.3 / 0.9) / 3)
    assert forgetting(SCORES, INTRODUCED, "first") == pytest.approx(100 * (0.2 / 0.8) / 3)
    assert backward_transfer(SCORES, INTRODUCED) == pytest.approx((-0.2 + 0.1 + 0.0) / 3)
    assert forward_transfer(SCORES, INTRODUCED) == pytest.approx((0.0 + 0.1 + 0.2) / 3)
    assert rare_accuracy(SCORES, INTRODUCED, [False, True, True, True]) == pytest.approx(0.65)
    assert relative_gain(SCORES, INTRODUCED, [0.8, 0.8, 0.7, 0.5]) == pytest.approx(100 * (0.75 + 0.75 + 1.0) / 3)


def test_a_skill_at_zero_in_the_reference_is_left_out_of_the_gain() -> None:
    reference = [0.6, 0.0, 0.7, 0.0]
    assert gain_skills(INTRODUCED, reference).tolist() == [True, False, True, False]
    assert relative_gain(SCORES, INTRODUCED, reference) == pytest.approx(100.0)
    assert np.isnan(relative_gain(SCORES, INTRODUCED, [0.0] * 4))


def test_max_before_the_skill_was_seen_does_not_count_as_forgetting() -> None:
    scores = np.array([[0.9, 0.0], [0.9, 0.0], [0.3, 0.5]])
    assert forgetting(scores, [2, 2]) == 0.0


def test_a_skill_never_learnt_has_nothing_to_forget() -> None:
    scores = np.zeros((3, 1))
    assert forgetting(scores, [1]) == 0.0
    assert forgetting(scores, [1], "first") == 0.0


def test_only_final_evaluation_gives_no_forgetting_but_an_average() -> None:
    scores = np.full((4, 4), NAN)
    scores[0], scores[3] = SCORES[0], SCORES[3]
    assert average_accuracy(scores, INTRODUCED) == pytest.approx(1.9 / 3)
    for undefined in (forgetting(scores, INTRODUCED), forgetting(scores, INTRODUCED, "first")):
        assert np.isnan(undefined)
    assert np.isnan(backward_transfer(scores, INTRODUCED))
    assert np.isnan(forward_transfer(scores, INTRODUCED))


def test_one_missing_entry_makes_the_mean_missing_rather_than_over_other_skills() -> None:
    scores = SCORES.copy()
    scores[-1, 1] = NAN
    assert np.isnan(average_accuracy(scores, INTRODUCED))
    assert np.isnan(forgetting(scores, INTRODUCED))


def test_a_missing_step_in_between_does_not_hide_forgetting() -> None:
    scores = SCORES.copy()
    scores[2, 0] = NAN
    assert forgetting(scores, INTRODUCED) == pytest.approx(100 * (0.2 / 0.8) / 3)


@given(st.integers(2, 8).flatmap(lambda steps: arrays(np.float64, (steps + 1, steps), elements=st.floats(0, 1))))
def test_backward_transfer_is_the_difference_of_final_and_own_step_means(scores: np.ndarray) -> None:
    steps = scores.shape[1]
    introduced = np.arange(1, steps + 1)
    final, own_step = scores[-1].mean(), scores[introduced, np.arange(steps)].mean()
    assert mean_first(scores, introduced) == pytest.approx(own_step)
    assert backward_transfer(scores, introduced) == pytest.approx(final - own_step, abs=1e-12)
    assert backward_transfer(scores, introduced, earlier_only=True) == pytest.approx(
        steps / (steps - 1) * (final - own_step), abs=1e-12
    )


@given(st.lists(st.integers(0, 4), min_size=1, max_size=7), st.integers(0, 2**31))
def test_backward_transfer_with_any_number_of_skills_per_step(steps: list[int], seed: int) -> None:
    scores = np.random.default_rng(seed).random((5, len(steps)))
    taught = sum(step > 0 for step in steps)
    of_the_last_step = sum(step == 4 for step in steps)
    difference = mean_final(scores, steps) - mean_first(scores, steps)
    assert backward_transfer(scores, steps) == pytest.approx(difference, abs=1e-12, nan_ok=True)
    common = backward_transfer(scores, steps, earlier_only=True)
    if taught > of_the_last_step:
        assert common == pytest.approx(taught / (taught - of_the_last_step) * difference, abs=1e-12)
    else:
        assert np.isnan(common)


def test_the_identity_needs_one_skill_per_step() -> None:
    """Two skills at the last step of three: T / (T - 1) is not the factor, S / (S - L) is."""
    scores = np.array([[0.0] * 4, [0.8, 0.0, 0.0, 0.0], [0.5, 0.6, 0.0, 0.0], [0.4, 0.5, 0.9, 0.7]])
    introduced = [1, 2, 3, 3]
    difference = mean_final(scores, introduced) - mean_first(scores, introduced)
    common = backward_transfer(scores, introduced, earlier_only=True)
    assert common == pytest.approx(-0.25) == pytest.approx(4 / 2 * difference)
    assert abs(common - 3 / 2 * difference) > 0.05


@given(arrays(np.float64, (5, 3), elements=st.floats(0, 1)))
def test_forgetting_against_the_maximum_is_never_less_than_against_the_first(scores: np.ndarray) -> None:
    introduced = [1, 2, 4]
    first = forgetting(scores, introduced, "first")
    most = forgetting(scores, introduced, "max")
    assert 0 <= first <= most + 1e-9 <= 100 + 1e-6


def test_wrong_shapes_are_refused_by_name() -> None:
    with pytest.raises(InputError, match="introduced: shape"):
        average_accuracy(SCORES, [1, 2])
    with pytest.raises(InputError, match="introduced: steps"):
        average_accuracy(SCORES, [1, 2, 3, 4])
    with pytest.raises(InputError, match="scores: shape"):
        average_accuracy([0.5], [1])
    with pytest.raises(InputError, match="rare: shape"):
        rare_accuracy(SCORES, INTRODUCED, [True])
    with pytest.raises(InputError, match="reference: shape"):
        relative_gain(SCORES, INTRODUCED, [1.0])
    with pytest.raises(InputError, match="convention"):
        forgetting(SCORES, INTRODUCED, "last")  # type: ignore[arg-type]
