"""The numbers in the README are those of the committed result of its script."""

from __future__ import annotations

import json
import runpy
from typing import Any

from pages import ROOT

README = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
RESULT: dict[str, Any] = json.loads((ROOT / "benchmarks" / "results" / "demo.json").read_text(encoding="utf-8"))
ROWS = {row["method"]: row for row in RESULT["rows"]}


def test_the_table_is_the_one_that_the_script_prints() -> None:
    markdown = runpy.run_path(str(ROOT / "benchmarks" / "demo.py"))["markdown"]
    assert markdown(RESULT["rows"]) in (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_words_below_the_table_say_what_it_says() -> None:
    adapt, lite = ROWS["adapt-inf"], ROWS["lite-adapt-inf"]
    best = max((row for row in ROWS.values() if not row["is_reference"]), key=lambda row: row["average_accuracy"])
    assert best["method"] == "replay"
    assert "Random replay wins here" in README
    assert f"{-adapt['versus_random']:.3f} below it" in README
    interval = f"{adapt['versus_random_low']:+.3f} to {adapt['versus_random_high']:+.3f}".replace("-", "−")
    assert interval in README
    assert adapt["versus_random_high"] < 0
    assert lite["versus_random_high"] < 0
    assert f"LITE {-lite['versus_random']:.3f} below" in README
    assert lite["pool_size"] < adapt["pool_size"] / 3
    assert f"{adapt['select_seconds'] / adapt['train_seconds']:.1f} seconds per second of training" in README
    lost = [f"{ROWS[method]['forgetting_max']:.0f} %" for method in ("sequential", "replay")]
    assert f"loses {lost[0]} of what was learnt, random replay {lost[1]}" in README


def test_joint_training_learns_every_skill_and_the_weakest_are_named() -> None:
    reachable, blind = RESULT["reachable"], RESULT["blind"]
    margins = sorted((reachable[skill] - blind[skill], skill) for skill in blind)
    assert margins[0][0] >= 0.1
    for _, skill in margins[:3]:
        assert f"{skill} {reachable[skill]:.2f} over {blind[skill]:.2f}" in README
    average = sum(reachable[skill] for skill in blind) / len(blind)
    assert abs(average - ROWS["multitask"]["average_accuracy"]) < 1e-9
    assert f"shows what is reachable: {average:.2f} on average" in README


def test_what_the_base_knows_and_no_step_teaches_is_mostly_lost() -> None:
    assert "mostly lost, by every method" in README
    assert all(row["unseen_accuracy"] < 0.5 for row in ROWS.values())


def test_the_demo_takes_less_than_ten_minutes() -> None:
    assert sum(RESULT["seconds"].values()) < 600
