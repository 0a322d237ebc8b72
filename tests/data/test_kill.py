"""Real processes, really killed, at random instants of an ingest and a removal."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from liit.data.ingest import ingest
from liit.data.pool import Pool

WORK = """
import sys
import pyarrow as pa
from liit.data.ingest import ingest
from liit.data.pool import Pool

pool = Pool.open(sys.argv[1])
print("ready", flush=True)
ingest(pool, sys.argv[2], "llava-json", "new")
leave = [str(number) for number in range(0, 60, 2)]
why = {"id": leave, "cluster": [0] * 30, "neighbour": ["1"] * 30, "similarity": [0.5] * 30}
pool.remove(leave, step="prune", neighbours=pa.table(why))
"""


def contents(pool: Pool) -> tuple[object, ...]:
    quarantine = pool.quarantine().select(["source", "line", "id", "reason", "raw"]).to_pylist()
    return pool.columns(["row", "id", "source", "content_hash"]).to_pylist(), pool.ledger().to_pylist(), quarantine


def start(pool: Path, rows: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", WORK, str(pool), str(rows)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def run_and_kill(pool: Path, rows: Path, after: float) -> bool:
    """Run the command, kill it after some seconds of work, and say whether it had ended by itself."""
    process = start(pool, rows)
    time.sleep(after)
    process.send_signal(signal.SIGKILL)
    assert process.wait() in (0, -signal.SIGKILL)
    return process.returncode == 0


def kill_until(hits: int, tmp_path: Path, llava_dataset: Callable[..., Path], seed: int) -> None:
    ingest(Pool.create(tmp_path / "base"), llava_dataset(60, "old.json"), "llava-json", "old")
    rows = llava_dataset(300, "new.json", prefix="n")
    (tmp_path / "images" / "7.png").write_bytes(b"broken")  # so that the quarantine is written too
    shutil.copytree(tmp_path / "base", tmp_path / "undisturbed")
    process = start(tmp_path / "undisturbed", rows)
    began = time.monotonic()
    assert process.wait() == 0
    lasts = time.monotonic() - began
    undisturbed = Pool.open(tmp_path / "undisturbed")
    states = [contents(undisturbed.at(version)) for version in (2, 3, 4)]
    rng = np.random.default_rng(seed)
    while hits > 0:
        pool = tmp_path / "pool"
        shutil.copytree(tmp_path / "base", pool)
        while not run_and_kill(pool, rows, after=rng.uniform(0, lasts)):
            hits -= 1
            lasts *= 1.1  # on a machine that has become slower it would never end by itself
            assert contents(Pool.open(pool)) == states[Pool.open(pool).version - 2]
        assert contents(Pool.open(pool)) == states[-1]
        shutil.rmtree(pool)


def test_killed_during_ingest_or_removal_the_same_command_gives_the_same_pool(tmp_path, llava_dataset) -> None:
    kill_until(1, tmp_path, llava_dataset, seed=0)


@pytest.mark.slow
def test_many_kills_at_random_instants_never_leave_a_half_commit(tmp_path, llava_dataset) -> None:
    kill_until(24, tmp_path, llava_dataset, seed=1)
