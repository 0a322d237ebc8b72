"""Evaluation questions: splits, several right answers, and what is wrong shows before anything is trained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from liit.config import EvaluationSet
from liit.errors import InputError
from liit.evaluation.evaluate import score_answers
from liit.lifelong.tasks import read_tasks


def rows(path: Path, *items: dict[str, Any]) -> Path:
    written = [
        {
            "id": f"{path.stem}-{i}",
            "conversations": [
                {"from": "human", "value": f"Question {i} of {path.stem}?"},
                {"from": "gpt", "value": item.pop("answer", "4")},
            ],
            **item,
        }
        for i, item in enumerate(items)
    ]
    path.write_text(json.dumps(written), encoding="utf-8")
    return path


def item(path: Path, skill: str = "counting", metric: str = "exact-match", **more: Any) -> EvaluationSet:
    return EvaluationSet(skill=skill, path=path, metric=metric, **more)


def test_several_right_answers_and_the_version_reach_the_results(tmp_path: Path) -> None:
    path = rows(tmp_path / "a.json", {"answers": ["4", "four cats"]}, {"answers": ["5"]})
    (task,) = read_tasks(tmp_path / "pool", [item(path, answers_key="answers", version=7)])
    answered = score_answers(task, ["four cats", "4"])
    assert answered.result == {"metric": "exact-match", "score": 0.5, "n": 2, "wrong_format": 0, "version": 7}
    assert [row["reference"] for row in answered.predictions] == [["4", "four cats"], ["5"]]


def test_options_and_facts_of_all_rows_stand_in_the_results(tmp_path: Path) -> None:
    pytest.importorskip("sacrebleu")
    path = rows(tmp_path / "a.json", {"answer": "a red cat"}, {"answer": "a blue dog"})
    (task,) = read_tasks(tmp_path / "pool", [item(path, metric="chrf", metric_options={"word_order": 2})])
    result = score_answers(task, ["a red cat", "a dog"]).result
    assert result["options"] == {"word_order": 2}
    assert 0.5 < result["score"] < 1
    assert "nw:2" in result["facts"]["signature"]
    assert set(result["facts"]) == {"corpus_chrf", "signature"}


def test_a_plain_task_has_the_result_it_always_had(tmp_path: Path) -> None:
    (task,) = read_tasks(tmp_path / "pool", [item(rows(tmp_path / "a.json", {}, {}))])
    assert score_answers(task, ["4", "5"]).result == {"metric": "exact-match", "score": 0.5, "n": 2, "wrong_format": 0}


def test_a_file_of_several_splits_measures_several_skills(tmp_path: Path) -> None:
    path = rows(tmp_path / "a.json", {"split": "easy"}, {"split": "hard"}, {"split": "easy"}, {"split": "unused"})
    easy, hard = read_tasks(tmp_path / "pool", [item(path, "easy", split="easy"), item(path, "hard", split="hard")])
    assert [sample.id for sample in easy.samples] == ["a-0", "a-2"]
    assert [sample.id for sample in hard.samples] == ["a-1"]
    again = read_tasks(tmp_path / "pool", [item(path, "easy", split="easy"), item(path, "hard", split="hard")])
    assert [task.identity for task in again] == [easy.identity, hard.identity]


@pytest.mark.parametrize("splits", [("easy", "easy"), (None, None), ("easy", None), (None, "easy")])
def test_no_row_measures_two_skills(tmp_path: Path, splits: tuple[str | None, ...]) -> None:
    path = rows(tmp_path / "a.json", {"split": "easy"}, {"split": "hard"})
    sets = [item(path, skill, split=split) for skill, split in zip(("one", "two"), splits, strict=True)]
    with pytest.raises(InputError, match="'one' and for 'two'; give each a 'split' of its own"):
        read_tasks(tmp_path / "pool", sets)


def test_what_a_metric_cannot_read_shows_before_anything_is_trained(tmp_path: Path) -> None:
    path = rows(tmp_path / "a.json", {"answer": "4"}, {"answer": "some"})
    with pytest.raises(InputError, match="evaluation of 'counting': reference: 'some' is not a number"):
        read_tasks(tmp_path / "one", [item(path, metric="numeric")])
    with pytest.raises(InputError, match="answers_key: row 'a-0' has null under 'answers'"):
        read_tasks(tmp_path / "two", [item(path, answers_key="answers")])
    with pytest.raises(InputError, match=r"no row whose key 'split' is 'test', only ''"):
        read_tasks(tmp_path / "three", [item(path, split="test")])
    with pytest.raises(InputError, match="evaluation of 'counting': metric_options: threshold 3"):
        read_tasks(tmp_path / "four", [item(path, metric="anls", metric_options={"threshold": 3})])
    with pytest.raises(InputError, match=r"evaluation of 'counting': metric_options \{'threshold': 'half'\}"):
        read_tasks(tmp_path / "five", [item(path, metric="anls", metric_options={"threshold": "half"})])
