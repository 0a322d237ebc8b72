"""Costs of a stage are those of all sittings that it took."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import pytest
from tiny import cut_after, write_continuum

import liit
from liit.lifelong import spent, stages
from liit.lifelong.rundir import read_timings
from liit.lifelong.spent import FILE, Spent, spent_on

METHOD = "method=adapt-inf"


def operations(run: Path) -> dict[tuple[int, str], int]:
    return {(row["step"], row["stage"]): row["flops"] for row in read_timings(run) if "flops" in row}


def test_operations_before_a_stop_are_counted_with_those_after_it(model: Path, tmp_path: Path) -> None:
    continuum = write_continuum(tmp_path, model, steps=1)
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    liit.run(continuum, whole, overrides=[METHOD])
    with cut_after(stages, "extract_step"):
        liit.run(continuum, stopped, overrides=[METHOD])
    assert spent_on(stopped / FILE) == (1, "extract")
    liit.run(continuum, stopped, overrides=[METHOD])  # finds every row scored
    once, twice = (operations(run)[1, "extract"] for run in (whole, stopped))
    assert 0 < once <= twice < 1.2 * once, "no more than a look at the model was done again"
    assert not list(stopped.glob(f"{FILE}*"))


def test_an_account_goes_on_in_its_own_stage_only(tmp_path: Path) -> None:
    first = Spent(tmp_path / FILE, 2, "train")
    first.note(100, at_once=True)
    seconds, flops = Spent(tmp_path / FILE, 2, "train").total(11)
    assert flops == 111
    assert seconds >= json.loads((tmp_path / FILE).read_text())["seconds"]
    assert Spent(tmp_path / FILE, 3, "train").total(11)[1] == 11
    assert Spent(tmp_path / FILE, 2, "extract").total(11)[1] == 11


def test_it_is_written_down_now_and_then_so_that_a_kill_loses_little(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = Spent(tmp_path / FILE, 1, "train")
    account.note(5)
    assert not (tmp_path / FILE).exists(), "a moment ago"
    monkeypatch.setattr(spent, "NOTED_EVERY", 0.0)
    account.note(6)
    assert Spent(tmp_path / FILE, 1, "train").total(0)[1] == 6


WHOLE = {"step": 1, "stage": "train", "seconds": 1.5, "flops": 7}


@pytest.mark.parametrize(
    "text",
    [
        "", '{"step": 1, "sta', "[]", "7",
        *(json.dumps({k: v for k, v in WHOLE.items() if k != name}) for name in WHOLE),
        *(json.dumps(WHOLE | {"seconds": value}) for value in ("a", None, -1.0, float("nan"), float("inf"))),
        *(json.dumps(WHOLE | {"flops": value}) for value in ("a", None, -1, 1.5)),
        *(json.dumps(WHOLE | {"step": value}) for value in ("1", None)),
    ],
)  # fmt: skip
def test_a_damaged_account_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE).write_text(text)
    assert spent_on(tmp_path / FILE) is None
    assert Spent(tmp_path / FILE, 1, "train").total(3)[1] == 3


def test_a_disk_that_fills_up_leaves_the_last_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Spent(tmp_path / FILE, 1, "train").note(5, at_once=True)

    def full(path: Path, *_: Any, **__: Any) -> int:
        path.touch()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    Spent(tmp_path / FILE, 1, "train").note(6, at_once=True)
    assert Spent(tmp_path / FILE, 1, "train").total(0)[1] == 5


def test_what_a_kill_left_after_its_stage_was_listed_is_removed(model: Path, tmp_path: Path) -> None:
    continuum, out = write_continuum(tmp_path, model, steps=1), tmp_path / "out"
    liit.run(continuum, out, overrides=[METHOD])
    Spent(out / FILE, 1, "evaluate").note(0, at_once=True)
    liit.run(continuum, out, overrides=[METHOD])
    assert not list(out.glob(f"{FILE}*"))
