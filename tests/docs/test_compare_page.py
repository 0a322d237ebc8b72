"""The table in docs/compare.md is the one of the committed result of its script."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import pytest
from pages import ROOT

from liit.training.hooks import make_hook

SCRIPT = runpy.run_path(str(ROOT / "benchmarks" / "compare.py"))
PAGE = (ROOT / "docs" / "compare.md").read_text(encoding="utf-8")


def committed(path: Path) -> dict[str, Any]:
    result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return result


def test_the_page_has_the_committed_table() -> None:
    table = "Not run yet."
    if SCRIPT["RESULTS"].is_file():
        table = SCRIPT["markdown"](committed(SCRIPT["RESULTS"]))
    begin, end = SCRIPT["TABLE"]
    assert f"{begin}\n\n{table}\n\n{end}" in PAGE


def test_the_page_has_the_committed_ablation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    script = runpy.run_path(str(ROOT / "benchmarks" / "ablation.py"))
    begin, end = script["MARKS"]
    assert f"{begin}\n\n{script['table'](committed(script['RESULTS']))}\n\n{end}" in PAGE


def test_the_training_page_has_the_committed_strengths_and_the_default_forgets_least_of_the_best(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    script = runpy.run_path(str(ROOT / "benchmarks" / "ewc_strength.py"))
    begin, end = script["MARKS"]
    result = committed(script["RESULTS"])
    page = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    assert f"{begin}\n\n{script['table'](result)}\n\n{end}" in page
    held = [row for row in result["rows"] if row["strength"][0].isdigit()]
    top = max(row["average_accuracy"] for row in held)
    good = [row for row in held if row["average_accuracy"] > top - 0.02]
    assert make_hook("ewc", {}).strength == float(min(good, key=lambda row: row["forgetting_max"])["strength"])


def test_the_table_writes_what_does_not_exist_as_a_dash_and_says_what_was_changed() -> None:
    row = {
        "label": "m", "is_reference": False, "is_equal": False, "select_seconds": 1.0, "train_seconds": 4.0,
        "versus_random": None, "versus_random_low": None, "versus_random_high": None,
    }  # fmt: skip
    shown = {*SCRIPT["QUALITY"], *SCRIPT["RETENTION"], *SCRIPT["COSTS"]}
    row |= {key: 0.5 for column in shown for key in (column.key, f"{column.key}_sd") if key not in row}
    row |= {"relative_gain": None, "relative_gain_sd": None}
    result = {"continuum": "c", "budget": 1000, "seeds": [0, 1], "settings": ["budget=50"], "equal_compute": None}
    text = SCRIPT["markdown"]({**result, "rows": [row], "verdict": ["Nothing."]})
    assert "| m | 0.500 ± 0.500 | – | 0.500 ± 0.500 | – |" in text
    assert text.startswith("Continuum `c`, 1,000 samples per step, 2 seeds; settings changed: budget=50.")
    assert "selection / training | selection / training (compute)" in text
    assert "training time" not in text
    assert text.endswith("- Nothing.")
