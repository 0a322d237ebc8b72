from __future__ import annotations

import csv
import io
import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from liit.evaluation import matrix
from liit.report.reading import load_runs
from liit.report.summary import BRIEF, COLUMNS, rare_skills, summary_table, to_csv, to_json, to_rich, to_text
from liit.report.verdict import verdict


def test_numbers_are_those_of_the_accuracy_matrix(run_paths: list[Path]) -> None:
    rows = {row["method"]: row for row in summary_table(run_paths)}
    runs = {run.method: run for run in load_runs(run_paths)}
    run = runs["adapt-inf"]
    introduced = run.continuum.introduced
    assert rows["adapt-inf"]["average_accuracy"] == matrix.average_accuracy(run.scores, introduced)
    assert rows["adapt-inf"]["forgetting_max"] == matrix.forgetting(run.scores, introduced)
    assert rows["adapt-inf"]["relative_gain"] == matrix.relative_gain(
        run.scores, introduced, runs["multitask"].scores[-1]
    )
    assert rows["adapt-inf"]["average_low"] < rows["adapt-inf"]["average_accuracy"] < rows["adapt-inf"]["average_high"]
    assert rows["multitask"]["is_reference"]
    assert rows["multitask"]["relative_gain"] == pytest.approx(100)
    assert math.isnan(rows["multitask"]["forgetting_max"])


def test_seconds_are_summed_by_stage_and_extraction_is_selection_cost(run_paths: list[Path]) -> None:
    row = summary_table(run_paths)[0]
    seconds: dict[str, float] = {}
    for line in (run_paths[0] / "timings.jsonl").read_text().splitlines():
        entry = json.loads(line)
        seconds[entry["stage"]] = seconds.get(entry["stage"], 0) + entry["seconds"]
    assert row["select_seconds"] == pytest.approx(seconds["extract"] + seconds["select"])
    assert row["train_seconds"] == pytest.approx(seconds["train"])


def test_difference_to_random_is_paired_on_rows(run_paths: list[Path], tmp_path: Path) -> None:
    rows = {row["method"]: row for row in summary_table(run_paths)}
    gap = rows["adapt-inf"]["average_accuracy"] - rows["replay"]["average_accuracy"]
    assert rows["adapt-inf"]["versus_random"] == pytest.approx(gap)
    assert math.isnan(rows["replay"]["versus_random"])
    other = Path(shutil.copytree(run_paths[0], tmp_path / "other"))
    predictions = next((other / "steps").glob("06-*")) / "predictions.jsonl"
    predictions.write_text(predictions.read_text().replace("naming-0", "naming-zero"))
    assert math.isnan(summary_table([other, run_paths[2]])[0]["versus_random"])


def test_without_a_reference_there_is_no_gain(run_paths: list[Path]) -> None:
    rows = summary_table(run_paths[:3])
    assert all(math.isnan(row["relative_gain"]) and not row["is_reference"] for row in rows)


def test_a_reference_given_apart_becomes_the_last_row(run_paths: list[Path]) -> None:
    rows = summary_table(run_paths[:2], reference=run_paths[4])
    assert [row["label"] for row in rows] == ["adapt-inf", "lite-adapt-inf", "multitask"]
    assert rows[0]["relative_gain"] == summary_table(run_paths)[0]["relative_gain"]


def test_rare_skills_are_the_same_whatever_a_method_pruned(run_paths: list[Path]) -> None:
    runs = load_runs(run_paths)
    assert set(rare_skills(runs)) == {"compare", "spelling", "boxes", "knowledge"}
    assert rare_skills(runs) == rare_skills(runs[1:2])


def test_text_json_csv_and_terminal_tables_hold_every_run(run_paths: list[Path]) -> None:
    rows = summary_table(run_paths)
    text = to_text(rows)
    assert len(text.splitlines()) == 2 + len(rows)
    assert "multitask (reference)" in text
    brief = to_text(rows, BRIEF).splitlines()
    assert max(map(len, brief)) < 0.6 * max(map(len, text.splitlines()))
    assert brief[2].split()[1] == text.splitlines()[2].split()[1]
    document = json.loads(to_json(rows))
    assert document[4]["forgetting_max"] is None
    assert document[0]["average_accuracy"] == rows[0]["average_accuracy"]
    table = list(csv.DictReader(io.StringIO(to_csv(rows))))
    assert float(table[0]["train_seconds"]) == rows[0]["train_seconds"]
    assert table[4]["forgetting_max"] == ""
    console = Console(width=240, file=io.StringIO())
    console.print(to_rich(rows))
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert all(row["label"] in shown for row in rows)


def test_every_column_has_its_formula() -> None:
    assert all(column.formula and column.title for column in COLUMNS)


def say(run_paths: list[Path], **changes: dict[str, float]) -> str:
    runs = load_runs(run_paths)
    rows = summary_table(run_paths)
    for row in rows:
        row.update(changes.get(row["method"].replace("-", "_"), {}))
    return " ".join(verdict(runs, rows))


def test_verdict_claims_a_win_only_with_an_interval_above_zero(run_paths: list[Path]) -> None:
    ahead = {"average_accuracy": 0.9, "versus_random": 0.2, "versus_random_low": 0.1, "versus_random_high": 0.3}
    level = {"average_accuracy": 0.6, "versus_random": 0.01, "versus_random_low": -0.03, "versus_random_high": 0.05}
    won = say(run_paths, adapt_inf=ahead)
    assert won.startswith("adapt-inf has the best average accuracy")
    assert "adapt-inf ends 0.200 above random replay" in won
    assert "one seed" in won
    unclear = say(run_paths[:1] + run_paths[2:], adapt_inf={**level, "average_accuracy": 0.9})
    assert "cannot tell the two apart" in unclear
    assert "no method here is shown to select better than chance" in unclear


def test_verdict_says_when_random_replay_wins(run_paths: list[Path]) -> None:
    behind = {"average_accuracy": 0.4, "versus_random": -0.1, "versus_random_low": -0.2, "versus_random_high": -0.05}
    text = say(run_paths, adapt_inf=behind, lite_adapt_inf=behind, replay={"average_accuracy": 0.5})
    assert "selection does not win here" in text
    assert "0.100 below random replay" in text


def test_verdict_without_random_replay_claims_nothing(run_paths: list[Path]) -> None:
    assert "Random replay was not run" in say(run_paths[:2])


def test_verdict_names_unfinished_runs(run_paths: list[Path], tmp_path: Path) -> None:
    path = Path(shutil.copytree(run_paths[0], tmp_path / "run"))
    shutil.rmtree(next((path / "steps").glob("06-*")))
    text = " ".join(verdict(load_runs([path]), summary_table([path])))
    assert text == "adapt-inf is not finished (5 of 6 steps evaluated) and has no final numbers yet."
    assert np.isnan(summary_table([path])[0]["average_accuracy"])
