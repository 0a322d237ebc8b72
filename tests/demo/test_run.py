"""`liit demo`, on a continuum that takes seconds instead of minutes."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "lifelong"))  # tiny.py

from tiny import cache, here, model, write_continuum

from liit.demo import run as demo
from liit.demo.run import run_demo
from liit.errors import InputError
from liit.lifelong.parallel import Job

__all__ = ["cache", "model"]


@pytest.fixture
def small(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The demo with the small continuum in place of the built-in one."""
    path = write_continuum(tmp_path / "c", model, steps=1)
    monkeypatch.setattr(demo, "cached_continuum", lambda folder: path)
    return path


@pytest.fixture
def in_this_process(
    small: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> list[tuple[str, ...]]:
    """Jobs are run by the same command lines, but here, one after the other; the list of these command lines."""
    given: list[tuple[str, ...]] = []

    def run_jobs(jobs: Sequence[Job], at_once: int, show: Callable[[str], None]) -> None:
        for job in jobs:
            given.append(job.arguments)
            assert here(capsys, *job.arguments).code == 0

    monkeypatch.setattr(demo, "run_jobs", run_jobs)
    monkeypatch.setattr(demo, "keep_vision_states", lambda continuum, images: 0)
    return given


def test_it_runs_the_methods_and_the_reference_and_writes_one_report(
    in_this_process: list[tuple[str, ...]], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    result = run_demo(out, methods=["replay", "replay"], seed=5, overrides=["budget=8"], show=lambda line: None)
    assert len(in_this_process) == 2
    assert (result.runs, result.reference) == ((out / "replay", out / "multitask"), out / "multitask")
    for name in ("replay", "multitask"):
        state = json.loads((out / name / "run.json").read_text())
        assert (state["method"], state["seed"]) == (name, 5)
        assert [entry["stage"] for entry in state["stages"]] == ["evaluate", "ingest", "select", "train", "evaluate"]
    assert json.loads((out / "replay/steps/01-alpha/train.json").read_text())["samples"] == 8
    assert result.report == out / "report.html"
    assert result.report.stat().st_size > 10_000
    assert set(result.seconds) == {"continuum", "vision", "runs", "report"}


@pytest.mark.slow
def test_the_command_runs_side_by_side_and_goes_on_where_it_was(
    small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("demo", "--out", tmp_path / "out", "--methods", "replay", "--set", "budget=8")
    said = here(capsys, *arguments)
    assert (said.code, said.err) == (0, "")
    for name in ("replay", "multitask"):
        assert f"{name}: step 1 alpha, train: " in said.out
    assert "multitask (reference)" in said.out
    assert said.out.rstrip().endswith(f"report: {tmp_path}/out/report.html")
    again = here(capsys, *arguments)
    assert f"replay: {tmp_path}/out/replay: 5 stages are complete" in again.out
    assert "train: " not in again.out


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--methods", "replya"], "did you mean 'replay'?"),
        (["--methods", " , "], "methods: got none"),
        (["--set", "budgte=3"], "did you mean 'budget'?"),
    ],
)
def test_wrong_options_are_one_line_and_write_nothing(
    small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], expected: str
) -> None:
    said = here(capsys, "demo", "--out", tmp_path / "out", *options)
    assert said.code == 2
    assert expected in said.err
    assert said.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_run_that_is_refused_is_named(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "keep_vision_states", lambda continuum, images: 0)
    for name in ("replay", "multitask"):
        (tmp_path / "out" / name).mkdir(parents=True)
        (tmp_path / "out" / name / "photo.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"(replay|multitask): out: .* exists and is not a run"):
        run_demo(tmp_path / "out", methods=["replay"], show=lambda line: None)


def test_the_command_runs_the_methods_of_the_readme(
    small: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """`make demo`, the benchmark whose table the README shows, and that table are of the same methods."""
    asked: list[list[str]] = []

    def run_jobs(jobs: Sequence[Job], at_once: int, show: Callable[[str], None]) -> None:
        asked.append(sorted(job.label for job in jobs))
        raise InputError("enough")

    monkeypatch.setattr(demo, "run_jobs", run_jobs)
    monkeypatch.setattr(demo, "keep_vision_states", lambda continuum, images: 0)
    assert here(capsys, "demo", "--out", tmp_path / "out").code == 2
    root = Path(__file__).parents[2]
    shown = json.loads((root / "benchmarks/results/demo.json").read_text(encoding="utf-8"))["rows"]
    assert asked == [sorted(row["method"] for row in shown)]
