"""Processes that die or meet while they extract into one store."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
from tiny_vlm import mixed_samples

from liit.config import FeatureSettings
from liit.features import FeatureStore, extract
from liit.model.vlm import VLM

NAMES = ["el2n", "image_grounding", "embedding"]
SHARD = 2

CHILD = """
    import sys
    from pathlib import Path

    sys.path[:0] = [sys.argv[1]]
    import torch
    from tiny_vlm import mixed_samples
    from liit.demo.vlm.tower import register
    from liit.errors import InputError
    from liit.features import extract, extraction
    from liit.config import FeatureSettings
    from liit.model.vlm import load_vlm

    register()
    torch.set_num_threads(1)
    extraction.SHARD_ROWS = 2
    vlm = load_vlm(sys.argv[2])
    print("ready", flush=True)
    sys.stdin.readline()
    for _ in range(3):
        try:
            store = extract(vlm, mixed_samples(), sys.argv[4].split(","), sys.argv[3], FeatureSettings())
            print("scored", store.report.scored, flush=True)
        except InputError as error:
            print("refused" if "another process is extracting" in str(error) else error, flush=True)
"""


def start(tiny_path: Path, out: Path, names: str = ",".join(NAMES)) -> subprocess.Popen[str]:
    tests = str(Path(__file__).parent.parent)
    child = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(CHILD), tests, str(tiny_path), str(out), names],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert child.stdout is not None
    assert child.stdout.readline().strip() == "ready"
    return child


def go(child: subprocess.Popen[str]) -> None:
    assert child.stdin is not None
    child.stdin.write("\n")
    child.stdin.flush()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_extraction_killed_at_any_moment_goes_on_and_repeats_no_more_than_a_shard(
    tiny: VLM, tiny_path: Path, tmp_path: Path, seed: int
) -> None:
    extract(tiny, mixed_samples(), ["entropy"], tmp_path / "f", FeatureSettings())  # the killed ones add columns to it
    delay, before = random.Random(seed), 0
    for _ in range(3):
        child = start(tiny_path, tmp_path / "f")
        go(child)
        time.sleep(delay.uniform(0.02, 0.5))
        child.send_signal(signal.SIGKILL)
        child.communicate()
        stored = FeatureStore(tmp_path / "f")
        finished = len(stored.stored_ids()) if "el2n" in stored else 0
        assert finished >= before
        assert finished % SHARD == 0 or finished == 9
        before = finished
    store = extract(tiny, mixed_samples(), NAMES, tmp_path / "f", FeatureSettings())
    assert store.report is not None
    assert store.report.scored == 9 - before
    undisturbed = extract(tiny, mixed_samples(), [*NAMES, "entropy"], tmp_path / "g", FeatureSettings())
    ids = [sample.id for sample in mixed_samples()]
    assert sorted(store.stored_ids()) == sorted(ids)
    for name in (*NAMES, "entropy"):
        np.testing.assert_allclose(store.view(ids)[name], undisturbed[name], rtol=1e-2, atol=1e-3, err_msg=name)


@pytest.mark.slow
def test_two_processes_at_once_store_every_row_once(tiny_path: Path, tmp_path: Path) -> None:
    children = [start(tiny_path, tmp_path / "f"), start(tiny_path, tmp_path / "f")]
    for child in children:
        go(child)
    said = [child.communicate()[0].split("\n") for child in children]
    lines = [line for one in said for line in one if line]
    assert lines.count("scored 9") == 1, lines  # the other one was refused, or found everything there
    assert set(lines) <= {"scored 9", "scored 0", "refused"}
    assert sorted(FeatureStore(tmp_path / "f").stored_ids()) == sorted(sample.id for sample in mixed_samples())
