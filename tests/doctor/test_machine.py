from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from liit.doctor import machine
from liit.doctor.machine import Gpu, inspect_machine


def test_what_there_is_is_found(tmp_path: Path) -> None:
    found = inspect_machine(tmp_path / "not" / "there" / "yet")
    assert found.cores >= 1
    assert 0 < found.memory_available <= found.memory_total
    assert found.disk == str(tmp_path)
    assert found.disk_free > 0
    assert {"liit", "torch", "transformers", "peft"} <= set(found.packages)


def test_a_containers_limit_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "memory.max").write_text(f"{1 << 29}\n")
    (tmp_path / "memory.current").write_text(f"{1 << 28}\n")
    monkeypatch.setattr(machine, "CGROUP", tmp_path)
    found = inspect_machine()
    assert (found.memory_total, found.memory_available) == (1 << 29, 1 << 28)
    (tmp_path / "memory.max").write_text("max\n")
    assert inspect_machine().memory_total > 1 << 29


def test_a_model_on_a_gpu_has_the_gpus_memory() -> None:
    found = replace(inspect_machine(), gpus=(Gpu("a", 100, 40),))
    assert found.memory_for_model(on_gpu=True) == 40
    assert found.memory_for_model(on_gpu=False) == found.memory_available
