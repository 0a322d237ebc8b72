"""Which checkpoint lmms-eval is given, and what is said of its answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tiny import here, write_continuum

from liit.errors import InputError
from liit.evaluation.lmms import Benchmark
from liit.lifelong import benchmarks
from liit.lifelong.benchmarks import benchmark_step, scores
from liit.lifelong.rundir import RunDirectory
from liit.model.lora import WEIGHTS


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run of two steps, the first trained; a model that says who was asked, an lmms-eval that knows its answer."""
    from liit.config import load_config

    out = tmp_path / "out"
    directory = RunDirectory(out, load_config(write_continuum(tmp_path / "c", tmp_path, steps=2, method="random")))
    with directory.exclusive():
        directory.complete(0, "evaluate", 0.0, {})
        for step in (1, 2):
            (directory.step(step) / "adapter").mkdir(parents=True)
            (directory.step(step) / "adapter" / WEIGHTS).write_bytes(b"")
        directory.complete(1, "train", 0.0, {})  # the second was killed before it was listed

    class Model:
        def __init__(self, adapter: Path | None) -> None:
            self.checkpoint_id = "base" if adapter is None else adapter.parent.name

    class Bench:
        def __init__(self, continuum: object) -> None:
            pass

        def with_adapter(self, adapter: Path | None) -> Model:
            return Model(adapter)

    def answer(vlm: Model, tasks: list[str], **options: Any) -> dict[str, Benchmark]:
        return {task: Benchmark({"alias": task, "acc,none": 0.5, "acc_stderr,none": "N/A"}, 2.0, 7) for task in tasks}

    monkeypatch.setattr(benchmarks, "Workbench", Bench)
    monkeypatch.setattr(benchmarks, "evaluate_benchmarks", answer)
    return out


@pytest.mark.parametrize("step, checkpoint", [(None, "01-alpha"), (1, "01-alpha"), (0, "base")])
def test_the_step_s_checkpoint_is_asked_and_the_answer_written(run: Path, step: int | None, checkpoint: str) -> None:
    found = benchmark_step(run, step, ["mme", "pope"])
    assert found["checkpoint"] == checkpoint
    assert json.loads(Path(found["written"]).read_text()) == {k: v for k, v in found.items() if k != "written"}
    assert Path(found["written"]).parent == run / "lmms"
    assert found["benchmarks"]["mme"]["version"] == 2.0
    assert scores(found["benchmarks"]) == {"mme acc": 0.5, "pope acc": 0.5}


def test_a_step_without_a_checkpoint_is_refused_with_those_that_have_one(run: Path) -> None:
    for step in (2, 3):
        with pytest.raises(InputError, match=rf"step: {step} has no checkpoint in .*; expected one of 0, 1 "):
            benchmark_step(run, step, ["mme"])
    with pytest.raises(InputError, match=r"run: .* is not a run directory"):
        benchmark_step(run / "steps", None, ["mme"])


def test_the_command_without_the_package_ends_with_one_line(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    said = here(capsys, "lmms", run, "--tasks", "mme")
    assert (said.code, said.out) == (2, "")
    assert said.err == "liit: error: lmms: the package lmms-eval is not installed; pip install 'liit[lmms]'\n"
