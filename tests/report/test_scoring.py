"""Rows scored, predicted and taken over: what the report says about them, also of runs that have not counted them."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest

from liit.report import load_runs, scoring_text, write_report
from liit.report.scoring import scored_steps


def rewritten(source: Path, target: Path, facts: Mapping[int, Mapping[str, object]]) -> Path:
    """The same run with other facts of its extractions."""
    path = Path(shutil.copytree(source, target))
    state = json.loads((path / "run.json").read_text())
    state["stages"] = [{"step": step, "stage": "extract", **found} for step, found in facts.items()]
    (path / "run.json").write_text(json.dumps(state))
    return path


@pytest.fixture(scope="module")
def part(run_paths: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that predicted rows at its second step and took some over at its third."""
    facts = {
        1: {"rows": 1234, "predicted": 0, "carried": 0},
        2: {"rows": 2000, "predicted": 700, "carried": 0},
        3: {"rows": 2500, "predicted": 0, "carried": 1900},
    }
    return rewritten(run_paths[0], tmp_path_factory.mktemp("part") / "run", facts)


def test_rows_that_are_neither_predicted_nor_taken_over_were_scored(part: Path) -> None:
    steps = scored_steps(load_runs([part])[0])
    assert [(one.scored, one.predicted, one.carried) for one in steps] == [(1234, 0, 0), (1300, 700, 0), (600, 0, 1900)]


def test_text_and_page_show_the_same_counts_step_by_step(part: Path, tmp_path: Path) -> None:
    lines = [line.split() for line in scoring_text(load_runs([part])).splitlines()]
    assert lines[3] == ["adapt-inf", "2", "drawings", "1,300", "700", "0", "2,000"]
    page = write_report([part], tmp_path / "report.html").read_text(encoding="utf-8")
    section = page.partition('<section id="scored">')[2].partition("</section>")[0]
    cells = [re.findall(r"<td>(.*?)</td>", row) for row in section.split("<tr>")[2:]]
    assert cells == [["1,234", "0", "0", "1,234"], ["1,300", "700", "0", "2,000"], ["600", "0", "1,900", "2,500"]]
    assert "A dash" not in section


def test_a_run_of_an_older_version_has_dashes(run_paths: list[Path], tmp_path: Path) -> None:
    old = rewritten(run_paths[0], tmp_path / "run", {1: {"rows": 80}, 2: {"rows": 90, "predicted": 30}})
    lines = [line.split() for line in scoring_text(load_runs([old])).splitlines()[2:]]
    assert lines[0] == ["adapt-inf", "1", "pictures", "–", "–", "–", "80"]
    assert lines[1] == ["adapt-inf", "2", "drawings", "–", "30", "–", "90"]
    page = write_report([old], tmp_path / "report.html").read_text(encoding="utf-8")
    assert "A dash: written by an older version" in page


def test_methods_without_features_have_no_such_section(run_paths: list[Path], tmp_path: Path) -> None:
    replay = run_paths[2:3]
    assert scoring_text(load_runs(replay)) == ""
    assert 'id="scored"' not in write_report(replay, tmp_path / "report.html").read_text(encoding="utf-8")


def test_a_hostile_step_name_stays_text(hostile_paths: list[Path], tmp_path: Path) -> None:
    page = write_report(hostile_paths, tmp_path / "report.html").read_text(encoding="utf-8")
    section = page.partition('<section id="scored">')[2].partition("</section>")[0]
    assert "&lt;script&gt;" in section
    assert "<script" not in section
