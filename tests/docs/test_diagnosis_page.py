"""The table of clusterings is the one that its script prints."""

from __future__ import annotations

import json
import runpy

from pages import ROOT


def test_every_row_of_the_committed_result_is_in_the_page() -> None:
    line = runpy.run_path(str(ROOT / "benchmarks/diagnosis.py"))["line"]
    result = json.loads((ROOT / "benchmarks/results/diagnosis.json").read_text(encoding="utf-8"))
    page = (ROOT / "docs/compare.md").read_text(encoding="utf-8")
    rows = [line(row) for row in result["clusterings"]]
    assert len(rows) > 3
    assert "\n".join(rows) in page
