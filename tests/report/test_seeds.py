"""Methods over seeds: means, standard deviations, paired differences, and what is said about them."""

from __future__ import annotations

import csv
import io
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from synthetic_runs import write_runs

from liit.errors import InputError
from liit.report import summary_table, write_report
from liit.report.seeds import SeedTable, seed_table, seeds_of, to_csv, to_text
from liit.report.summary import Number
from liit.report.verdict_seeds import verdict_over_seeds

METHODS = ("adapt-inf", "replay", "multitask")


@pytest.fixture(scope="module")
def groups(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Path]]:
    """Three methods at two seeds."""
    root = tmp_path_factory.mktemp("seeds")
    by_seed = [write_runs(root / str(seed), rows=150, methods=METHODS, seed=seed) for seed in range(2)]
    return {method: [runs[i] for runs in by_seed] for i, method in enumerate(METHODS)}


@pytest.fixture(scope="module")
def table(groups: dict[str, list[Path]]) -> SeedTable:
    return seed_table(groups, baseline="replay", reference="multitask")


def test_numbers_are_means_of_the_single_runs_with_the_reference_of_their_seed(
    groups: dict[str, list[Path]], table: SeedTable
) -> None:
    single = [
        summary_table([groups["adapt-inf"][seed], groups["multitask"][seed]], groups["multitask"][seed])[0]
        for seed in range(2)
    ]
    row = table.row("adapt-inf")
    for key in ("average_accuracy", "relative_gain", "forgetting_first", "backward_transfer", "train_seconds"):
        values = [one[key] for one in single]
        assert row[key] == pytest.approx(np.mean(values))
        assert row[f"{key}_sd"] == pytest.approx(np.std(values, ddof=1))
    assert row["seeds"] == [0, 1]
    assert table.row("multitask")["relative_gain"] == pytest.approx(100)


def test_a_difference_is_paired_by_seed_and_its_interval_wider_than_that_of_one_seed(
    groups: dict[str, list[Path]], table: SeedTable
) -> None:
    row, random = table.row("adapt-inf"), table.row("replay")
    assert row["versus_random"] == pytest.approx(row["average_accuracy"] - random["average_accuracy"])
    assert row["versus_random_low"] < row["versus_random"] < row["versus_random_high"]
    assert math.isnan(random["versus_random"])
    later = {"adapt-inf": groups["adapt-inf"], "replay": groups["replay"][1:]}
    common = seed_table(later, baseline="replay").row("adapt-inf")
    alone = summary_table([groups["adapt-inf"][1], groups["replay"][1]])[0]
    assert common["versus_random"] == pytest.approx(alone["versus_random"]), "only the seeds that both have"


def test_a_run_at_equal_compute_is_a_column_of_its_method(groups: dict[str, list[Path]]) -> None:
    more = {**groups, "replay@equal-compute": groups["adapt-inf"]}
    found = seed_table(more, baseline="replay", equal={"replay": "replay@equal-compute"}, donor="adapt-inf")
    own, random = found.row("adapt-inf"), found.row("replay")
    assert random["equal_accuracy"] == own["average_accuracy"] != random["average_accuracy"]
    assert own["equal_accuracy"] == own["average_accuracy"]
    assert (own["versus_equal"], own["versus_equal_low"], own["versus_equal_high"]) == (0, 0, 0)
    assert [run.label for run in found.details] == ["adapt-inf", "replay", "multitask"]
    assert "at equal compute" in to_text(found)


@pytest.fixture
def equal_compute(groups: dict[str, list[Path]]) -> SeedTable:
    """A method with about the compute of random choice at equal compute, and a cheaper one."""
    more = {**groups, "cheap": groups["adapt-inf"], "replay@equal-compute": groups["adapt-inf"]}
    found = seed_table(more, baseline="replay", equal={"replay": "replay@equal-compute"}, donor="adapt-inf")
    totals = {"adapt-inf": 10.0, "cheap": 6.0, "replay@equal-compute": 10.1}
    rows = [
        {**row, "select_flops": 1.0, "total_flops": totals[row["label"]]} if row["label"] in totals else row
        for row in found.rows
    ]
    return replace(found, rows=rows)


def changed(table: SeedTable, label: str, **values: float) -> SeedTable:
    return replace(table, rows=[{**row, **values} if row["label"] == label else row for row in table.rows])


def test_a_method_with_less_compute_than_random_choice_then_had_is_not_called_equal(equal_compute: SeedTable) -> None:
    said = verdict_over_seeds(equal_compute)
    assert (
        "No method with as much compute is shown to end above random replay at equal compute in average accuracy."
        in said
    )
    apart = "Not told apart from random replay at equal compute, the interval includes zero: adapt-inf +0.000 "
    assert apart in " ".join(said)
    (cheaper,) = [sentence for sentence in said if "less compute in all" in sentence]
    assert cheaper.endswith("cheap 59 % +0.000 [+0.000, +0.000].")


def test_a_cheaper_method_that_wins_at_equal_compute_is_said_to_win(equal_compute: SeedTable) -> None:
    table = changed(equal_compute, "cheap", versus_equal=0.08, versus_equal_low=0.01, versus_equal_high=0.15)
    said = verdict_over_seeds(table)
    won = "Above random replay at equal compute by more than chance, with less compute: "
    assert f"{won}cheap 59 % +0.080 [+0.010, +0.150]." in said
    assert not [sentence for sentence in said if "less compute in all" in sentence]


