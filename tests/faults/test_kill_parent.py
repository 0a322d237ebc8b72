"""Several runs side by side, as `liit demo` makes them: killing the command that started them ends them too."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from tiny import environment

START = """
import sys
from liit.lifelong.parallel import Job, run_jobs
run_jobs([Job("one", tuple(sys.argv[1:]))], 1, lambda line: print(line, flush=True))
"""


def held(lock: Path) -> bool:
    """Whether a process has the run directory."""
    with lock.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def test_a_run_ends_with_the_command_that_started_it(short: Path, place: Path) -> None:
    """In the middle of a stage that would take minutes, in which it prints nothing."""
    arguments = ["run", str(short), "--out", str(place / "out"), "--no-report", "--set", "training.epochs=20000"]
    parent = subprocess.Popen(
        [sys.executable, "-c", START, *arguments],
        stdout=subprocess.PIPE,
        text=True,
        env=environment(LIIT_CACHE=str(place / "cache")),
        start_new_session=True,
    )
    assert parent.stdout is not None
    assert any(line.startswith("one: step 1 alpha, select") for line in parent.stdout)
    time.sleep(1)
    assert held(place / "out/lock")
    parent.kill()
    parent.wait()
    until = time.monotonic() + 90
    try:
        while held(place / "out/lock"):
            assert time.monotonic() < until, "it goes on by itself"
            time.sleep(0.05)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(parent.pid, signal.SIGKILL)
