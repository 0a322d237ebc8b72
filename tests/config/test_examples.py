"""The configurations in examples/ are valid."""

from __future__ import annotations

from pathlib import Path

import pytest

from liit.config import load_config
from liit.config.task_files import read_task

EXAMPLES = Path(__file__).parents[2] / "examples"
FILES = sorted(EXAMPLES.glob("*.yaml"))
TASKS = sorted(EXAMPLES.glob("tasks/*.yaml"))


def test_there_are_examples_and_each_is_listed() -> None:
    listed = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    assert len(FILES) >= 4
    assert [file.name for file in FILES if f"({file.name})" not in listed] == []


@pytest.mark.parametrize("file", TASKS, ids=lambda file: file.stem)
def test_example_is_a_valid_task_and_listed(file: Path) -> None:
    task, _ = read_task(file)
    assert task.skill == file.stem
    assert task.description
    assert f"(tasks/{file.name})" in (EXAMPLES / "README.md").read_text(encoding="utf-8")


def test_the_documentation_shows_a_task_of_the_examples() -> None:
    page = (EXAMPLES.parent / "docs" / "evaluation.md").read_text(encoding="utf-8")
    example = (EXAMPLES / "tasks" / "textvqa.yaml").read_text(encoding="utf-8")
    assert example.partition("\n")[2] in page


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_example_is_a_valid_continuum(file: Path) -> None:
    continuum = load_config(file, check_files=False)
    assert len(continuum.steps) > 1
    assert len(continuum.evaluation_sets()) > 1
