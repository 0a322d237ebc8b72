"""Methods over seeds: mean and standard deviation of every number, and paired differences to random replay.

All methods answer the same evaluation rows, and a method and its baseline are compared at the same seeds, so the
intervals cover both the chance in the rows and the chance in selecting and training.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from liit.errors import InputError
from liit.evaluation.intervals import Interval, bootstrap_over_seeds, paired_bootstrap_over_seeds, seed_spread
from liit.evaluation.matrix import FORMULAS
from liit.report.model import Run
from liit.report.reading import load_runs
from liit.report.summary import (
    COLUMNS,
    RANDOM_METHODS,
    REFERENCE_METHOD,
    Column,
    Number,
    aligned,
    rare_skills,
    rows_by_skill,
    summarise_run,
)

NONE = Interval(math.nan, math.nan, math.nan)
COMPUTE = Column(
    "total_flops", "total compute", Number(",.1f", "FLOP", prefixes=True), "", "selection compute + training compute"
)
EQUAL = Column(
    "equal_accuracy", "at equal compute", Number(".3f"), "high",
    "average accuracy when a random method also trains on what the most expensive selection costs; else its own",
)  # fmt: skip
UNSEEN = Column("unseen_accuracy", "never-taught accuracy", Number(".3f"), "high", FORMULAS["unseen_accuracy"])
_BY_KEY = {column.key: column for column in (*COLUMNS, UNSEEN, COMPUTE, EQUAL)}
QUALITY = tuple(_BY_KEY[key] for key in ("average_accuracy", "equal_accuracy", "relative_gain", "rare_accuracy"))
RETENTION = tuple(
    _BY_KEY[key]
    for key in ("forgetting_max", "forgetting_first", "backward_transfer", "forward_transfer", "unseen_accuracy")
)
COSTS = tuple(
    _BY_KEY[key]
    for key in (
        "select_seconds", "select_flops", "train_seconds", "train_flops", "cost_ratio", "cost_ratio_flops",
        "total_flops", "trained_samples", "pool_size",
    )
)  # fmt: skip
SHOWN = (*QUALITY, *RETENTION, *COSTS)


@dataclass(frozen=True)
class SeedTable:
    """A comparison over seeds.

    Attributes:
        rows: one per method; see `seed_table`.
        seeds: of the runs.
        baseline: label of random replay.
        reference: label of the run that relative gains refer to, if there is one.
        donor: the method whose selection the runs at equal compute make up for, if there are such runs.
        details: the runs of the first seed, which the report shows one by one.
        rare: the rare skills.
    """

    rows: list[dict[str, Any]]
    seeds: tuple[int, ...]
    baseline: str | None
    reference: str | None
    donor: str | None
    details: tuple[Run, ...]
    rare: tuple[str, ...]

    def row(self, label: str) -> dict[str, Any]:
        """The row of a method."""
        return next(row for row in self.rows if row["label"] == label)


def seed_table(
    groups: Mapping[str, Sequence[Path]],
    *,
    baseline: str | None = None,
    reference: str | None = None,
    equal: Mapping[str, str] | None = None,
    donor: str | None = None,
) -> SeedTable:
    """Summarise runs of several methods at several seeds.

    Args:
        groups: run directories by label, one per seed, in ascending order of the seeds.
        baseline: label of the method that the others are compared with: random replay.
        reference: label of the method whose accuracies at the same seed are u[s] of the relative gain.
        equal: for methods without selection costs, the label of their runs with as much compute as the donor has.
        donor: the method with the most expensive selection.

    Returns:
        Rows with "label", "method", "seeds", "finished", "is_reference", "is_equal"; for the key of every column its
        mean over seeds, and its standard deviation under the key with "_sd"; "average_low" and "average_high", and the
        paired differences "versus_random" (to the baseline) and "versus_equal" (to the baseline at equal compute), each
        with "_low" and "_high": 95 % over seeds and rows. NaN where a number does not exist.

    Raises:
        InputError: a directory that is no run, runs of different continua, or two runs of a method with one seed.
    """
    paths = [path for members in groups.values() for path in members]
    loaded = iter(load_runs(paths, pools=[members[0] for members in groups.values()]))
    runs = {label: _of_seeds(label, [next(loaded) for _ in members]) for label, members in groups.items()}
    everything = tuple(run for by_seed in runs.values() for run in by_seed.values())
    rare, extra = rare_skills(tuple(by_seed[min(by_seed)] for by_seed in runs.values())), dict(equal or {})
    given = None if reference is None else runs[reference]
    rows = []
    for label, by_seed in runs.items():
        row = _row(label, by_seed, given, rare)
        row |= {"is_reference": label == reference, "is_equal": label in extra.values()}
        enlarged = runs[extra[label]] if label in extra else by_seed
        row |= _spread(EQUAL.key, [_average(run, rare) for run in enlarged.values()])
        row |= _versus("versus_random", by_seed, None if label == baseline else runs.get(baseline or ""))
        rival = extra.get(baseline or "")
        row |= _versus("versus_equal", by_seed, None if label == baseline or not rival else runs.get(rival))
        rows.append(row)
    seeds = tuple(sorted({run.seed for run in everything}))
    details = [by_seed[min(by_seed)] for label, by_seed in runs.items() if label not in extra.values()]
    return SeedTable(rows, seeds, baseline, reference, donor, tuple(details), rare)


def seeds_of(runs: Sequence[Path], reference: Path | None = None) -> SeedTable | None:
    """The table of some run directories, by method; None when no method has two seeds, or one has a seed twice.

    Args:
        runs: run directories.
        reference: the run that gives u[s], whose method then does at every seed; a `multitask` run unless given.

    Raises:
        InputError: a directory that is no run, or runs of different continua.
    """
    found = load_runs([*runs, *([reference] if reference is not None and reference not in runs else [])], pools=())
    groups: dict[str, dict[int, Path]] = {}
    for run in found:
        if run.seed in groups.setdefault(run.method, {}):
            return None
        groups[run.method][run.seed] = run.path
    if all(len(group) == 1 for group in groups.values()):
        return None
    given = next((run.method for run in found if run.path == reference), REFERENCE_METHOD)
    return seed_table(
        {method: [path for _, path in sorted(group.items())] for method, group in groups.items()},
        baseline=next((method for method in RANDOM_METHODS if method in groups), None),
        reference=given if given in groups else None,
    )


def _of_seeds(label: str, runs: Sequence[Run]) -> dict[int, Run]:
    by_seed = {run.seed: replace(run, label=label) for run in runs}
    if len(by_seed) < len(runs):
        raise InputError(f"runs: {label} has two runs with the same seed; give each seed once")
    return dict(sorted(by_seed.items()))


def _row(label: str, by_seed: Mapping[int, Run], reference: Mapping[int, Run] | None, rare: tuple[str, ...]) -> Any:
    single = [summarise_run(run, (reference or {}).get(seed), None, rare) for seed, run in by_seed.items()]
    for row in single:
        row[COMPUTE.key] = row["select_flops"] + row["train_flops"]
    first = next(iter(by_seed.values()))
    row = {
        "label": label,
        "method": first.method,
        "seeds": list(by_seed),
        "finished": all(run.finished for run in by_seed.values()),
        "relative_gain_skills": min(one["relative_gain_skills"] for one in single),
    }
    for column in (*COLUMNS, UNSEEN, COMPUTE):
        row |= _spread(column.key, [one[column.key] for one in single])
    found = _bootstrap(by_seed)
    return row | {"average_low": found.low, "average_high": found.high}


def _spread(key: str, values: Sequence[float]) -> dict[str, float]:
    spread = seed_spread(values)
    return {key: spread.mean, f"{key}_sd": spread.sd}


def _average(run: Run, rare: tuple[str, ...]) -> float:
    return float(summarise_run(run, None, None, rare)["average_accuracy"])


def _bootstrap(by_seed: Mapping[int, Run]) -> Interval:
    found = _table(list(by_seed.values()))
    return NONE if found is None else bootstrap_over_seeds(found[0], found[1])


def _versus(key: str, by_seed: Mapping[int, Run], baseline: Mapping[int, Run] | None) -> dict[str, float]:
    """The paired difference to a baseline at the seeds that both have."""
    seeds = [seed for seed in by_seed if baseline is not None and seed in baseline]
    difference = NONE
    if baseline is not None and seeds:
        own, other = _table([by_seed[s] for s in seeds]), _table([baseline[s] for s in seeds])
        if own is not None and other is not None and own[1] == other[1] and own[2] == other[2]:
            difference = paired_bootstrap_over_seeds(own[0], other[0], own[1])
    return {key: difference.estimate, f"{key}_low": difference.low, f"{key}_high": difference.high}


Rows = tuple[np.ndarray[Any, np.dtype[np.float64]], list[str], list[str]]


def _table(runs: Sequence[Run]) -> Rows | None:
    """Scores [seeds, rows] with the skill and the id of every row; None unless all seeds have the same rows."""
    groups = [rows_by_skill(run) for run in runs]
    if any(group is None for group in groups):
        return None
    keys = [sorted((skill, key) for skill, rows in (group or {}).items() for key in rows) for group in groups]
    if any(other != keys[0] for other in keys):
        return None
    values = [[(group or {})[skill][key] for skill, key in keys[0]] for group in groups]
    return np.array(values, dtype=np.float64), [skill for skill, _ in keys[0]], [key for _, key in keys[0]]


def quality_columns(table: SeedTable) -> tuple[Column, ...]:
    """Columns on the accuracy at the end; the one at equal compute where there are such runs."""
    return tuple(column for column in QUALITY if column is not EQUAL or table.donor is not None)


def shown(row: Mapping[str, Any], column: Column) -> str:
    """A number of a row with its standard deviation over seeds."""
    return column.show.spread(row[column.key], row[f"{column.key}_sd"])


def difference(row: Mapping[str, Any], key: str) -> str:
    """A paired difference with its interval."""
    if math.isnan(row[key]):
        return "–"
    return f"{row[key]:+.3f} [{row[f'{key}_low']:+.3f}, {row[f'{key}_high']:+.3f}]".replace("-", "−")


def is_sure(row: Mapping[str, Any], key: str) -> bool:
    """Whether the interval of a paired difference excludes zero."""
    return bool(row[f"{key}_low"] > 0 or row[f"{key}_high"] < 0)


def to_text(table: SeedTable) -> str:
    """The comparison in plain text: three small tables, accuracy, what is kept, and costs."""
    versus = {"versus_random": "vs random [95 %]"}
    if table.donor is not None:
        versus["versus_equal"] = "vs random at equal compute"
    quality = quality_columns(table)
    accuracy = [
        [name(row), *(shown(row, column) for column in quality), *(difference(row, key) for key in versus)]
        for row in table.rows
    ]
    parts = [aligned(["method", *(column.title for column in quality), *versus.values()], accuracy)]
    for columns in (RETENTION, COSTS):
        lines = [[name(row), *(shown(row, column) for column in columns)] for row in table.rows]
        parts.append(aligned(["method", *(column.title for column in columns)], lines))
    return "\n".join(parts)


def to_csv(table: SeedTable) -> str:
    """The rows as CSV text with a heading; a number that does not exist is an empty field."""
    out = io.StringIO()
    writer = csv.DictWriter(out, fieldnames=list(table.rows[0]) if table.rows else [], lineterminator="\n")
    writer.writeheader()
    for row in table.rows:
        writer.writerow({key: _plain(value) for key, value in row.items()})
    return out.getvalue()


def name(row: Mapping[str, Any]) -> str:
    """A row's label with what must be known about it."""
    notes = (["reference"] if row["is_reference"] else []) + ([] if row["finished"] else ["not finished"])
    return str(row["label"]) + (f" ({', '.join(notes)})" if notes else "")


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return " ".join(map(str, value))
    return None if isinstance(value, float) and not math.isfinite(value) else value
