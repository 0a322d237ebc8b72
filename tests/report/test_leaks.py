"""The section on leaks: what of the evaluation data is in the pool, by skill."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from liit.report import write_report

FOUND = {
    "evaluation_rows": 1200, "evaluation_images": 30, "leaked_rows": 7, "leaked_images": 2,
    "by_skill": {"<b>colour</b>": {"rows": 1000, "leaked_rows": 7, "images": 20, "leaked_images": 2}},
    "examples": [{"what": "row", "skill": "<b>colour</b>", "evaluation": "e<1>", "training": "t&1", "source": "s"}],
}  # fmt: skip


@pytest.fixture
def section(run_paths: list[Path], tmp_path: Path) -> Callable[..., str]:
    """The section of a report on a copy of a run whose last ingest found this."""

    def make(**changes: object) -> str:
        run = tmp_path / "run"
        shutil.copytree(run_paths[0], run, dirs_exist_ok=True)
        file = sorted((run / "steps").glob("*/ingest.json"))[-1]
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))
        page = write_report([run], tmp_path / "report.html").read_text(encoding="utf-8")
        return page.partition("<h3>Leaks</h3>")[2].partition("<h3>")[0]

    return make


def test_leaks_are_shown_by_skill_with_examples_and_escaped(section: Callable[..., str]) -> None:
    shown = section(leaked_rows=7, leaked_images=2, leaks=FOUND)
    assert "7 evaluation rows and 2 evaluation pictures are also in the pool" in shown
    row = re.search(r"&lt;b&gt;colour&lt;/b&gt;</bdi></th>(.*)</tr>", shown)
    assert row is not None
    assert re.findall(r"<td>([^<]*)</td>", row[1]) == ["7", "1,000", "2", "20"]
    assert "row <bdi>e&lt;1&gt;</bdi>" in shown
    assert "training row <bdi>t&amp;1</bdi> of <bdi>s</bdi>" in shown
    assert "<b>colour" not in shown


def test_no_leak_is_said_too_and_a_run_that_knows_only_numbers_has_no_table(section: Callable[..., str]) -> None:
    assert "No evaluation row and no evaluation picture is in the pool." in section(leaked_rows=0, leaked_images=0)
    shown = section(leaked_rows=3, leaked_images=0)
    assert "3 evaluation rows" in shown
    assert "<table" not in shown
