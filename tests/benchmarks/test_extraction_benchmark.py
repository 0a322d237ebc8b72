"""The extraction benchmark runs, its two procedures agree, and the page shows what its JSON says."""

from __future__ import annotations

import json
import mmap
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

import extraction  # noqa: E402
import extraction_limits  # noqa: E402
import extraction_memory  # noqa: E402
import extraction_speed  # noqa: E402
import extraction_table  # noqa: E402
from extraction_subjects import Subject, toy  # noqa: E402
from official_extraction import CachedRademacher, OfficialExtraction, RedrawnRademacher  # noqa: E402

RESULTS: dict[str, Any] = json.loads((ROOT / "benchmarks" / "results" / "extraction.json").read_text(encoding="utf-8"))


@pytest.fixture
def subject(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Subject:
    """The smallest model, and a place to work in."""
    torch.set_num_threads(1)
    for module in (extraction, extraction_speed, extraction_limits, extraction_memory):
        monkeypatch.setattr(module, "WORK", tmp_path)
    return toy(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("part", ["features", "sketch", "scaling", "fidelity", "counts"])
def test_every_part_runs(subject: Subject, part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extraction_limits, "DIMS", (64,))
    monkeypatch.setattr(extraction_limits, "SEEDS", 2)
    json.dumps(extraction.PARTS[part](subject, 8, 1))


def test_both_procedures_agree_before_anything_is_timed(subject: Subject) -> None:
    found = extraction_speed.agreement(subject, subject.samples(10))
    assert set(found) == {"gradient", "embedding", *extraction_speed.SCORES}
    assert found["gradient"] < 1e-5


def test_a_difference_stops_the_benchmark(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    statistics = OfficialExtraction._statistics

    def wrong(logits: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        found = statistics(logits, labels)
        return {**found, "entropy": found["entropy"] * 1.001}

    monkeypatch.setattr(OfficialExtraction, "_statistics", staticmethod(wrong))
    with pytest.raises(extraction_speed.DisagreementError, match=r"entropy differs by 1\.0e-03"):
        extraction_speed.agreement(subject, subject.samples(10))


def test_signs_drawn_again_are_the_same_signs() -> None:
    gradients = torch.randn(3, 500)
    assert torch.allclose(
        CachedRademacher(500, 200, 1)(gradients), RedrawnRademacher(500, 200, 1)(gradients), rtol=1e-4, atol=1e-5
    )
    assert set(CachedRademacher(500, 200, 1).matrix.unique().tolist()) == {-1.0, 1.0}


def test_the_official_side_writes_a_file_per_160_samples(subject: Subject, tmp_path: Path) -> None:
    samples = subject.samples(6) * 28
    OfficialExtraction(subject.vlm, 1, None, scores=False)(samples, tmp_path / "out")
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == [
        "grads-160.safetensors", "grads-168.safetensors",
    ]  # fmt: skip


def test_nothing_is_computed_twice(subject: Subject) -> None:
    found = extraction_limits.run_counts(subject, 9, 1)
    assert found["again"] == {"model_calls": 0, "rows": 0, "tower_calls": 0}
    assert found["new_samples"]["rows"] == found["new_samples_alone"]["rows"] > 0
    assert found["new_checkpoint"]["tower_calls"] == 0


@pytest.mark.slow
def test_memory_is_measured_by_shards_above_the_loaded_model(
    subject: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = extraction_memory.run_memory(subject, 16, 1)
    assert len(found["shards"]) == extraction_memory.SHARDS
    assert all(shard["peak_mb"] > 0 for shard in found["shards"])
    assert found["official_mb"] > 0
    assert found["worst_mb"] < 500


def test_a_meter_tells_own_memory_from_mapped_files_shard_by_shard(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(bytes(64 << 20))
    meter = extraction_memory.Meter(shard_rows=10)
    meter.look(5)
    # Not an array: an allocator may hand out pages that were resident before.
    held = mmap.mmap(-1, 64 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    for page in range(0, 64 << 20, mmap.PAGESIZE):
        held[page] = 1
    meter.look(5)
    mapped = np.memmap(file, mode="r")
    assert mapped.sum() == 0
    meter.look(10)
    first, second = meter.shards
    assert first["own_mb"] > 50 > first["mapped_mb"]
    assert second["own_mb"] > 50
    assert second["mapped_mb"] > first["mapped_mb"] + 50
    assert second["peak_mb"] > 110
    held.close()


def test_allocators_of_the_measured_process_have_their_default_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}

    def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        given.update(options["env"])
        return subprocess.CompletedProcess(command, 0, "words\n[]\n")

    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "17179869184")
    monkeypatch.setenv("KEPT", "1")
    monkeypatch.setattr(extraction_memory.subprocess, "run", run)
    assert extraction_memory._in_a_child("liit", "toy", 4, 1) == []
    assert given["KEPT"] == "1"
    assert not [name for name in given if name.startswith("MALLOC_")]


def memory_part(own: list[float], mapped: list[float]) -> dict[str, Any]:
    """What the memory part would write for these figures of every shard."""
    shards = [{"own_mb": o, "mapped_mb": m, "peak_mb": 300.0} for o, m in zip(own, mapped, strict=True)]
    return {
        "rows": 4096, "shard_rows": 1024, "shards": shards, "worst_mb": 300.0, "official_mb": 2500.0,
        "growth_mb_per_1024": extraction_memory.growth(shards, 1024), "dense_matrix_mb": 2416.0,
        "model": {"gradient_length": 77312},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("own", "mapped", "said"),
    [
        ([200, 210, 205, 199], [80, 80, 80, 80], "flat"),
        ([200, 203, 206, 209], [80, 80, 80, 80], "flat"),  # one per cent of the peak each
        ([200, 203, 206, 210], [80, 80, 80, 80], "**no**"),
        ([200, 200, 200, 200], [80, 90, 100, 110], "**no**"),
        ([100, 205, 205, 205], [60, 80, 80, 80], "flat"),  # what fills once and is kept is no growth
        ([200, 200, 200, 200, 203, 206, 209, 213], [80] * 8, "**no**"),
    ],
)
def test_memory_is_called_flat_only_up_to_one_per_cent_of_the_peak_per_1024_rows(
    own: list[float], mapped: list[float], said: str
) -> None:
    lines = extraction_table.limits({"memory/middle": memory_part(own, mapped)}).splitlines()
    line = next(line for line in lines if "growth" in line)
    assert line.split("|")[-2].strip() == said
    assert f"{own[-1]} MB, {mapped[-1]} MB" in line


def test_memory_that_was_not_measured_by_shards_is_not_called_flat() -> None:
    part = memory_part([200.0], [80.0]) | {"shards": [], "growth_mb_per_1024": None}
    line = next(line for line in extraction_table.limits({"memory/middle": part}).splitlines() if "growth" in line)
    assert line.split("|")[-2].strip() == "not measured"


def test_growth_is_for_1024_rows_whatever_a_shard_is() -> None:
    shards = [{"own_mb": own, "mapped_mb": 0.0, "peak_mb": own} for own in (1.0, 10.0, 99.0, 14.0)]
    assert extraction_memory.growth(shards, 1024) == 2.0
    assert extraction_memory.growth(shards, 512) == 4.0


def test_the_page_shows_the_committed_numbers() -> None:
    page = extraction_table.PAGE.read_text(encoding="utf-8")
    assert extraction_table.tables(RESULTS) in page


def test_every_row_of_the_issue_has_a_measurement() -> None:
    assert {f"{part}/{model}" for part, model in extraction.TABLE_PARTS} <= set(RESULTS["parts"])


def test_a_missed_floor_is_shown() -> None:
    ratios = {"official, no projection": 1.2, "official, cached dense": 1.9, "official, signs redrawn": 20.0}
    parts = {
        f"features/{model}": {"ratio_images_first": ratios, "ratio_images_kept": ratios}
        for model in extraction_table.MODELS
    }
    lines = extraction_table.speed(parts).splitlines()
    reached = [line.split("|")[-2].strip() for line in lines[2:]]
    assert reached == [", ".join([word] * 3) for word in ("**no**", "floor", "goal", "not measured", "not measured")]


@pytest.mark.parametrize(("others", "said"), [(0.0, False), (0.4, True)])
def test_wall_time_names_missed_goals_and_a_machine_that_was_not_idle(others: float, said: bool) -> None:
    def part(first: float, kept: float) -> dict[str, Any]:
        name = "official, no projection"
        return {"ratio_images_first": {name: first}, "ratio_images_kept": {name: kept}, "others": others}

    text = extraction_table.wall({"wall/demo": part(3.5, 9.0), "wall/large": part(2.9, 3.1)})
    assert "3.50 / 9.00 | not measured | 2.90 / 3.10 | goal, not measured, **no** |" in text
    assert ("not idle" in text) == said
