"""Mutated files of every other kind that a command reads: refused with a line, or read as if nothing had happened."""

from __future__ import annotations

import copy
import random
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from mutations import ODD, mutate_bytes, places
from steps import Prepared, pool_content
from tiny import features

from liit.config import load_config
from liit.errors import InputError
from liit.lifelong.stages import read_labels, read_selection


def outcomes_of(read: Callable[[], Any]) -> tuple[str, Any]:
    """What came of reading: what was read, or that it was refused; nothing else may be raised."""
    try:
        return "read", read()
    except InputError:
        return "refused", None


def mutate_yaml(value: Any, rng: random.Random) -> bytes:
    """The text of a continuum file in which a value is another, missing, or in the wrong place."""
    value = copy.deepcopy(value)
    for _ in range(rng.randint(1, 3)):
        found = places(value)
        container, key = rng.choice(found)
        if rng.random() < 0.3:
            del container[key]
        else:
            container[key] = copy.deepcopy(rng.choice(ODD))
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True).encode("utf-8", "surrogatepass")


def test_a_mutated_continuum_file_is_refused_with_a_line(short: Path, place: Path) -> None:
    rng, outcomes = random.Random(1), Counter[str]()
    text = short.read_bytes()
    value = yaml.safe_load(text)
    for number in range(250):
        file = place / "continuum.yaml"
        file.write_bytes(mutate_yaml(value, rng) if number % 2 else mutate_bytes(text, rng))
        outcomes[outcomes_of(lambda file=file: load_config(file, check_files=False))[0]] += 1
    assert outcomes["refused"] >= 100, outcomes


@pytest.mark.parametrize(("name", "read"), [("selection", read_selection), ("labels", lambda p: read_labels(p)[0])])
def test_a_mutated_selection_is_refused_or_read_as_it_was(
    prepared: Prepared, place: Path, name: str, read: Callable[[Path], list[str]]
) -> None:
    rng, outcomes = random.Random(name), Counter[str]()
    whole = prepared.home / f"selection/{name}.parquet"
    expected = read(whole)
    for _ in range(120):
        file = place / whole.name
        file.write_bytes(mutate_bytes(whole.read_bytes(), rng))
        outcome, found = outcomes_of(lambda file=file: read(file))
        outcomes[outcome if found in (None, expected) else "changed"] += 1
    assert outcomes["refused"] >= 60, outcomes
    assert outcomes["changed"] <= 2, outcomes  # Parquet has sums of its pages, none of its footer


@pytest.mark.parametrize(("part", "read"), [("pool", pool_content), ("features", features)])
def test_a_mutated_file_of_a_table_is_refused_or_read_as_it_was(
    prepared: Prepared, place: Path, part: str, read: Callable[[Path], Any]
) -> None:
    rng, outcomes = random.Random(part), Counter[str]()
    expected = read(prepared.home / part)
    shutil.copytree(prepared.home / part, place / part)
    files = sorted(file for file in (place / part).rglob("*") if file.is_file() and file.stat().st_size)
    for _ in range(60):
        file = rng.choice(files)
        whole = file.read_bytes()
        file.write_bytes(mutate_bytes(whole, rng))
        outcome, found = outcomes_of(lambda: read(place / part))
        assert found is None or found == expected, file
        outcomes[outcome] += 1
        file.write_bytes(whole)
    assert outcomes["refused"] >= 10, outcomes
    assert read(place / part) == expected


def test_a_mutated_file_of_a_run_is_refused_by_the_report_or_shown(undisturbed: Path, place: Path) -> None:
    from liit.report import summary_table, to_text

    rng, outcomes = random.Random(2), Counter[str]()
    shutil.copytree(undisturbed, place / "run")
    small = [*(place / "run").glob("*.json*"), *(place / "run").glob("*.yaml"), *(place / "run/steps").glob("*/*.*")]
    for _ in range(80):
        file = rng.choice(sorted(small))
        whole = file.read_bytes()
        file.write_bytes(mutate_bytes(whole, rng))
        outcomes[outcomes_of(lambda: to_text(summary_table([place / "run"], None)))[0]] += 1
        file.write_bytes(whole)
    assert outcomes["refused"] >= 10, outcomes
