"""Runs side by side in processes of their own; here the processes are a shell script."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from liit.errors import InputError
from liit.lifelong.parallel import Job, JobError, child_environment, places, run_jobs, side_by_side, threads_each

SCRIPT = """#!/bin/sh
# called as: program -m liit WHAT FILE
case "$3" in
  say) echo "one"; echo "threads $OMP_NUM_THREADS"; echo done > "$4" ;;
  refuse) echo "liit: error: budget: got 0"; exit 2 ;;
  fail) echo "Traceback"; echo "ValueError: a bug"; exit 1 ;;
  card) echo "card $CUDA_VISIBLE_DEVICES"; sleep 0.3 ;;
  wait) exec sleep 60 ;;
esac
"""


@pytest.fixture(autouse=True)
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "program"
    path.write_text(SCRIPT)
    path.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(path))


def test_every_line_is_shown_with_the_label_of_its_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("liit.lifelong.parallel.cores", lambda: 8)
    lines: list[str] = []
    jobs = [Job(name, ("say", str(tmp_path / name))) for name in ("a", "b", "c")]
    run_jobs(jobs, 2, lines.append)
    for name in ("a", "b", "c"):
        assert [line for line in lines if line.startswith(f"{name}: ")] == [f"{name}: one", f"{name}: threads 4"]
        assert (tmp_path / name).read_text() == "done\n"
    run_jobs(jobs[:1], 2, lines.append, threads=3)
    assert lines[-1] == "a: threads 3"


@pytest.mark.parametrize(
    ("what", "error", "message"),
    [
        ("refuse", InputError, "second: budget: got 0"),
        ("fail", JobError, "second ended with code 1: ValueError: a bug"),
    ],
)
def test_the_first_that_fails_stops_the_others(tmp_path: Path, what: str, error: type[Exception], message: str) -> None:
    start = time.monotonic()
    jobs = [Job("first", ("wait", "")), Job("second", (what, "")), Job("third", ("say", str(tmp_path / "third")))]
    with pytest.raises(error) as met:
        run_jobs(jobs, 2, lambda line: None)
    assert str(met.value) == message
    assert time.monotonic() - start < 20
    assert not (tmp_path / "third").exists()


def test_threads_are_what_the_user_has_set_or_a_share_of_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("liit.lifelong.parallel.cores", lambda: 8)
    for given, expected in (("7", 7), ("3,1", 3), ("", 4), ("0", 4), ("many", 4)):
        monkeypatch.setenv("OMP_NUM_THREADS", given)
        assert threads_each(2, 5) == expected
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert [threads_each(*numbers) for numbers in ((8, 1), (3, 8), (16, 16))] == [8, 2, 1]


def test_what_the_user_has_set_in_the_environment_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    monkeypatch.delenv("TOKENIZERS_PARALLELISM", raising=False)
    found = child_environment(2)
    assert (found["OMP_NUM_THREADS"], found["OMP_WAIT_POLICY"]) == ("2", "active")
    assert found["TOKENIZERS_PARALLELISM"] == "false"
    assert found["PATH"] == os.environ["PATH"]


@pytest.mark.parametrize(("visible", "names"), [(None, ["0", "1"]), ("5,GPU-7", ["5", "GPU-7"])])
def test_every_process_has_a_gpu_of_its_own_where_there_are_as_many(
    monkeypatch: pytest.MonkeyPatch, visible: str | None, names: list[str]
) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert side_by_side() == 2
    lines: list[str] = []
    run_jobs([Job("a", ("card",)), Job("b", ("card",))], 2, lines.append)
    assert sorted(line.split()[-1] for line in lines) == names
    assert [place["CUDA_VISIBLE_DEVICES"] for place in places(3)] == [*names, names[0]]


def test_without_a_gpu_nothing_is_said_about_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    monkeypatch.setattr("liit.lifelong.parallel.cores", lambda: 6)
    assert side_by_side() == 6
    assert places(2) == [{}, {}]
