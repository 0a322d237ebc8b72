"""A folder in memory where there is one, a process that starts `liit`, and what an undisturbed run leaves."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "lifelong"))  # tiny.py, shared with the tests there
sys.path.insert(0, str(Path(__file__).parent))

from processes import Zygote, zygote_in
from steps import STEPS, Prepared, make_home
from tiny import cache, model, write_continuum

__all__ = ["cache", "model"]


@pytest.fixture(scope="session")
def room(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder for the session: in memory if possible, for a thousand commits wait for the disk a thousand times."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield tmp_path_factory.mktemp("faults")
        return
    folder = Path(tempfile.mkdtemp(prefix="liit-faults-", dir=memory))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def place(room: Path) -> Iterator[Path]:
    """A folder for one test."""
    folder = Path(tempfile.mkdtemp(dir=room))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def zygote(room: Path, cache: Path) -> Iterator[Zygote]:
    """Starts `liit` in processes of their own."""
    (room / "zygote").mkdir()
    (room / "cache").mkdir()
    with zygote_in(room / "zygote", LIIT_CACHE=str(room / "cache"), TMPDIR=str(room)) as process:
        yield process


@pytest.fixture(scope="session")
def short(room: Path, model: Path) -> Path:
    """A continuum of two steps with every stage; tests must not change what lies around it."""
    return write_continuum(room / "short", model, steps=2, method="lite-adapt-inf")


@pytest.fixture(scope="session")
def undisturbed(room: Path, zygote: Zygote, short: Path) -> Path:
    """The run that nothing disturbed."""
    done = zygote.run("run", short, "--out", room / "undisturbed", "--no-report")
    assert (done.code, done.err) == (0, ""), done
    return room / "undisturbed"


@pytest.fixture(scope="session")
def prepared(room: Path, zygote: Zygote, short: Path) -> Prepared:
    """Every command, run once without disturbance."""
    prepared = Prepared(make_home(zygote, room / "home"), {}, {})
    for name, step in STEPS.items():
        with prepared.folder() as folder:
            begin = time.perf_counter()
            done = zygote.run(*step.arguments(folder))
            assert (done.code, done.err) == (0, ""), done
            prepared.seconds[name] = time.perf_counter() - begin
            prepared.results[name] = step.result(folder)
    return prepared
