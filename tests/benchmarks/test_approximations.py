"""The benchmark of approximations compares what it says, and the page shows what its JSON says."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

import approximations  # noqa: E402
import approximations_table  # noqa: E402

from liit.config import FeatureSettings  # noqa: E402
from liit.lifelong.rundir import write_table  # noqa: E402

RESULTS: dict[str, Any] = json.loads((ROOT / "benchmarks" / "results" / "approximations.json").read_text("utf-8"))


def test_the_page_shows_the_committed_numbers() -> None:
    page = approximations_table.PAGE.read_text(encoding="utf-8")
    assert approximations_table.tables(RESULTS) in page


def test_every_setting_was_measured_as_it_is_now() -> None:
    assert {name: one.title for name, one in approximations.SETTINGS.items()} == {
        name: one["title"] for name, one in RESULTS["settings"].items()
    }
    for one in RESULTS["settings"].values():
        assert one["scored"] + one["predicted"] + one["carried"] == RESULTS["pool"]


@pytest.mark.parametrize("name", list(approximations.SETTINGS))
def test_every_setting_is_one(name: str) -> None:
    changes = approximations.SETTINGS[name].changes
    settings = FeatureSettings(**changes)
    assert all(getattr(settings, key) == value for key, value in changes.items())


def write(folder: Path, ids: list[str], skills: list[str], clusters: dict[str, int]) -> Path:
    folder.mkdir()
    write_table(folder / "selection.parquet", pa.table({"id": ids, "skill": skills}))
    labels = {"id": list(clusters), "cluster": np.asarray(list(clusters.values()))}
    write_table(folder / "labels.parquet", pa.table(labels))
    return folder


def test_selections_are_compared_by_rows_skills_and_clusters(tmp_path: Path) -> None:
    clusters = {str(i): i % 3 for i in range(30)}
    one = write(tmp_path / "one", ["0", "1", "2", "3"], ["a", "a", "b", "b"], clusters)
    other = write(
        tmp_path / "other", ["3", "2", "9", "8"], ["a", "a", "a", "b"], {i: 2 - c for i, c in clusters.items()}
    )
    assert approximations.selections(one, one) == {"overlap": 1.0, "moved_between_skills": 0.0, "clusters_ami": 1.0}
    assert approximations.selections(other, one) == {
        "overlap": 0.5, "moved_between_skills": 0.25, "clusters_ami": 1.0,
    }  # fmt: skip


def test_gains_are_means_over_seeds_beside_exact_scoring_at_the_same_seeds() -> None:
    def runs(*accuracies: float, seconds: float) -> dict[str, Any]:
        return {str(i): {"average_accuracy": one, "cpu_seconds": seconds} for i, one in enumerate(accuracies)}

    gain = {"rescore-10": runs(0.3, 0.3, seconds=50.0), "exact": runs(0.3, 0.4, 0.5, seconds=100.0)}
    text = approximations_table.gains({"gain": gain, "settings": RESULTS["settings"]})
    assert text.splitlines()[2:] == [
        "| every row, exactly | 3 | 0.400 ± 0.100 |  | 1.00 |",
        "| `rescore: {share: 0.1}` | 2 | 0.300 ± 0.000 | −0.050 ± 0.071 | 0.50 |",
    ]


def test_a_gain_without_exact_scoring_at_its_seeds_is_not_shown() -> None:
    one = {"0": {"average_accuracy": 0.3, "cpu_seconds": 1.0}}
    for gain in ({}, {"rescore-10": one}, {"rescore-10": one, "exact": {"1": one["0"]}}):
        assert "rescore" not in approximations_table.gains({"gain": gain, "settings": RESULTS["settings"]})
