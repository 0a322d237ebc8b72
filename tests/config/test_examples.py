"""The configurations in examples/ are valid."""

from __future__ import annotations

from pathlib import Path

import pytest

from liit.config import load_config

EXAMPLES = Path(__file__).parents[2] / "examples"
FILES = sorted(EXAMPLES.glob("*.yaml"))


def test_there_are_examples_and_each_is_listed() -> None:
    listed = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    assert len(FILES) >= 4
    assert [file.name for file in FILES if f"({file.name})" not in listed] == []


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_example_is_a_valid_continuum(file: Path) -> None:
    continuum = load_config(file, check_files=False)
    assert len(continuum.steps) > 1
    assert len(continuum.evaluation_sets()) > 1
