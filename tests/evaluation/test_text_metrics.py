"""Metrics for answers in words: what several people said, misread letters, charts, open answers."""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from liit import plugins
from liit.errors import InputError
from liit.evaluation.metrics import Score, get_metric, metric, metric_info, metric_problem, normalise, score_skill
from liit.evaluation.metrics import registry as registered
from liit.evaluation.metrics.anls import levenshtein


def score(name: str, prediction: str, references: str | list[str], **options: object) -> tuple[float, bool]:
    result = get_metric(name, options)(prediction, references)
    return result.value, result.wrong_format


@pytest.mark.parametrize(
    "one, other",
    [
        ("U.S.", "us"),
        ("3 p.m.", "3 pm"),
        ("Mr. Smith", "mr smith"),
        ("hot-dog", "hot dog"),
        ("red/blue", "red blue"),
        ("yes, it is", "yes it is"),
        ("dont", "don't"),
        ("TWO dogs", "2 dogs"),
        ("a cat on the mat", "cat on mat"),
        ("1,000", "1000"),
        ("none", "0"),
        ("well - known", "well known"),
    ],
)
def test_answers_that_the_vqa_evaluation_holds_equal_are_equal(one: str, other: str) -> None:
    assert normalise(one) == normalise(other)


@pytest.mark.parametrize("one, other", [("2.5", "25"), ("2.5", "2 5"), ("-3", "3"), ("no.5", "no5"), ("cat", "cats")])
def test_answers_that_it_tells_apart_stay_apart(one: str, other: str) -> None:
    assert normalise(one) != normalise(other)


@pytest.mark.parametrize("agree, expected", [(0, 0.0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1.0), (10, 1.0)])
def test_vqa_accuracy_averages_over_the_person_left_out(agree: int, expected: float) -> None:
    people = ["The dog."] * agree + [f"thing {i}" for i in range(10 - agree)]
    assert score("vqa-accuracy", "dog", people)[0] == pytest.approx(expected)


def test_vqa_accuracy_tells_wrong_form_by_the_usual_answer() -> None:
    people = ["two"] * 6 + ["2 dogs"] * 4
    assert score("vqa-accuracy", "2", people) == (1.0, False)
    assert score("vqa-accuracy", "there are two", people) == (0.0, True)
    assert score("vqa-accuracy", "three", people) == (0.0, False)
    assert score("vqa-accuracy", '{"n": 2}', people) == (0.0, True)
    with pytest.raises(InputError, match=r"references: 1 given.*at least 4 people"):
        score("vqa-accuracy", "2", "2")


@pytest.mark.parametrize(
    "prediction, reference, expected",
    [
        ("Coca Cola", "coca  cola", (1.0, False)),
        ("hallo", "hello", (0.8, False)),
        ("abcd", "abxy", (0.0, False)),  # half of it is wrong: the threshold is exclusive
        ("abcde", "abcxy", (0.6, False)),
        ("", "hello", (0.0, True)),
        ("the sign there says hello", "hello", (0.0, True)),
        ("ＴＥＡ", "tea", (1.0, False)),
    ],
)
def test_anls(prediction: str, reference: str, expected: tuple[float, bool]) -> None:
    assert score("anls", prediction, reference) == pytest.approx(expected)


def test_anls_takes_the_best_reference_and_a_threshold() -> None:
    assert score("anls", "hallo", ["goodbye", "hello"])[0] == pytest.approx(0.8)
    assert score("anls", "abcd", "abxy", threshold=0.7)[0] == pytest.approx(0.5)
    assert score("anls", "hallo", "hello", threshold=0.1)[0] == 0
    with pytest.raises(InputError, match="threshold 0"):
        score("anls", "a", "a", threshold=0)


@given(st.text(alphabet="abc", max_size=7), st.text(alphabet="abc", max_size=7))
def test_levenshtein_is_the_recursive_definition(left: str, right: str) -> None:
    def slow(a: str, b: str) -> int:
        if not a or not b:
            return len(a) + len(b)
        return min(slow(a[1:], b) + 1, slow(a, b[1:]) + 1, slow(a[1:], b[1:]) + (a[0] != b[0]))

    if len(left) + len(right) < 10:
        assert levenshtein(left, right) == slow(left, right)
    assert levenshtein(left, right) == levenshtein(right, left) <= max(len(left), len(right))


@pytest.mark.parametrize(
    "prediction, reference, expected",
    [
        ("105", "100", (1.0, False)),
        ("95", "100", (1.0, False)),
        ("106", "100", (0.0, False)),
        ("-100", "100", (0.0, False)),
        ("50%", "0.5", (1.0, False)),
        ("50", "50%", (0.0, False)),
        ("1,040", "1000", (1.0, False)),
        ("two", "2", (1.0, False)),
        ("0", "0", (1.0, False)),
        ("0.001", "0", (0.0, False)),
        ("about 100", "100", (0.0, True)),
        ("The Netherlands", "netherlands", (1.0, False)),
        ("Belgium", "Netherlands", (0.0, False)),
        ("It is Belgium", "Belgium", (0.0, True)),
    ],
)
def test_relaxed_accuracy(prediction: str, reference: str, expected: tuple[float, bool]) -> None:
    assert score("relaxed-accuracy", prediction, reference) == expected


def test_relaxed_accuracy_has_a_tolerance() -> None:
    assert score("relaxed-accuracy", "110", "100", tolerance=0.1)[0] == 1
    assert score("relaxed-accuracy", "101", "100", tolerance=0)[0] == 0
    with pytest.raises(InputError, match="tolerance -1"):
        score("relaxed-accuracy", "1", "1", tolerance=-1)


