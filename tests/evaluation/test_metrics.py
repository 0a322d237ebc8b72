from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from liit.errors import InputError
from liit.evaluation.metrics import Score, get_metric, metric, metrics, normalise, score_skill


def score(name: str, prediction: str, reference: str) -> tuple[float, bool]:
    result = get_metric(name)(prediction, reference)
    return result.value, result.wrong_format


@pytest.mark.parametrize(
    "answer, expected",
    [
        ("The Red Square.", "red square"),
        ("  two\n dogs ", "2 dogs"),
        ("None", "0"),
        ("don't", "dont"),
        ("don’t", "dont"),
        ("black-and-white", "black and white"),
        ("3.5", "3.5"),
        ("-4", "-4"),
        ("1,234", "1234"),
        ("A", "a"),
        ("the", "the"),
        ("?", "?"),
        ("", ""),
        ("りんご。", "りんご"),
        ("「赤い りんご」", "赤い りんご"),
        ("コーヒー", "コーヒー"),
        ("１２", "12"),
        ("Éléphant", "éléphant"),
        ("e\u0301le\u0301phant", "éléphant"),
        ("STRASSE", "strasse"),
        ("Straße", "strasse"),
        ("niño", "niño"),
    ],
)
def test_normalisation(answer: str, expected: str) -> None:
    assert normalise(answer) == expected


def test_accents_carry_meaning_and_stay() -> None:
    assert normalise("año") != normalise("ano")


@given(st.text(max_size=40))
def test_normalisation_is_stable_and_keeps_visible_answers(text: str) -> None:
    once = normalise(text)
    assert normalise(once) == once
    assert bool(once) == bool(text.strip())


@pytest.mark.parametrize(
    "prediction, reference, expected",
    [
        ("The cat", "cat", (1.0, False)),
        ("two", "2", (1.0, False)),
        ("dog", "cat", (0.0, False)),
        ("", "cat", (0.0, True)),
        ("It is a cat.", "cat", (0.0, True)),
        ("concatenate", "cat", (0.0, False)),
        ('{"box": [0, 0, 1, 1]}', "cat", (0.0, True)),
        ("yes", "cat", (0.0, True)),
        ("cat", "no", (0.0, True)),
        ("no", "yes", (0.0, False)),
        ("りんご。", "りんご", (1.0, False)),
        ("rouge", "りんご", (0.0, False)),
    ],
)
def test_exact_match_tells_wrong_form_from_wrong_knowledge(
    prediction: str, reference: str, expected: tuple[float, bool]
) -> None:
    assert score("exact-match", prediction, reference) == expected


@pytest.mark.parametrize(
    "prediction, reference, expected",
    [
        ("12", "12", (1.0, False)),
        ("twelve", "12", (1.0, False)),
        ("１２", "12", (1.0, False)),
        ("0.50", "0.5", (1.0, False)),
        ("1,200", "1200", (1.0, False)),
        ("1e-3", "0.001", (1.0, False)),
        ("-3", "3", (0.0, False)),
        ("13", "12", (0.0, False)),
        ("there are 12", "12", (0.0, True)),
        ("many", "12", (0.0, True)),
        ("inf", "12", (0.0, True)),
        ("1e999", "12", (0.0, True)),
    ],
)
def test_numeric(prediction: str, reference: str, expected: tuple[float, bool]) -> None:
    assert score("numeric", prediction, reference) == expected


def test_numeric_refuses_a_reference_that_is_no_number() -> None:
    with pytest.raises(InputError, match="is not a number"):
        score("numeric", "1", "some")


BOX = '{"box": [0, 0, 10, 10]}'


@pytest.mark.parametrize(
    "prediction, expected",
    [
        (BOX, (1.0, False)),
        ("```json\n" + BOX + "\n```", (1.0, False)),
        ('{"box": [0, 0, 10, 5]}', (1.0, False)),  # exactly one half
        ('{"box": [0, 0, 10, 4.9]}', (0.0, False)),
        ('{"box": [20, 20, 30, 30]}', (0.0, False)),
        ('{"box": [10, 10, 0, 0]}', (0.0, True)),
        ('{"box": [0, 0, 10]}', (0.0, True)),
        ('{"box": [0, 0, 10, true]}', (0.0, True)),
        ('{"box": [0, 0, NaN, 10]}', (0.0, True)),
        ('{"box": [0, 0, 1' + "0" * 400 + ", 10]}", (0.0, True)),
        ("[" * 100_000, (0.0, True)),
        ("[0, 0, 10, 10]", (0.0, True)),
        ("The box is " + BOX, (0.0, True)),
        ("", (0.0, True)),
    ],
)
def test_box_iou(prediction: str, expected: tuple[float, bool]) -> None:
    assert score("box-iou", prediction, BOX) == expected


