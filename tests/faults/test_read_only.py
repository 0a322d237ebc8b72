"""A directory that cannot be written: one line, nothing changed, and the same command works once it can."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from mounts import memory_disk, set_read_only
from processes import Zygote
from steps import STEPS, Prepared, mostly_slow
from tiny import differing, listing


@contextmanager
def permissions(folder: Path, write: bool) -> Iterator[None]:
    """Take the right to write from every folder and file, or leave it."""
    everything = [folder, *folder.rglob("*")]
    modes = {path: path.stat().st_mode for path in everything}
    for path in reversed(everything):
        path.chmod(modes[path] & 0o555 if not write else modes[path])
    try:
        yield
    finally:
        for path in everything:
            path.chmod(modes[path])


@pytest.mark.parametrize("name", mostly_slow("ingest", "extract", "train"))
def test_without_the_right_to_write_a_command_stops(zygote: Zygote, prepared: Prepared, name: str) -> None:
    with prepared.folder() as folder:
        before = listing(folder)
        with permissions(folder, write=False):
            done = zygote.run(*STEPS[name].arguments(folder), before=["obey_permissions"])
        assert done.refused, done
        assert "ermission denied" in done.err or "cannot be written" in done.err, done
        assert listing(folder) == before
        assert zygote.run(*STEPS[name].arguments(folder)).code == 0
        assert STEPS[name].result(folder) == prepared.results[name]


def test_a_run_in_a_directory_that_cannot_be_written_stops(
    zygote: Zygote, short: Path, undisturbed: Path, place: Path
) -> None:
    out = place / "runs/out"
    process = zygote.start("run", short, "--out", out, "--no-report", before=["announce_stages"])
    assert any(line == "begin 1 select\n" for line in process.lines)
    process.kill()
    process.wait()
    before = listing(out)
    with permissions(out, write=False):
        done = zygote.run("run", short, "--out", out, "--no-report", before=["obey_permissions"])
        elsewhere = zygote.run("run", short, "--out", out / "below", "--no-report", before=["obey_permissions"])
    assert done.refused, done
    assert elsewhere.refused, elsewhere
    assert str(out) in done.err
    assert listing(out) == before
    assert zygote.run("run", short, "--out", out, "--no-report").code == 0
    assert differing(out, undisturbed) == []


@pytest.mark.parametrize("name", mostly_slow("prune"))
def test_on_a_disk_that_is_mounted_read_only_a_command_stops(zygote: Zygote, prepared: Prepared, name: str) -> None:
    folder = prepared.home.parent / f"read-only-{name}"
    with memory_disk(folder, 1 << 16) as disk:
        if disk is None:
            folder.rmdir()
            pytest.skip("mounting is not allowed here; the tests without the right to write do the same")
        shutil.copytree(prepared.home, folder, dirs_exist_ok=True)
        set_read_only(folder, read_only=True)
        done = zygote.run(*STEPS[name].arguments(folder))
        set_read_only(folder, read_only=False)
        assert done.refused, done
        assert "ead-only file system" in done.err or "cannot be written" in done.err, done
        assert zygote.run(*STEPS[name].arguments(folder)).code == 0
        assert STEPS[name].result(folder) == prepared.results[name]
    folder.rmdir()


def test_a_cache_that_cannot_be_written_is_named(zygote: Zygote, prepared: Prepared, place: Path) -> None:
    with prepared.folder() as folder, permissions(place, write=False):
        cold = {"LIIT_CACHE": str(place / "cache")}
        done = zygote.run(*STEPS["extract"].arguments(folder), before=["obey_permissions"], environment=cold)
        assert done.refused, done
        assert str(place) in done.err
