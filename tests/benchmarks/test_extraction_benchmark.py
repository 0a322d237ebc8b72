"""The extraction benchmark runs, its two procedures agree, and the page shows what its JSON says."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

import extraction  # noqa: E402
import extraction_limits  # noqa: E402
import extraction_speed  # noqa: E402
import extraction_table  # noqa: E402
from extraction_subjects import Subject, toy  # noqa: E402
from official_extraction import CachedRademacher, OfficialExtraction, RedrawnRademacher  # noqa: E402

RESULTS: dict[str, Any] = json.loads((ROOT / "benchmarks" / "results" / "extraction.json").read_text(encoding="utf-8"))


@pytest.fixture
def subject(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Subject:
    """The smallest model, and a place to work in."""
    torch.set_num_threads(1)
    for module in (extraction, extraction_speed, extraction_limits):
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
def test_memory_is_measured_above_the_loaded_model(
    subject: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = extraction_limits.run_memory(subject, 16, 1)
    assert all(value > 0 for value in found["peak_mb"].values())
    assert found["worst_mb"] < 500


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
