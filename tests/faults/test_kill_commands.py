"""Each stage as a command of its own, killed at random instants and between any two changes on disk."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest
from processes import Zygote
from steps import STEPS, Prepared

KILLED = -9


def kill_after(zygote: Zygote, name: str, folder: Path, delay: float) -> bool:
    """Start a command and kill it after some seconds; whether it was still at work."""
    process = zygote.start(*STEPS[name].arguments(folder))
    time.sleep(delay)
    process.kill()
    ended = process.wait()
    assert ended.code in (KILLED, 0), ended
    return ended.code == KILLED


def finish(zygote: Zygote, prepared: Prepared, name: str, folder: Path) -> None:
    """Give the same command again: it must leave what it leaves undisturbed."""
    done = zygote.run(*STEPS[name].arguments(folder))
    assert (done.code, done.err) == (0, ""), done
    assert STEPS[name].result(folder) == prepared.results[name]


def kill_often(zygote: Zygote, prepared: Prepared, name: str, kills: int, rng: random.Random) -> None:
    hits, late, lasts = 0, 0, prepared.seconds[name]
    with prepared.folder() as folder:
        while hits < kills:
            if kill_after(zygote, name, folder, rng.uniform(0, lasts)):
                hits += 1
            else:  # it ended before: it is done, or faster than under the load when it was measured
                late, lasts = late + 1, lasts / 2
            assert late < 20
        finish(zygote, prepared, name, folder)


@pytest.mark.parametrize("name", STEPS)
def test_a_command_killed_at_a_random_instant_ends_as_undisturbed(
    zygote: Zygote, prepared: Prepared, name: str
) -> None:
    kill_often(zygote, prepared, name, 1, random.Random(name))


@pytest.mark.slow
@pytest.mark.parametrize("name", STEPS)
def test_a_command_killed_many_times_ends_as_undisturbed(zygote: Zygote, prepared: Prepared, name: str) -> None:
    rng = random.Random(name)
    for kills in (1, 2, 3, 4, 5, 5):
        kill_often(zygote, prepared, name, kills, rng)


def instants(zygote: Zygote, prepared: Prepared, name: str) -> int:
    """How often a command opens, renames, removes or makes a file of its folder."""
    with prepared.folder() as folder:
        done = zygote.run(*STEPS[name].arguments(folder), before=["die_before", str(folder), 0])
        assert done.code == 0, done
        return int(done.out.rpartition("instants ")[2])


def die_at(zygote: Zygote, prepared: Prepared, name: str, which: int) -> None:
    with prepared.folder() as folder:
        died = zygote.run(*STEPS[name].arguments(folder), before=["die_before", str(folder), which])
        assert died.code == KILLED, died
        finish(zygote, prepared, name, folder)


@pytest.mark.parametrize("name", ["ingest", "prune"])  # what changes the pool, in the most instants
def test_a_command_killed_between_changes_on_disk_ends_as_undisturbed(
    zygote: Zygote, prepared: Prepared, name: str
) -> None:
    count = instants(zygote, prepared, name)
    assert count > 20
    for which in random.Random(name).sample(range(1, count + 1), 3):
        die_at(zygote, prepared, name, which)


@pytest.mark.slow
@pytest.mark.parametrize("name", STEPS)
def test_a_command_killed_before_every_change_on_disk_ends_as_undisturbed(
    zygote: Zygote, prepared: Prepared, name: str
) -> None:
    for which in range(1, instants(zygote, prepared, name) + 1):
        die_at(zygote, prepared, name, which)
