"""The pages about selection say what the code does."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from typing import Any

from liit.selection import selectors

ROOT = Path(__file__).resolve().parents[2]


def test_the_table_of_methods_lists_every_method_its_features_and_its_options() -> None:
    text = (ROOT / "docs" / "selection.md").read_text(encoding="utf-8")
    table = text.split("## Methods")[1].split("### adapt-inf")[0]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines() if line.startswith("| `")]
    found = {row[0].strip("`"): row for row in rows}
    known = {name: s for name, s in selectors().items() if s.function.__module__.startswith("liit.")}
    assert set(found) == set(known)
    for name, selector in known.items():
        _, features, _, options = found[name]
        assert re.findall(r"`([^`]+)`", features) == list(selector.needs)
        assert re.findall(r"`([^`]+)`", options) == list(selector.options)


def load(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, ROOT / "benchmarks" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script


def shown(script: Any) -> str:
    page: str = script.PAGE.read_text(encoding="utf-8")
    return page.split(script.BEGIN)[1].split(script.END)[0].strip()


def test_the_page_on_official_code_shows_what_its_script_measures() -> None:
    script = load("official_code")
    assert shown(script) == script.table()


def test_the_page_on_official_code_shows_the_kept_measurements_of_features() -> None:
    script = load("official_features")
    result = json.loads(script.RESULTS.read_text(encoding="utf-8"))
    assert shown(script) == script.table(result)
    assert result["rows"] == script.ROWS


def test_the_page_on_selection_shows_the_kept_measurements_and_they_hold() -> None:
    script = load("selection")
    record = json.loads(script.RESULTS.read_text(encoding="utf-8"))
    claims = script.summary(record["measurements"])
    assert claims == record["summary"]
    assert shown(script) == script.markdown(claims)
    large = str(claims["rows"][-1])
    assert claims["rows"][0] * 10 == claims["rows"][-1] == 1_000_000
    assert claims["prune_rows"] == 200_000
    assert claims["select_peak_mb"][large] < 1000
    assert claims["growth_exponent"]["cpu"] <= 1.1
    assert claims["speedup"][large]["cpu"] >= 5
    assert claims["worst_inertia_ratio"][large] <= 1.02
    assert all(setting["of_multiply_cpu"] >= 0.5 for setting in claims["prune"])
    assert all(setting["peak_above_input_mb"] < 1.25 * setting["memory_mb"] for setting in claims["prune"])
    assert claims["prune_equals_reference"]
    assert claims["leverage_worst_difference"] < 1e-6