@pytest.mark.parametrize(("total", "said"), [(10.1, None), (9.0, "They took 90 % of that: samples differ")])
def test_compute_that_was_not_spent_is_told(equal_compute: SeedTable, total: float, said: str | None) -> None:
    found = verdict_over_seeds(changed(equal_compute, "replay@equal-compute", total_flops=total))
    told = [sentence for sentence in found if sentence.startswith("They took")]
    assert [sentence.startswith(said) for sentence in told] == ([True] if said else [])


def test_text_and_csv_say_the_same_as_the_rows(table: SeedTable) -> None:
    lines = to_text(table).splitlines()
    row = table.row("adapt-inf")
    assert f"{row['average_accuracy']:.3f} ± {row['average_accuracy_sd']:.3f}" in lines[2]
    assert "multitask (reference)" in to_text(table)
    read = list(csv.DictReader(io.StringIO(to_csv(table))))
    assert [one["label"] for one in read] == list(METHODS)
    assert float(read[0]["average_accuracy_sd"]) == row["average_accuracy_sd"]
    assert read[0]["seeds"] == "0 1"
    assert read[1]["versus_random"] == ""


def test_the_report_of_several_seeds_shows_them_together_and_the_first_in_detail(
    groups: dict[str, list[Path]], tmp_path: Path
) -> None:
    everything = [path for runs in groups.values() for path in runs]
    page = write_report(everything, tmp_path / "report.html").read_text(encoding="utf-8")
    assert "Methods over 2 seeds" in page
    assert page.count('<figure class="heat">') == len(METHODS)
    assert "everything is about the runs with seed 0" in page
    assert seeds_of([runs[0] for runs in groups.values()]) is None, "one seed has no section of its own"


def test_two_runs_of_a_method_with_one_seed_are_refused(groups: dict[str, list[Path]]) -> None:
    with pytest.raises(InputError, match="adapt-inf has two runs with the same seed"):
        seed_table({"adapt-inf": [groups["adapt-inf"][0]] * 2})


def told(table: SeedTable, **intervals: tuple[float, float, float]) -> str:
    """What is said when the differences to random replay are these."""
    rows: list[dict[str, Any]] = []
    for row in table.rows:
        found = intervals.get(row["label"].replace("-", "_"))
        names = ("versus_random", "versus_random_low", "versus_random_high")
        rows.append({**row, **(dict(zip(names, found, strict=True)) if found else {})})
    return verdict_over_seeds(replace(table, rows=rows))[0]


def test_no_method_wins_unless_its_interval_excludes_zero(table: SeedTable) -> None:
    assert told(table, adapt_inf=(0.08, -0.01, 0.17)) == (
        "No method is shown to end above random replay in average accuracy."
    )
    assert told(table, adapt_inf=(0.08, 0.01, 0.15)).startswith(
        "Above random replay in average accuracy by more than chance: adapt-inf +0.080 [+0.010, +0.150]"
    )
    assert told(table, adapt_inf=(-0.08, -0.15, -0.01)).startswith("No method is shown")


def test_no_spread_is_shown_for_one_seed_or_for_what_is_the_same_at_every_seed(
    groups: dict[str, list[Path]], table: SeedTable, tmp_path: Path
) -> None:
    assert Number(",.0f").spread(58.0, 0.0) == "58"
    assert Number(",.0f").spread(58.1, 58.1e-15) == "58", "rounding is no spread"
    assert Number(",.0f").spread(58.0, 3.0) == "58 ± 3"
    row = table.row("replay")
    assert row["trained_samples_sd"] == 0
    assert f"{row['trained_samples']:,.0f} ±" not in to_text(table)
    alone = seed_table({label: runs[:1] for label, runs in groups.items()}, baseline="replay", reference="multitask")
    assert "±" not in to_text(alone)
    said = " ".join(verdict_over_seeds(alone))
    assert "±" not in said
    assert "at the one seed 0" in said
    page = write_report([], tmp_path / "report.html", seeds=alone).read_text(encoding="utf-8")
    assert "±" not in page
    assert "Methods at seed 0" in page
    assert "see the seeds together" not in page


def test_the_ratio_of_costs_is_a_column_and_a_sentence(groups: dict[str, list[Path]]) -> None:
    counted = seed_table(groups, baseline="replay")
    single = [summary_table([path])[0] for path in groups["adapt-inf"]]
    row = counted.row("adapt-inf")
    assert row["cost_ratio"] == pytest.approx(np.mean([one["select_seconds"] / one["train_seconds"] for one in single]))
    assert "selection / training" in to_text(counted)
    rows = [{**one, "select_flops": 1e9, "cost_ratio": 0.333, "cost_ratio_flops": 0.0712} for one in counted.rows]
    said = " ".join(verdict_over_seeds(replace(counted, rows=rows)))
    assert "Choosing the samples took, of what training on them took: adapt-inf 33 % of the time and 7.1 % of" in said


def test_large_numbers_are_written_with_prefixes() -> None:
    flops = Number(",.1f", "FLOP", prefixes=True)
    assert flops(1.234e12) == "1.2 TFLOP"
    assert flops.spread(3.21e9, 2e8) == "3.2 ± 0.2 GFLOP"
    assert (flops(0.0), flops(math.nan)) == ("0", "–")
    assert Number("+.3f").spread(-0.01, 0.002) == "−0.010 ± 0.002"
    assert Number(".1f", "%").spread(50.0, math.nan) == "50.0 %"
