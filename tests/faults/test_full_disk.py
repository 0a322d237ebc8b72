"""A disk that fills up: one line, exit code 1, no row lost, and the same command goes on once there is room.

Everywhere: a limit on the size of files, which looks like a full disk to every library. Where one may mount: a disk
that really is full, but for some blocks.
"""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path

import pytest
from mounts import memory_disk, resize
from processes import Ended, Zygote
from steps import STEPS, Prepared, mostly_slow, pool_content
from tiny import differing

from liit.data.pool import Pool

ENOUGH = 1 << 16
WORDS = ("File too large", "No space left on device", "Input/output error", "disk I/O error", "make room")


def check_refused(done: Ended, folder: Path, name: str) -> None:
    assert done.refused, (name, done)
    assert any(word in done.err for word in WORDS), done
    for pool in ("pool", "small"):  # readable, and at a version that is whole
        assert len(Pool.open(folder / pool).ids()) == len(Pool.open(folder / pool))


def finish(zygote: Zygote, prepared: Prepared, folder: Path, name: str) -> None:
    done = zygote.run(*STEPS[name].arguments(folder))
    assert (done.code, done.err) == (0, ""), done
    assert STEPS[name].result(folder) == prepared.results[name]


def limits(rng: random.Random, count: int) -> list[int]:
    """Sizes of files, from none at all to most of what is written."""
    return [0, *(int(2 ** rng.uniform(5, 15)) for _ in range(count - 1))]


def fill_by_limit(zygote: Zygote, prepared: Prepared, name: str, sizes: list[int]) -> int:
    refused = 0
    for size in sizes:
        with prepared.folder() as folder:
            before = {pool: pool_content(folder / pool) for pool in ("pool", "small")}
            done = zygote.run(*STEPS[name].arguments(folder), file_size=size)
            if done.code:
                refused += 1
                check_refused(done, folder, name)
                after = {pool: pool_content(folder / pool) for pool in ("pool", "small")}
                assert after in (before, {**before, **_changed(prepared, name)})
            finish(zygote, prepared, folder, name)
    return refused


def _changed(prepared: Prepared, name: str) -> dict[str, object]:
    """The pool as the whole command leaves it: its commit may have come before the disk was full."""
    if name == "ingest":
        return {"small": prepared.results[name]}
    if name == "prune":
        return {"pool": {key: prepared.results[name][key] for key in ("samples", "ledger", "quarantine", "images")}}
    return {}


@pytest.mark.parametrize("name", mostly_slow("ingest", "select", "train"))
def test_files_that_may_not_grow_stop_a_command_until_they_may(zygote: Zygote, prepared: Prepared, name: str) -> None:
    assert fill_by_limit(zygote, prepared, name, limits(random.Random(name), 2)) >= 1


@pytest.mark.slow
@pytest.mark.parametrize("name", STEPS)
def test_files_that_may_not_grow_beyond_any_size_stop_a_command(zygote: Zygote, prepared: Prepared, name: str) -> None:
    assert fill_by_limit(zygote, prepared, name, limits(random.Random(name), 25)) >= 10


def fill_disk(zygote: Zygote, prepared: Prepared, name: str, spare: int) -> bool:
    """Run a command on a disk with so many kilobytes left; whether that was too little."""
    folder = prepared.home.parent / f"disk-{name}-{spare}"
    with memory_disk(folder, ENOUGH) as disk:
        if disk is None:
            folder.rmdir()
            pytest.skip("mounting is not allowed here; the tests with a limit on the size of files do the same")
        shutil.copytree(prepared.home, folder, dirs_exist_ok=True)
        used = os.statvfs(folder)
        resize(folder, (used.f_blocks - used.f_bfree) * used.f_frsize // 1024 + spare)
        scratch = {"TMPDIR": str(folder), "LIIT_CACHE": str(folder / "cache")}
        done = zygote.run(*STEPS[name].arguments(folder), environment=scratch)
        if done.code:
            check_refused(done, folder, name)
        resize(folder, ENOUGH)
        finish(zygote, prepared, folder, name)
    folder.rmdir()
    return done.code != 0


@pytest.mark.parametrize("name", mostly_slow("ingest", "extract", "prune"))
def test_a_full_disk_stops_a_command_until_there_is_room(zygote: Zygote, prepared: Prepared, name: str) -> None:
    assert fill_disk(zygote, prepared, name, random.Random(name).choice([4, 8, 12]))


@pytest.mark.slow
@pytest.mark.parametrize("name", STEPS)
def test_a_disk_with_any_number_of_free_blocks_stops_a_command_or_suffices(
    zygote: Zygote, prepared: Prepared, name: str
) -> None:
    outcomes = [fill_disk(zygote, prepared, name, spare) for spare in (0, *range(4, 120, 4), 160, 200, 300, 500, 2000)]
    assert outcomes[0]
    assert not outcomes[-1]


def test_a_run_on_a_disk_that_fills_up_goes_on_once_there_is_room(
    zygote: Zygote, short: Path, undisturbed: Path, place: Path
) -> None:
    out, refused = place / "out", 0
    for size in (64, 3_000, 9_000):
        done = zygote.run("run", short, "--out", out, "--no-report", file_size=size)
        if done.code:
            refused += 1
            assert done.refused, done
    assert zygote.run("run", short, "--out", out, "--no-report").code == 0
    assert refused == 3
    assert differing(out, undisturbed) == []
