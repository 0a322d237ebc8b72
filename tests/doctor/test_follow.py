"""A run says at each extraction how it compares with what was predicted."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tiny import ROWS, here

from liit.doctor.follow import in_short
from liit.doctor.prediction import Compared


def test_a_run_says_what_was_predicted_and_what_was_done(
    continuum: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("run", continuum, "--out", tmp_path / "run", "--set", "features.batch_tokens=100", "--no-report")
    said = here(capsys, *arguments)
    assert said.code == 0, said.err
    lines = [line for line in said.out.splitlines() if ", extract: " in line]
    assert len(lines) == 3
    for number, line in enumerate(lines, start=1):
        found = re.search(r"; (\d+) model calls predicted, (\d+) made", line)
        assert found is not None, line
        assert found[1] == found[2]
        assert int(found[1]) > number * ROWS * 10 / 100
        assert (" s predicted, " in line) == (number > 1)  # the first has nothing to take its speed from


def test_nothing_to_do_is_nothing_to_say() -> None:
    assert in_short([]) == ""
    assert in_short([Compared("model calls with images", "calls", 3, 4), Compared("time", "seconds", 2, 3)]) == (
        "3 model calls predicted, 4 made, 2.0 s predicted, 3.0 s taken"
    )