def test_chrf_and_bleu_are_sacrebleu_s_and_the_corpus_value_is_no_mean() -> None:
    sacrebleu = pytest.importorskip("sacrebleu")
    said = ["the cat sat on the mat", "りんごです", ""]
    right = [["the cat sat on a mat", "a cat was on the mat"], ["これはりんごです"], ["nothing"]]
    streams = [["the cat sat on a mat", "これはりんごです", "nothing"], ["a cat was on the mat", None, None]]
    for name, key, one, all_rows in (
        ("chrf", "corpus_chrf", sacrebleu.CHRF(), sacrebleu.CHRF()),
        ("bleu", "corpus_bleu", sacrebleu.BLEU(effective_order=True), sacrebleu.BLEU()),
    ):
        result, rows = score_skill(name, said, right)
        each = [one.sentence_score(s, r).score / 100 for s, r in zip(said, right, strict=True)]
        assert [row.value for row in rows] == pytest.approx(each)
        assert result.score == pytest.approx(sum(each) / 3)
        assert result.facts[key] == pytest.approx(all_rows.corpus_score(said, streams).score)
        assert abs(result.facts[key] / 100 - result.score) > 0.01
        assert "version:" in result.facts["signature"]
        assert [row.wrong_format for row in rows] == [False, False, True]
        assert score(name, "exactly the same words here", "exactly the same words here")[0] == pytest.approx(1.0)


def test_options_of_open_answers_reach_sacrebleu() -> None:
    sacrebleu = pytest.importorskip("sacrebleu")
    plus = sacrebleu.CHRF(word_order=2).sentence_score("the cat", ["the dog"]).score / 100
    assert score("chrf", "the cat", "the dog", word_order=2)[0] == pytest.approx(plus)
    characters = sacrebleu.BLEU(tokenize="zh", effective_order=True).sentence_score("我有苹果", ["我有一个苹果"]).score
    assert score("bleu", "我有苹果", "我有一个苹果", tokenize="zh")[0] == pytest.approx(characters / 100)
    with pytest.raises(InputError, match="tokenize 'flores200' is unknown"):
        score("bleu", "a", "a", tokenize="flores200")
    with pytest.raises(InputError, match="word_order -1"):
        score("chrf", "a", "a", word_order=-1)


def test_without_sacrebleu_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registered, "find_spec", lambda _: None)
    assert metric_problem("exact-match") is None
    with pytest.raises(InputError, match=r"'chrf' needs the package sacrebleu.*pip install 'liit\[bleu\]'"):
        score_skill("chrf", ["a"], ["a"])


def test_of_several_references_the_best_counts_for_every_metric() -> None:
    assert score("exact-match", "sofa", ["couch", "sofa"]) == (1.0, False)
    assert score("numeric", "3", ["2", "3"]) == (1.0, False)
    assert score("numeric", "some", ["2", "3"]) == (0.0, True)
    assert score("exact-match", "it is a sofa", ["couch", "sofa"]) == (0.0, False)  # of the form of one of them
    assert score("box-iou", '{"box": [0, 0, 2, 2]}', ['{"box": [5, 5, 9, 9]}', '{"box": [0, 0, 2, 2]}']) == (1.0, False)


def test_boxes_take_another_threshold() -> None:
    reference, said = '{"box": [0, 0, 10, 10]}', '{"box": [0, 0, 10, 6]}'
    assert score("box-iou", said, reference, threshold=0.5)[0] == 1
    assert score("box-iou", said, reference, threshold=0.75)[0] == 0
    many = [text.replace('"box": ', '"boxes": [').replace("}", "]}") for text in (said, reference)]
    assert score("boxes-iou", *many, threshold=0.75)[0] == 0
    with pytest.raises(InputError, match="threshold 2"):
        score("box-iou", said, reference, threshold=2)


def test_an_unknown_option_is_answered_with_the_nearest() -> None:
    with pytest.raises(
        InputError, match=r"anls: unknown option 'treshold'; did you mean 'threshold'\? \(known: threshold\)"
    ):
        get_metric("anls", {"treshold": 0.5})
    with pytest.raises(InputError, match=r"unknown option 'threshold' \(known: none\)"):
        get_metric("exact-match", {"threshold": 0.5})


def test_a_package_of_others_brings_a_metric_by_its_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("their_metrics")

    def load() -> None:
        @metric("first-letter")
        def first_letter(prediction: str, reference: str, *, case: bool = False) -> Score:
            """The first letter is right."""
            one, other = (text if case else text.lower() for text in (prediction[:1], reference[:1]))
            return Score(float(one == other), not prediction)

    module.__getattr__ = lambda name: load() if name == "load" else None  # type: ignore[method-assign]
    monkeypatch.setitem(sys.modules, "their_metrics", module)
    entry = EntryPoint("first-letter", "their_metrics:load", registered.ENTRY_POINTS)
    monkeypatch.setattr(plugins, "entry_points", lambda group: [entry] if group == registered.ENTRY_POINTS else [])
    monkeypatch.setattr(registered, "_METRICS", dict(registered._METRICS))
    assert score("first-letter", "Cat", "cow") == (1.0, False)
    assert score("first-letter", "Cat", "cow", case=True) == (0.0, False)
    assert metric_info("first-letter").description == "The first letter is right."
