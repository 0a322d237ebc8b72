"""Task files: read like inline items, and wrong ones are answered with their own line."""

from __future__ import annotations

from pathlib import Path

import pytest

from liit.config import config_sha256, dump_config, load_config
from liit.config.task_files import read_task
from liit.errors import InputError

TASK = """\
skill: signs
version: 2
description: Words on street signs; photographs by the city, read by three people.
path: signs.json
images: pictures
metric: anls
metric_options: {threshold: 0.6}
answers_key: answers
instruction: Answer with the words on the sign alone.
split: test
"""
CONTINUUM = """\
name: streets
budget: 10
model: {path: builtin:demo}
steps:
  - name: first
    train: [{path: rows.json}]
    evaluation:
      - task: tasks/signs.yaml
      - {skill: colour, path: rows.json, metric: exact-match}
unseen:
  - task: tasks/other.yaml
"""


@pytest.fixture
def continuum(tmp_path: Path) -> Path:
    tasks = tmp_path / "tasks"
    (tasks / "pictures").mkdir(parents=True)
    for name in ("signs.json", "other.json"):
        (tasks / name).write_text("[]")
    (tmp_path / "rows.json").write_text("[]")
    (tasks / "signs.yaml").write_text(TASK)
    (tasks / "other.yaml").write_text("skill: other\nversion: 1\npath: other.json\nmetric: numeric\n")
    path = tmp_path / "continuum.yaml"
    path.write_text(CONTINUUM)
    return path


def message(continuum: Path, *overrides: str) -> str:
    with pytest.raises(InputError) as caught:
        load_config(continuum, overrides)
    assert "\n" not in str(caught.value)
    return str(caught.value).replace(f"{continuum.parent}/", "")


def wrong(continuum: Path, old: str, new: str) -> str:
    text = TASK.replace(old, new, 1)
    assert text != TASK
    (continuum.parent / "tasks" / "signs.yaml").write_text(text)
    return message(continuum)


def test_a_task_file_says_what_an_inline_item_says(continuum: Path) -> None:
    loaded = load_config(continuum)
    signs, colour = loaded.steps[0].evaluation
    folder = continuum.parent / "tasks"
    assert (signs.skill, signs.version, signs.metric, signs.metric_options) == ("signs", 2, "anls", {"threshold": 0.6})
    assert (signs.path, signs.images) == (folder / "signs.json", folder / "pictures")
    assert (signs.answers_key, signs.split) == ("answers", "test")
    assert signs.instruction == "Answer with the words on the sign alone."
    assert (colour.version, colour.answers_key, colour.split, colour.instruction) == (None, None, None, "")
    assert loaded.unseen[0].path == folder / "other.json"


def test_the_resolved_continuum_needs_no_task_file(continuum: Path, tmp_path: Path) -> None:
    loaded = load_config(continuum)
    (tmp_path / "resolved.yaml").write_text(dump_config(loaded))
    for name in ("signs.yaml", "other.yaml"):
        (continuum.parent / "tasks" / name).unlink()
    assert load_config(tmp_path / "resolved.yaml") == loaded


def test_another_version_is_another_run_and_another_description_is_not(continuum: Path) -> None:
    before = config_sha256(load_config(continuum))
    file = continuum.parent / "tasks" / "signs.yaml"
    file.write_text(TASK.replace("photographs", "pictures"))
    assert config_sha256(load_config(continuum)) == before
    file.write_text(TASK.replace("version: 2", "version: 3"))
    assert config_sha256(load_config(continuum)) != before


@pytest.mark.parametrize(
    "old, new, expected",
    [
        (
            "metric: anls",
            "metric: anlz",
            "tasks/signs.yaml, line 6: metric: unknown metric 'anlz'; did you mean 'anls'?",
        ),
        (
            "threshold: 0.6",
            "treshold: 0.6",
            "tasks/signs.yaml, line 7: metric_options: anls: unknown option 'treshold'; did you mean "
            "'threshold'? (known: threshold)",
        ),
        ("version: 2\n", "", "tasks/signs.yaml, line 1: missing key 'version' in the top level: counts up whenever"),
        ("version: 2", "version: new", "tasks/signs.yaml, line 2: version: got 'new', expected a whole number"),
        (
            "metric: anls",
            "metrik: anls",
            "tasks/signs.yaml, line 6: unknown key 'metrik' in the top level; did you mean",
        ),
        (
            "path: signs.json",
            "path: sign.json",
            "tasks/signs.yaml, line 4: there is no file tasks/sign.json; paths start",
        ),
        (
            "pictures\n",
            "photos\n",
            "tasks/signs.yaml, line 5: there is no folder tasks/photos; paths start from the task",
        ),
        (TASK, "- signs\n", "tasks/signs.yaml, line 1: expected keys and values (skill, version, path, metric, ...)"),
        ("skill: signs", "skill: colour", "continuum.yaml, line 9: skill 'colour' is measured twice"),
    ],
)
def test_a_mistake_is_named_with_the_task_file_s_line(continuum: Path, old: str, new: str, expected: str) -> None:
    assert wrong(continuum, old, new).startswith(expected)


def test_nothing_stands_beside_task(continuum: Path) -> None:
    continuum.write_text(CONTINUUM.replace("tasks/signs.yaml", "tasks/signs.yaml\n        metric: numeric"))
    assert message(continuum) == (
        "continuum.yaml, line 9: 'metric' stands beside 'task', which says everything; put it into the task file"
    )
    continuum.write_text(CONTINUUM)
    assert message(continuum, "steps.0.evaluation.0.metric=numeric").startswith("--set steps.0.evaluation.0.metric")


def test_a_task_file_that_is_not_there(continuum: Path) -> None:
    continuum.write_text(CONTINUUM.replace("other.yaml", "others.yaml"))
    assert message(continuum) == (
        "continuum.yaml, line 11: there is no task file tasks/others.yaml; paths start from the continuum file's folder"
    )
    continuum.write_text(CONTINUUM.replace("tasks/other.yaml", "3"))
    assert message(continuum) == "continuum.yaml, line 11: task: got 3, expected the path of a task file"


def test_inline_items_take_the_same_options(continuum: Path) -> None:
    item = "{skill: colour, path: rows.json, metric: exact-match"
    continuum.write_text(CONTINUUM.replace(item, item + ", metric_options: {fuzzy: true}"))
    assert message(continuum) == (
        "continuum.yaml, line 9: steps.0.evaluation.1.metric_options: exact-match: unknown option 'fuzzy' (known: none)"
    )


def test_a_task_file_alone_can_be_read(continuum: Path) -> None:
    task, places = read_task(continuum.parent / "tasks" / "signs.yaml")
    assert task.description.startswith("Words on street signs")
    assert places["metric",].endswith("signs.yaml, line 6")
