"""The pages on formats and the pool list what exists."""

from __future__ import annotations

import importlib.util
import json
import re

from pages import ROOT

from liit.data.containers import CONTAINERS
from liit.data.formats import formats, get_format
from liit.data.validate import REASONS

FORMATS = (ROOT / "docs" / "formats.md").read_text(encoding="utf-8")
POOL = (ROOT / "docs" / "pool.md").read_text(encoding="utf-8")


def test_every_format_is_listed_with_its_files() -> None:
    rows = dict(re.findall(r"^\| `([a-z0-9-]+)` \| .* \| ([^|]*) \|$", FORMATS.partition("## Images")[0], flags=re.M))
    assert set(rows) == set(formats())
    for name, files in rows.items():
        suffixes = [suffix for kind in get_format(name).containers for suffix in CONTAINERS[kind].suffixes]
        assert set(re.findall(r"`(\.\w+)`", files)) <= set(suffixes)


def test_every_reason_is_listed() -> None:
    section = FORMATS.partition("## What is checked")[2].partition("## ")[0]
    assert dict(re.findall(r"^\| `([a-z0-9-]+)` \| (.*) \|$", section, flags=re.M)) == REASONS


def test_the_figures_are_those_that_were_measured() -> None:
    spec = importlib.util.spec_from_file_location("pool_benchmark", ROOT / "benchmarks/pool.py")
    assert spec is not None
    assert spec.loader is not None
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    measured = json.loads(benchmark.RESULTS.read_text(encoding="utf-8"))
    shown = POOL.partition(benchmark.BEGIN)[2].partition(benchmark.END)[0]
    assert shown.strip() == benchmark.tables(measured)
    assert set(measured) == set(benchmark.PARTS)
