from __future__ import annotations

import sys
from importlib.metadata import EntryPoint
from types import ModuleType

import numpy as np
import pytest

from liit import plugins
from liit.selection import Choice, Problem, register_selector, registry, select, selectors


@pytest.fixture(autouse=True)
def _restored_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_selectors", dict(registry._selectors))


def first_rows(problem: Problem, *, offset: int = 0) -> Choice:
    """The first rows."""
    chosen = np.arange(problem.budget) + offset
    return Choice(chosen, why=lambda at: ["first"] * len(at), why_not=lambda at: ["late"] * len(at))


def test_one_decorator_adds_a_selector() -> None:
    register_selector("first", needs=["el2n"])(first_rows)
    assert selectors()["first"].description == "The first rows."
    assert selectors()["first"].options == {"offset": 0}
    assert select("first", {"el2n": np.arange(4.0)}, 2).table["reason"].to_pylist() == ["first", "first"]
    with pytest.raises(ValueError, match="el2n"):
        select("first", {"id": np.arange(4)}, 2)


def test_a_taken_name_is_refused() -> None:
    with pytest.raises(ValueError, match="'random' is taken"):
        register_selector("random")(first_rows)


def test_a_selector_that_misses_the_budget_is_caught() -> None:
    register_selector("broken")(
        lambda problem: (
            first_rows(problem, offset=0)
            if not problem.budget
            else Choice(np.zeros(problem.budget, int), why=lambda at: [], why_not=lambda at: [])
        )
    )
    with pytest.raises(RuntimeError, match="broken"):
        select("broken", {"id": np.arange(4)}, 2)


def entry(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    point = EntryPoint("theirs", value, registry.ENTRY_POINTS)
    monkeypatch.setattr(plugins, "entry_points", lambda group: [point] if group == registry.ENTRY_POINTS else [])


def test_other_packages_register_by_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("their_package")
    module.theirs = register_selector("theirs")(first_rows)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "their_package", module)
    entry(monkeypatch, "their_package:theirs")
    assert "theirs" in selectors()


def test_a_package_that_cannot_be_imported_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    entry(monkeypatch, "no_such_package:theirs")
    with pytest.raises(ValueError, match="no_such_package"):
        selectors()
