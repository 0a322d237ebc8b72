"""The numbers in the README are those of the committed result of its script."""

from __future__ import annotations

import json
import re
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
    interval = f"{adapt['versus_random_low']:.3f} to {adapt['versus_random_high']:+.3f}".replace("-", "−")
    assert interval in README
    assert f"LITE {-lite['versus_random']:.3f} below" in README
    assert lite["pool_size"] < adapt["pool_size"] / 2
    assert f"{adapt['select_seconds'] / adapt['train_seconds']:.1f} seconds per second of training" in README
    lost = [f"{ROWS[method]['forgetting_max']:.0f} %" for method in ("sequential", "replay")]
    assert f"loses {lost[0]} of what was learnt, random replay {lost[1]}" in README


def test_the_skills_named_as_unreachable_are_those_near_chance_in_joint_training() -> None:
    named = re.search(r"stay at chance even there \(([a-z, ]+)\)", README)
    assert named is not None
    near_chance = {"yes/no and either/or": 0.65, "others": 0.25}
    halves = {"presence", "negation", "verify", "existence", "which"}
    for skill in named[1].split(", "):
        assert RESULT["reachable"][skill] <= near_chance["yes/no and either/or" if skill in halves else "others"], skill
    taught = [score for skill, score in RESULT["reachable"].items() if not skill.startswith("general-")]
    assert abs(sum(taught) / len(taught) - ROWS["multitask"]["average_accuracy"]) < 1e-9
