"""One writer at a time, among processes; and who it is, for the one who waits."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from liit.data.lock import write_lock
from liit.data.pool import Pool
from liit.data.sample import Message, Sample
from liit.errors import InputError

HOLD = """
import os, sys, time
from pathlib import Path
from liit.data.lock import write_lock
with write_lock(Path(sys.argv[1])):
    child = os.fork() if sys.argv[2] == "fork" else 1
    if child:
        print(child, flush=True)
    time.sleep(60)
"""


def hold(folder: Path, how: str = "alone") -> tuple[subprocess.Popen[str], int]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder), how], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout is not None
    return process, int(process.stdout.readline())


def end(process: subprocess.Popen[str]) -> None:
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def test_the_one_who_waits_is_told_who_writes(pool) -> None:
    process, _ = hold(pool.path)
    try:
        with pytest.raises(InputError, match=rf"another process: process {process.pid} on \S+ since 2\d\d\d-"):
            write_lock(pool.path, 0.1).__enter__()
    finally:
        end(process)


def test_the_lock_of_a_process_that_died_is_free_at_once(pool) -> None:
    process, _ = hold(pool.path)
    assert str(process.pid) in (pool.path / "lock").read_text()
    end(process)
    with write_lock(pool.path, 0):  # which does not wait
        assert json.loads((pool.path / "lock").read_text())["pid"] == os.getpid()
    assert (pool.path / "lock").read_text() == ""


def test_a_lock_that_a_dead_process_left_to_its_child_is_explained(pool) -> None:
    process, _ = hold(pool.path, "fork")
    try:
        process.kill()
        process.wait()
        with pytest.raises(InputError, match="that process has ended, and one that it started"):
            write_lock(pool.path, 0.1).__enter__()
    finally:
        os.killpg(process.pid, signal.SIGKILL)


def test_a_second_writer_waits_for_the_first(pool) -> None:
    process, _ = hold(pool.path)
    waiting = subprocess.Popen(
        [sys.executable, "-c", "import sys; from pathlib import Path; from liit.data.lock import write_lock\n"
         "with write_lock(Path(sys.argv[1]), 30): print('mine')", str(pool.path)],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with pytest.raises(subprocess.TimeoutExpired):
        waiting.wait(0.5)
    end(process)
    assert waiting.communicate(timeout=120)[0] == "mine\n"


WRITE = """
import sys
from liit.data.pool import Pool
from liit.data.sample import Message, Sample

for n in range(4):
    talk = (Message("user", f"{sys.argv[2]} {n}?"), Message("assistant", "a"))
    Pool.open(sys.argv[1]).add([Sample(f"{sys.argv[2]}-{n}-{k}", talk) for k in range(5)])
"""


def test_writers_side_by_side_lose_nothing_and_readers_see_whole_commits(pool) -> None:
    writers = [subprocess.Popen([sys.executable, "-c", WRITE, str(pool.path), name]) for name in "ab"]
    seen = []
    while any(writer.poll() is None for writer in writers):
        reader = Pool.open(pool.path)
        ids = reader.ids()
        assert len(ids) == len(reader) == 5 * (reader.version - 1)
        seen.append(reader.version)
    assert [writer.returncode for writer in writers] == [0, 0]
    final = Pool.open(pool.path)
    assert final.version == 9
    assert sorted(final.ids()) == sorted(f"{name}-{n}-{k}" for name in "ab" for n in range(4) for k in range(5))
    assert final.columns(["row"])["row"].to_pylist() == list(range(40))
    assert seen == sorted(seen)


def test_a_reader_of_a_gc_sees_the_samples_whole(pool) -> None:
    """Opening goes on with the new version when the one it was about to open is freed meanwhile."""
    pool.add([Sample("1", (Message("user", "?"), Message("assistant", "a")))])
    code = "import sys; from liit.data.pool import Pool\nfor _ in range(4): Pool.open(sys.argv[1]).gc()"
    process = subprocess.Popen([sys.executable, "-c", code, str(pool.path)])
    count = 0
    while process.poll() is None:
        assert len(Pool.open(pool.path)) == 1
        count += 1
    assert (process.returncode, count > 2) == (0, True)
    assert Pool.open(pool.path).ids() == ["1"]


def test_a_directory_that_cannot_be_written_to_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be written to"), write_lock(tmp_path / "nowhere"):
        pass
