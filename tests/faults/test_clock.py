"""A wall clock that is wrong and jumps: nothing depends on it."""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from processes import Zygote
from steps import STEPS, Prepared, pool_content
from tiny import differing

YEAR = 365 * 24 * 3600


@pytest.fixture
def clock(zygote: Zygote) -> Iterator[Zygote]:
    if not zygote.clock_can_jump:
        pytest.skip("needs Linux and a C compiler, for a library that stands before the clock of the system")
    yield zygote
    zygote.set_clock(0)


@contextmanager
def jumping(zygote: Zygote, seed: int) -> Iterator[None]:
    """Let the clock jump by years, forth and back, fifty times a second."""
    rng, stop = random.Random(seed), threading.Event()

    def jump() -> None:
        while not stop.wait(0.02):
            zygote.set_clock(rng.randint(-15 * YEAR, 30 * YEAR))

    thread = threading.Thread(target=jump)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def test_a_run_whose_clock_jumps_ends_as_any_other(clock: Zygote, short: Path, undisturbed: Path, place: Path) -> None:
    out = place / "out"
    clock.set_clock(20 * YEAR)
    process = clock.start("run", short, "--out", out, "--no-report", before=["announce_stages"])
    assert any(line == "begin 1 prune\n" for line in process.lines)
    process.kill()
    process.wait()
    years = [int(json.loads(file.read_text())["time"][:4]) for file in (out / "pool/commits").glob("*.json")]
    assert min(years) > time.gmtime().tm_year + 10  # it does reach the program
    clock.set_clock(-10 * YEAR)
    with jumping(clock, 0):
        done = clock.run("run", short, "--out", out, "--no-report")
    assert (done.code, done.err) == (0, "")
    assert differing(out, undisturbed) == []
    rows = [json.loads(line) for line in (out / "timings.jsonl").read_text().splitlines()]
    assert all(0 <= row["seconds"] < 3600 for row in rows)  # measured by a clock that only runs forwards


@pytest.mark.parametrize("name", ["ingest", "prune"])
def test_a_pool_written_in_the_future_takes_changes_from_the_past(clock: Zygote, prepared: Prepared, name: str) -> None:
    with prepared.folder() as folder, jumping(clock, 1):
        done = clock.run(*STEPS[name].arguments(folder))
        assert (done.code, done.err) == (0, "")
        assert STEPS[name].result(folder) == prepared.results[name]


def test_a_gc_keeps_what_it_must_whatever_the_clock_says(clock: Zygote, prepared: Prepared) -> None:
    with prepared.folder() as folder:
        clock.set_clock(25 * YEAR)
        assert clock.run(*STEPS["prune"].arguments(folder)).code == 0
        left = pool_content(folder / "pool")
        clock.set_clock(-5 * YEAR)
        done = clock.run("pool", "gc", folder / "pool")
        assert (done.code, done.err) == (0, ""), done
        clock.set_clock(0)
        assert pool_content(folder / "pool") == left
