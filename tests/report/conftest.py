from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # the tests here share synthetic_runs.py

from synthetic_runs import write_runs


@pytest.fixture(scope="session")
def run_paths(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Five finished runs; tests must not change them."""
    return write_runs(tmp_path_factory.mktemp("runs"))


HOSTILE = "<script>alert('x')</script>\"'><img src=x onerror=alert(1)>&amp;{{ 7 * 7 }}\u202e"


@pytest.fixture(scope="session")
def hostile_paths(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Runs whose ids, skills, sources, step names, questions, answers and reasons try to be HTML."""
    return write_runs(tmp_path_factory.mktemp("hostile"), methods=("lite-adapt-inf", "replay"), hostile=HOSTILE)
