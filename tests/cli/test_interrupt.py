"""Ctrl-C is one line and exit code 1, wherever in a library it comes."""

from __future__ import annotations

import subprocess
import sys

import pytest

BEGIN = """
import os, signal, sys, time, weakref
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
from liit.cli import app, main
from liit.errors import InputError

def press():
    os.kill(os.getpid(), signal.SIGINT)

@app.command()
def work():
"""

PLACES = {
    "in the command": "    press(); time.sleep(60)",
    "in a library that makes an error of it": """
    try:
        press(); time.sleep(60)
    except BaseException as error:
        raise ModuleNotFoundError("could not import") from error
""",
    "in code that takes it for wrong input": """
    try:
        press(); time.sleep(60)
    except BaseException as error:
        raise InputError("no such model") from error
""",
    "in a callback, where it gets lost": """
    class Thing: pass
    thing = Thing()
    watcher = weakref.ref(thing, lambda _: (press(), time.sleep(0.01)))
    del thing
    for _ in range(600): time.sleep(0.1)
""",
}


def run(body: str) -> subprocess.CompletedProcess[str]:
    code = f"{BEGIN}{body}\nsys.argv[1:] = ['work']\nmain()"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("place", PLACES)
def test_it_is_one_line(place: str) -> None:
    done = run(PLACES[place])
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "liit: stopped; the same command goes on from here\n"


def test_a_command_that_ended_nevertheless_is_done() -> None:
    done = run("    try:\n        press()\n    except KeyboardInterrupt:\n        print('done')")
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")


def test_where_it_is_ignored_it_stays_ignored() -> None:
    done = run("    signal.signal(signal.SIGINT, signal.SIG_IGN); press(); print('done')")
    assert (done.returncode, done.stdout) == (0, "done\n")
    code = (
        BEGIN.replace("signal.default_int_handler", "signal.SIG_IGN")
        + "    press(); print('done')\nsys.argv[1:] = ['work']\nmain()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "done\n")