def boxes(*items: list[float]) -> str:
    return json.dumps({"boxes": items})


def test_boxes_iou_uses_the_best_assignment_not_the_first_match() -> None:
    # The first predicted box reaches both references; greedy matching to the nearer one would leave the second alone.
    reference = boxes([0, 0, 10, 10], [0, 3, 10, 13])
    assert score("boxes-iou", boxes([0, 1, 10, 11], [0, -2, 10, 8]), reference) == (1.0, False)


@given(st.permutations([[0, 0, 4, 4], [5, 5, 9, 9], [20, 0, 24, 4]]))
def test_boxes_iou_ignores_the_order(order: list[list[float]]) -> None:
    assert score("boxes-iou", boxes(*order), boxes([0, 0, 4, 4], [5, 5, 9, 9], [20, 0, 24, 4])) == (1.0, False)


def test_boxes_iou_wants_all_boxes_and_no_other() -> None:
    reference = boxes([0, 0, 4, 4], [5, 5, 9, 9])
    assert score("boxes-iou", boxes([0, 0, 4, 4]), reference) == (0.0, False)
    assert score("boxes-iou", boxes([0, 0, 4, 4], [0, 0, 4, 4]), reference) == (0.0, False)
    assert score("boxes-iou", boxes([0, 0, 4, 4], [5, 5, 9, 9], [1, 1, 2, 2]), reference) == (0.0, False)
    assert score("boxes-iou", '{"boxes": [[0, 0, 4, 4], "x"]}', reference) == (0.0, True)
    assert score("boxes-iou", boxes(), boxes()) == (1.0, False)


def test_bad_box_references_are_refused() -> None:
    with pytest.raises(InputError, match="reference"):
        score("box-iou", BOX, "somewhere left")
    with pytest.raises(InputError, match="reference"):
        score("boxes-iou", boxes(), BOX)


def test_a_skill_is_summarised_with_wrong_format_apart() -> None:
    result, rows = score_skill("exact-match", ["cat", "dog", "", "it is a cat"], ["cat"] * 4)
    assert (result.score, result.n, result.wrong_format) == (0.25, 4, 2)
    assert [row.value for row in rows] == [1.0, 0.0, 0.0, 0.0]
    with pytest.raises(InputError, match="predictions: 1 given for 2"):
        score_skill("exact-match", ["cat"], ["cat", "dog"])
    with pytest.raises(InputError, match="references: none"):
        score_skill("exact-match", [], [])


def test_unknown_metric_is_answered_with_the_nearest_name() -> None:
    with pytest.raises(InputError, match="did you mean 'exact-match'"):
        get_metric("exact_match")


def test_every_metric_says_in_one_line_what_it_does() -> None:
    assert {"exact-match", "numeric", "box-iou", "boxes-iou"} <= set(metrics())
    assert all(metrics().values())


def test_a_taken_name_is_refused() -> None:
    with pytest.raises(InputError, match="already registered"):
        metric("numeric")(lambda prediction, reference: Score(1.0))


@given(st.lists(st.floats(-50, 50), min_size=8, max_size=8))
def test_iou_is_symmetric_and_bounded(numbers: list[float]) -> None:
    from liit.evaluation.metrics.boxes import pairwise_iou

    a = (
        min(numbers[0], numbers[2]),
        min(numbers[1], numbers[3]),
        max(numbers[0], numbers[2]),
        max(numbers[1], numbers[3]),
    )
    b = (
        min(numbers[4], numbers[6]),
        min(numbers[5], numbers[7]),
        max(numbers[4], numbers[6]),
        max(numbers[5], numbers[7]),
    )
    there, back = pairwise_iou([a], [b]), pairwise_iou([b], [a])
    np.testing.assert_allclose(there, back, atol=1e-12)
    assert 0 <= there[0, 0] <= 1 + 1e-9
