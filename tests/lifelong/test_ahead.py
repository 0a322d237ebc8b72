"""Vision features for several runs, computed in several processes before any of them starts."""

from __future__ import annotations

from typing import Any

import pytest
from tiny import card_of_worker

from liit.config import Continuum
from liit.lifelong.ahead import in_processes


def test_workers_that_compute_vision_features_have_a_gpu_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "10,100")
    rows: Any = [[], [], [], []]
    assert in_processes(card_of_worker, Continuum.model_construct(), rows, 2) == 2 * 10 + 2 * 100
