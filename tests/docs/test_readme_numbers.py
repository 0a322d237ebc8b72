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
    adapt, ours, random = (ROWS[name] for name in ("adapt-inf", "lite-adapt-inf-embedding", "replay"))
    assert f"Adapt-infinity as published ends {-adapt['versus_random']:.3f} below random replay" in README
    assert interval(adapt) in README
    assert adapt["versus_random_high"] < 0
    side = "above" if ours["versus_random"] > 0 else "below"
    assert f"ends {abs(ours['versus_random']):.3f} {side} it" in README
    assert interval(ours) in README
    zero = ours["versus_random_low"] <= 0 <= ours["versus_random_high"]
    assert ("which one seed cannot tell from zero" in README) is zero
    assert ours["average_accuracy"] > adapt["average_accuracy"]
    assert ours["pool_size"] < random["pool_size"] / 3
    costs = [f"{row['select_seconds'] / row['train_seconds']:.1f}" for row in (adapt, ours)]
    assert f"Selection costs {costs[0]} seconds per second of training as published, {costs[1]} in ours" in README
    lost = [f"{ROWS[method]['forgetting_max']:.0f} %" for method in ("sequential", "replay")]
    assert f"loses {lost[0]} of what was learnt, random replay {lost[1]}" in README


def test_what_three_seeds_say_is_what_the_comparison_says() -> None:
    compared = json.loads((ROOT / "benchmarks" / "results" / "compare.json").read_text(encoding="utf-8"))
    assert len(compared["seeds"]) == 3
    adapt, ours = (
        next(row for row in compared["rows"] if row["label"] == label)
        for label in ("adapt-inf", "lite-adapt-inf-embedding")
    )
    told = f"{ours['versus_random']:+.3f} with an interval of {interval(ours)}".replace("-", "−")
    assert f"its difference to random replay is {told}, so it is not shown to be better than chance" in README
    assert ours["versus_random_low"] <= 0
    below = f"{adapt['versus_random']:+.3f} ({interval(adapt)})".replace("-", "−")
    assert f"as published stays below, {below}" in README
    assert adapt["versus_random_high"] < 0


def interval(row: dict[str, Any]) -> str:
    """The interval of the difference to random as the README writes it."""
    return f"{row['versus_random_low']:+.3f} to {row['versus_random_high']:+.3f}".replace("-", "−")


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
