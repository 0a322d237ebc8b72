"""A run that was stopped anywhere goes on and ends as an undisturbed one."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny import PowerCut, command, differing, environment, write_continuum
from tiny import liit as liit_command

import liit
from liit.lifelong import stages

METHOD = "method=lite-adapt-inf"  # it has every stage
STAGES = ("ingest_step", "extract_step", "select_step", "train_step", "evaluate_step", "prune_step")


@pytest.fixture(scope="module")
def short(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_continuum(tmp_path_factory.mktemp("short"), model, steps=2)


@pytest.fixture(scope="module")
def undisturbed(short: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    liit.run(short, out, overrides=[METHOD])
    return out


def run_until_done(short: Path, out: Path, limit: int) -> int:
    """Give the command again until it ends; how often it was cut off."""
    for cuts in range(limit):
        try:
            liit.run(short, out, overrides=[METHOD])
        except PowerCut:
            continue
        return cuts
    raise AssertionError(f"{limit} attempts did not end")


def cut_around(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, identify: Callable[..., Any]) -> Counter[Any]:
    """Cut every different call of a function off once before and once after its work."""
    inner, seen = getattr(owner, name), Counter[Any]()

    def call(*arguments: Any, **options: Any) -> Any:
        key = identify(*arguments, **options)
        seen[key] += 1
        if seen[key] == 1:
            raise PowerCut
        result = inner(*arguments, **options)
        if seen[key] == 2:
            raise PowerCut
        return result

    monkeypatch.setattr(owner, name, call)
    return seen


def test_cut_off_before_and_after_every_stage_it_ends_as_undisturbed(
    short: Path, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"

    def stage_at_hand(*_: Any, **__: Any) -> int:
        return len(json.loads((out / "run.json").read_text())["stages"])

    seen = {name: cut_around(monkeypatch, stages, name, stage_at_hand) for name in STAGES}
    cuts = run_until_done(short, out, limit=60)
    assert {name: len(calls) for name, calls in seen.items()} == {**dict.fromkeys(STAGES, 2), "evaluate_step": 3}
    assert cuts == 2 * (2 * len(STAGES) + 1)
    assert differing(out, undisturbed) == []


@pytest.mark.slow
def test_cut_off_around_every_rename_it_ends_as_undisturbed(
    short: Path, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    for name in ("replace", "rename"):
        cut_around(monkeypatch, Path, name, lambda source, target: (str(source), stage_number(out, target)))
    cuts = run_until_done(short, out, limit=400)
    assert cuts > 100
    assert differing(out, undisturbed) == []
    assert not list(out.glob("spent.json*"))


def stage_number(out: Path, target: Path) -> int:
    if Path(target).name not in ("run.json", "timings.jsonl") or not (out / "run.json").is_file():
        return 0
    return len(json.loads((out / "run.json").read_text())["stages"])


@pytest.mark.slow
def test_killed_at_random_instants_it_ends_as_undisturbed(short: Path, undisturbed: Path, tmp_path: Path) -> None:
    rng = random.Random(0)
    hit: list[int] = []
    for number in range(6):
        out = tmp_path / f"out-{number}"
        done = 0
        while done < 13:
            code = killed(short, out, rng.randrange(3), rng.uniform(0, 0.3))
            assert code == -signal.SIGKILL
            done = len(json.loads((out / "run.json").read_text())["stages"])
            hit.append(done)
            assert len(hit) < 60
        assert liit_command("run", short, "--out", out, "--set", METHOD).returncode == 0
        assert differing(out, undisturbed) == []
        if len(hit) >= 12:
            break
    assert len(set(hit)) >= 6, hit  # not always the same place


def killed(short: Path, out: Path, stages: int, delay: float) -> int:
    """Start the command and kill it so many stages and seconds after it took the directory up; its exit code."""
    process = subprocess.Popen(
        command("run", short, "--out", out, "--set", METHOD),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment(),
    )  # fmt: skip
    assert process.stdout is not None
    if (out / "run.json").is_file():
        process.stdout.readline()  # "... stages are complete"
    else:
        wait_for(out / "run.json", process)
    for _ in range(stages):
        process.stdout.readline()
    time.sleep(delay)
    process.kill()
    process.stdout.read()
    return process.wait()


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    until = time.monotonic() + 120
    while not path.is_file():
        assert process.poll() is None, process.stdout and process.stdout.read()
        assert time.monotonic() < until
        time.sleep(0.01)


WITH_CTRL_C = """
import runpy, signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs, and their children, ignore it
runpy.run_module("liit", run_name="__main__")
"""


def test_ctrl_c_is_one_line_and_the_run_goes_on_from_there(short: Path, undisturbed: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = subprocess.Popen(
        [sys.executable, "-c", WITH_CTRL_C, "run", short, "--out", out, "--set", METHOD],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(),
    )  # fmt: skip
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line.startswith("step 0 base, evaluate"), line + process.communicate()[1]
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    assert errors == "liit: stopped; the same command goes on from here\n"
    assert 1 <= len(json.loads((out / "run.json").read_text())["stages"]) < 13
    liit.run(short, out, overrides=[METHOD])
    assert differing(out, undisturbed) == []


def test_a_second_process_in_the_same_directory_gets_one_line(short: Path, tmp_path: Path) -> None:
    from liit.config import load_config
    from liit.lifelong.rundir import RunDirectory

    directory = RunDirectory(tmp_path / "out", load_config(short))
    with directory.exclusive():
        with pytest.raises(liit.InputError, match=r"another process runs in .*out; wait, or name another"):
            liit.run(short, tmp_path / "out")
        assert {path.name for path in (tmp_path / "out").iterdir()} == {"run.json", "continuum.yaml", "lock"}
    liit.run(short, tmp_path / "out", overrides=["evaluation.batch_size=3"])  # free again, and speed may be changed


def test_what_another_process_completed_meanwhile_is_not_done_again(short: Path, tmp_path: Path) -> None:
    from liit.config import load_config
    from liit.lifelong.rundir import RunDirectory

    early = RunDirectory(tmp_path / "out", load_config(short))
    late = RunDirectory(tmp_path / "out", load_config(short))
    with early.exclusive():
        early.complete(0, "evaluate", 1.0, {"mean_score": 0.5})
    assert late.facts(0, "evaluate") is None
    with late.exclusive():
        assert (late.facts(0, "evaluate") or {})["mean_score"] == 0.5


def full_disk(path: Path, value: Any) -> None:
    raise OSError("full")


def test_a_stage_cut_off_before_it_is_listed_has_one_timing(
    short: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from liit.config import load_config
    from liit.lifelong import rundir

    directory = rundir.RunDirectory(tmp_path / "out", load_config(short))
    with directory.exclusive():
        with monkeypatch.context() as patch:
            patch.setattr(rundir, "write_json", full_disk)
            with pytest.raises(OSError, match="full"):
                directory.complete(0, "evaluate", 1.0, {})
        assert directory.facts(0, "evaluate") is None
        directory.complete(0, "evaluate", 2.0, {})
    assert [json.loads(line)["seconds"] for line in (tmp_path / "out/timings.jsonl").read_text().splitlines()] == [2.0]


def test_a_torn_start_is_taken_up(short: Path, tmp_path: Path) -> None:
    """What a kill leaves before run.json has its name, and before continuum.yaml is there."""
    for number, names in enumerate([("lock",), ("lock", "run.json.part")]):
        out = tmp_path / str(number)
        out.mkdir()
        for name in names:
            (out / name).write_text("{")
        liit.run(short, out, overrides=["method=multitask"])
    (out / "continuum.yaml").unlink()
    liit.run(short, out, overrides=["method=multitask"])
    assert (out / "continuum.yaml").is_file()
