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


def kill_until_done(tmp_path: Path, llava_dataset: Callable[..., Path], kills: int, seed: int) -> int:
    ingest(Pool.create(tmp_path / "base"), llava_dataset(60, "old.json"), "llava-json", "old")
    rows = llava_dataset(300, "new.json", prefix="n")
    (tmp_path / "images" / "7.png").write_bytes(b"broken")  # so that the quarantine is written too
    shutil.copytree(tmp_path / "base", tmp_path / "undisturbed")
    began = time.monotonic()
    process = start(tmp_path / "undisturbed", rows)
    assert process.wait() == 0
    lasts = time.monotonic() - began
    states = [contents(Pool.open(tmp_path / "undisturbed").at(version)) for version in (2, 3, 4)]
    rng = np.random.default_rng(seed)
    hits = 0
    for number in range(kills):
        pool = tmp_path / f"pool-{number}"
        shutil.copytree(tmp_path / "base", pool)
        while True:
            process = start(pool, rows)
            try:
                process.wait(timeout=rng.uniform(0, lasts))
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.wait()
            assert contents(Pool.open(pool)) == states[Pool.open(pool).version - 2]
            if process.returncode == 0:
                break
            assert process.returncode == -signal.SIGKILL
            hits += 1
        assert contents(Pool.open(pool)) == states[-1]
        shutil.rmtree(pool)
    return hits


def test_killed_during_ingest_or_removal_the_same_command_gives_the_same_pool(tmp_path, llava_dataset) -> None:
    kill_until_done(tmp_path, llava_dataset, kills=1, seed=0)


@pytest.mark.slow
def test_many_kills_at_random_instants_never_leave_a_half_commit(tmp_path, llava_dataset) -> None:
    assert kill_until_done(tmp_path, llava_dataset, kills=20, seed=1) >= 15
