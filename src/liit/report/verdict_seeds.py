"""What a comparison over seeds says, in plain words.

Nothing is said to win or lose unless the interval of its difference excludes zero.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from liit.report.seeds import SHOWN, SeedTable, difference, is_sure, shown
from liit.report.verdict import percent

_COLUMNS = {column.key: column for column in SHOWN}
Row = Mapping[str, Any]
ENOUGH = 0.97
"""Share of the compute from which on it counts as spent: samples differ in length, and none is trained on in part."""


def verdict_over_seeds(table: SeedTable) -> list[str]:
    """Sentences computed from the table, most important first.

    Args:
        table: a comparison over seeds.
    """
    done = [row for row in table.rows if row["finished"] and not row["is_reference"] and not row["is_equal"]]
    sentences = [f"{row['label']} is not finished at every seed." for row in table.rows if not row["finished"]]
    if not done:
        return [*sentences, "No method is finished, so there is nothing to compare."]
    others = [row for row in done if row["label"] != table.baseline]
    baseline = next((row for row in done if row["label"] == table.baseline), None)
    if baseline is None:
        sentences.append("Random replay was not run, so nothing here shows what selection adds to chance.")
        return [*sentences, _means(done, table), *_facts(done, table)]
    versus = _against(others, "versus_random", "random replay", table)
    return [versus[0], *sentences, _means(done, table), *versus[1:], *_equal(others, table), *_facts(done, table)]


def _means(done: Sequence[Row], table: SeedTable) -> str:
    return f"Average accuracy, {_over(table)}: {_listed(done, 'average_accuracy')}."


def _over(table: SeedTable) -> str:
    count = len(table.seeds)
    return f"mean ± standard deviation over {count} seeds" if count > 1 else f"at the one seed {table.seeds[0]}"


def _against(rows: Sequence[Row], key: str, rival: str, table: SeedTable, who: str = "method") -> list[str]:
    """The lead, and the other differences."""
    known = sorted((row for row in rows if not math.isnan(row[key])), key=lambda row: -row[key])
    above = [row for row in known if row[f"{key}_low"] > 0]
    below = [row for row in known if row[f"{key}_high"] < 0]
    unsure = [row for row in known if not is_sure(row, key)]
    covers = "the evaluation rows and the seeds" if len(table.seeds) > 1 else "the evaluation rows, not the seeds"
    if above:
        found = _differences(above, key)
        lead = f"Above {rival} in average accuracy by more than chance: {found}; the 95 % intervals cover {covers}."
    else:
        lead = f"No {who} is shown to end above {rival} in average accuracy."
    sentences = [lead]
    if below:
        sentences.append(f"Below {rival} by more than chance: {_differences(below, key)}.")
    if unsure:
        sentences.append(f"Not told apart from {rival}, the interval includes zero: {_differences(unsure, key)}.")
    if len(known) > 2:
        sentences.append(
            f"These are {len(known)} intervals, each of 95 %: of twenty such, one excludes zero by chance alone."
        )
    missing = [str(row["label"]) for row in rows if math.isnan(row[key])]
    if missing:
        sentences.append(f"Without a common seed and the same rows there is no interval for {', '.join(missing)}.")
    return sentences


def _equal(rows: Sequence[Row], table: SeedTable) -> list[str]:
    enlarged = [row for row in table.rows if row["is_equal"] and row["finished"]]
    if not enlarged or table.donor is None:
        return []
    sentences = [
        f"With the compute of {table.donor}, selection and training, spent on training alone: "
        f"{_listed(enlarged, 'average_accuracy')}."
    ]
    whole = table.row(table.donor)["total_flops"]
    spent = min(row["total_flops"] / whole for row in enlarged) if whole > 0 else math.nan
    if spent < ENOUGH:
        sentences.append(
            f"They took {100 * spent:.0f} % of that: samples differ in length, and a pool that is used up has no more."
        )
    spending = min(row["total_flops"] for row in enlarged)
    selecting = [row for row in rows if row["select_flops"] > 0]
    if not spending or all(math.isnan(row["versus_equal"]) for row in selecting):
        return sentences
    equal = [row for row in selecting if row["total_flops"] >= ENOUGH * spending]
    cheaper = sorted(
        (row for row in selecting if row not in equal and not math.isnan(row["versus_equal"])),
        key=lambda row: -row["versus_equal"],
    )
    rival = "random replay at equal compute"
    winning = [row for row in cheaper if row["versus_equal_low"] > 0]
    if winning:
        sentences.append(f"Above {rival} by more than chance, with less compute: {_shares(winning, spending)}.")
    if equal:
        sentences += _against(equal, "versus_equal", rival, table, "method with as much compute")[:3]
    if others := [row for row in cheaper if row not in winning]:
        sentences.append(
            "The others that select had less compute in all than random choice then had (their share of it, and the "
            f"difference, which is not one at equal compute): {_shares(others, spending)}."
        )
    return sentences


def _shares(rows: Iterable[Row], spending: float) -> str:
    return ", ".join(
        f"{row['label']} {100 * row['total_flops'] / spending:.0f} % {difference(row, 'versus_equal')}" for row in rows
    )


def _facts(done: Sequence[Row], table: SeedTable) -> list[str]:
    sentences = []
    if table.rare:
        known = [row for row in done if not math.isnan(row["rare_accuracy"])]
        share = f"On the {len(table.rare)} rare skills (under 1 % of the samples each)"
        sentences += [f"{share}: {_listed(known, 'rare_accuracy')}."] if known else []
    selecting = [row for row in done if row["select_flops"] > 0 and row["train_seconds"] > 0]
    if selecting:
        shares = ", ".join(
            f"{row['label']} {percent(row['cost_ratio'])} of the time and {percent(row['cost_ratio_flops'])} of the "
            "operations"
            for row in selecting
        )
        sentences.append(f"Choosing the samples took, of what training on them took: {shares}.")
    reference = next((row for row in table.rows if row["is_reference"] and row["finished"]), None)
    if reference is not None:
        known = [row for row in done if not math.isnan(row["relative_gain"])]
        score = shown(reference, _COLUMNS["average_accuracy"])
        gains = f"; of that, skill by skill: {_listed(known, 'relative_gain')}" if known else ""
        sentences.append(f"Training on all data at the end ({reference['label']}) reaches {score}{gains}.")
    return sentences


def _listed(rows: Iterable[Row], key: str) -> str:
    ranking = sorted(rows, key=lambda row: -row[key])
    return ", ".join(f"{row['label']} {shown(row, _COLUMNS[key])}" for row in ranking)


def _differences(rows: Iterable[Row], key: str) -> str:
    return ", ".join(f"{row['label']} {difference(row, key)}" for row in rows)
