"""The comparison table: one row per run, as data, text, JSON and CSV."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from liit.evaluation import matrix
from liit.evaluation.matrix import FORMULAS, Interval, bootstrap_interval
from liit.report.model import Run, ingested_skills
from liit.report.reading import load_run, load_runs

if TYPE_CHECKING:
    from rich.table import Table

BRIEF = (
    "average_accuracy",
    "relative_gain",
    "forgetting_max",
    "rare_accuracy",
    "select_seconds",
    "train_seconds",
)
RANDOM_METHODS = ("replay", "random")
REFERENCE_METHOD = "multitask"
RARE_SHARE = 0.01
"""A skill is rare when fewer than this share of all labelled samples ever ingested carry it."""
CONSTANT = 1e-12
"""A standard deviation of so little of its mean is rounding: the number is the same at every seed."""


@dataclass(frozen=True)
class Number:
    """How a number is written; a dash where there is none.

    Attributes:
        digits: format of the digits.
        unit: put behind.
        prefixes: shorten by thousands: k, M, G, T, P, E.
    """

    digits: str
    unit: str = ""
    prefixes: bool = False

    def __call__(self, value: float | None) -> str:
        """One number."""
        if value is None or math.isnan(value):
            return "–"
        if self.prefixes and value == 0:
            return "0"
        power, prefix = self._prefix(value)
        return f"{value / 1000**power:{self.digits}}{self._unit(prefix)}".replace("-", "−")

    def spread(self, mean: float, sd: float) -> str:
        """A mean with a standard deviation; alone where there is one seed, or the same number at every seed."""
        if math.isnan(mean) or math.isnan(sd) or sd <= CONSTANT * abs(mean):
            return self(mean)
        power, prefix = self._prefix(mean)
        written = (f"{x / 1000**power:{d}}" for x, d in ((mean, self.digits), (sd, self.digits.removeprefix("+"))))
        return f"{' ± '.join(written)}{self._unit(prefix)}".replace("-", "−")

    def _prefix(self, value: float) -> tuple[int, str]:
        if not self.prefixes or abs(value) < 1000:
            return 0, ""
        power = min(int(math.log10(abs(value)) // 3), 6)
        return power, "kMGTPE"[power - 1]

    def _unit(self, prefix: str) -> str:
        return f" {prefix}{self.unit}".rstrip() if self.unit else ""


@dataclass(frozen=True)
class Column:
    """One column of the table.

    Attributes:
        key: name in a row.
        title: heading.
        show: how a value is written.
        better: "high", "low", or "" when neither is better.
        formula: what exactly the number is.
    """

    key: str
    title: str
    show: Number
    better: str
    formula: str


_SECONDS = Number(",.0f", "s")
_OPERATIONS = Number(",.1f", "FLOP", prefixes=True)
_RATIO = Number(".2f")
_COUNTED = "operations of the model's products, two per multiply-add, padding included, all steps: "
COLUMNS = (
    Column("average_accuracy", "average accuracy", Number(".3f"), "high", FORMULAS["average_accuracy"]),
    Column("relative_gain", "relative gain", Number(".1f", "%"), "high", FORMULAS["relative_gain"]),
    Column("forgetting_max", "forgetting", Number(".1f", "%"), "low", FORMULAS["forgetting_max"]),
    Column("forgetting_first", "forgetting (first)", Number(".1f", "%"), "low", FORMULAS["forgetting_first"]),
    Column("rare_accuracy", "rare-skill accuracy", Number(".3f"), "high", FORMULAS["rare_accuracy"]),
    Column("backward_transfer", "backward transfer", Number("+.3f"), "high", FORMULAS["backward_transfer"]),
    Column("forward_transfer", "forward transfer", Number("+.3f"), "high", FORMULAS["forward_transfer"]),
    Column("select_seconds", "selection time", _SECONDS, "", "seconds in extract + select + prune, all steps"),
    Column("select_flops", "selection compute", _OPERATIONS, "", _COUNTED + "extract (not clustering)"),
    Column("train_seconds", "training time", _SECONDS, "", "seconds in train, all steps"),
    Column("train_flops", "training compute", _OPERATIONS, "", _COUNTED + "train, forward and backward"),
    Column("cost_ratio", "selection / training", _RATIO, "", "selection time over training time"),
    Column("cost_ratio_flops", "selection / training (compute)", _RATIO, "", "selection compute over training compute"),
    Column("evaluate_seconds", "evaluation time", _SECONDS, "", "seconds in evaluate, base model included"),
    Column("trained_samples", "samples trained on", Number(",.0f"), "", "sum over steps of the selection's size"),
    Column("pool_size", "final pool", Number(",.0f"), "", "samples left in the pool after the last step"),
)


def summary_table(runs: Sequence[Path], reference: Path | None = None) -> list[dict[str, Any]]:
    """One row of numbers per run.

    Args:
        runs: run directories of one continuum.
        reference: the run that gives u[s] of the relative gain; without it a `multitask` run among `runs` serves, and
            without that the gain is NaN.

    Returns:
        Rows with "label", "method", "seed", "finished", "is_reference", the keys of `COLUMNS`, the bootstrap interval
        of the average accuracy ("average_low", "average_high") and, against random replay on the same evaluation rows,
        "versus_random", "versus_random_low", "versus_random_high". NaN where a number does not exist.

    Raises:
        InputError: a directory that is no run, or runs of different continua.
    """
    loaded, reference_run = load_compared(runs, reference)
    return summarise(loaded, reference_run)


def load_compared(runs: Sequence[Path], reference: Path | None) -> tuple[tuple[Run, ...], Run | None]:
    """Load the runs and their reference, which is one of them or comes as the last."""
    paths = [Path(path) for path in runs]
    if reference is not None and Path(reference).resolve() not in {path.resolve() for path in paths}:
        load_run(Path(reference))  # so that an error names it before the runs are read
        paths.append(Path(reference))
    loaded = load_runs(paths)
    if reference is not None:
        wanted = Path(reference).resolve()
        return loaded, next(run for run in loaded if run.path.resolve() == wanted)
    return loaded, next((run for run in loaded if run.method == REFERENCE_METHOD), None)


def summarise(runs: tuple[Run, ...], reference: Run | None) -> list[dict[str, Any]]:
    """`summary_table` for runs already loaded."""
    rare = rare_skills(runs)
    baseline = random_baseline(runs)
    return [summarise_run(run, reference, baseline, rare) for run in runs]


def rare_skills(runs: tuple[Run, ...], share: float = RARE_SHARE) -> tuple[str, ...]:
    """Skills taught by the continuum whose samples are fewer than `share` of all labelled samples ever ingested.

    The same set for all runs, whatever they pruned; in the continuum's order. A skill without any training sample under
    its name is not rare but unknown, and left out.
    """
    counts = ingested_skills(runs)
    total = sum(counts.values())
    outline = runs[0].continuum
    taught = (name for name, step in zip(outline.skills, outline.introduced, strict=True) if step > 0)
    return tuple(skill for skill in taught if 0 < counts[skill] < share * total)


def random_baseline(runs: tuple[Run, ...]) -> Run | None:
    """The run that samples at random from the pool, if there is one."""
    return next((run for run in runs if run.method in RANDOM_METHODS), None)


def average_interval(run: Run) -> Interval:
    """Average accuracy with its bootstrap interval over evaluation rows; NaN bounds while the run is not finished."""
    groups = rows_by_skill(run)
    average = matrix.average_accuracy(run.scores, run.continuum.introduced)
    if groups is None or math.isnan(average):
        return Interval(average, math.nan, math.nan)
    interval = bootstrap_interval([list(rows.values()) for rows in groups.values()])
    return Interval(average, interval.low, interval.high)


def paired_difference(run: Run, other: Run) -> Interval | None:
    """Average accuracy of a run minus another's, paired on evaluation rows.

    Returns:
        The difference with its bootstrap interval; None when the two were not evaluated on the same rows.
    """
    left, right = rows_by_skill(run), rows_by_skill(other)
    if left is None or right is None or any(left[skill].keys() != right[skill].keys() for skill in left):
        return None
    return bootstrap_interval([[left[skill][key] - right[skill][key] for key in left[skill]] for skill in left])


def to_json(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as JSON text; a number that does not exist is null."""
    return json.dumps(
        [{key: _plain(value) for key, value in row.items()} for row in rows], indent=2, ensure_ascii=False
    )


def to_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as CSV text with a heading; a number that does not exist is an empty field."""
    out = io.StringIO()
    writer = csv.DictWriter(out, fieldnames=list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: _plain(value) for key, value in row.items()} for row in rows)
    return out.getvalue()


def to_text(rows: Sequence[Mapping[str, Any]], keys: Sequence[str] | None = None) -> str:
    """The table in plain text, one line per run, for a terminal or a log without colours.

    Args:
        rows: as `summary_table` gives them.
        keys: the columns to show, `BRIEF` for a terminal's width; None shows all.
    """
    columns = [column for column in COLUMNS if keys is None or column.key in keys]
    head = ["method", *(column.title for column in columns)]
    lines = [[_name(row), *(column.show(row[column.key]) for column in columns)] for row in rows]
    return aligned(head, lines)


def aligned(head: Sequence[str], lines: Sequence[Sequence[str]], left: int = 1) -> str:
    """A table in plain text under a heading with rules.

    Args:
        head: of the columns.
        lines: the rows.
        left: how many columns, from the first, are set to the left; all others to the right.
    """
    widths = [max(len(line[i]) for line in [head, *lines]) for i in range(len(head))]
    out = []
    for line in [head, ["-" * width for width in widths], *lines]:
        cells = [
            cell.ljust(width) if i < left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        out.append("  ".join(cells).rstrip())
    return "\n".join(out) + "\n"


def to_rich(rows: Sequence[Mapping[str, Any]]) -> Table:
    """The table for a terminal: narrow headings, the best value of every column in bold."""
    from rich.table import Table
    from rich.text import Text

    table = Table(show_edge=False, pad_edge=False)
    table.add_column("method", no_wrap=True)
    for column in COLUMNS:
        table.add_column(column.title, justify="right")
    best = best_values(rows)
    for row in rows:
        cells = [
            Text(column.show(row[column.key]), style="bold" if is_best(row, column, best) else "") for column in COLUMNS
        ]
        table.add_row(Text(_name(row)), *cells)
    return table


def best_values(rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """The best value of every column as it is written, among runs that are not the reference.

    As written, so that runs that look the same are marked the same.
    """
    best = {}
    for column in COLUMNS:
        values = [row[column.key] for row in rows if not row["is_reference"] and not math.isnan(row[column.key])]
        if column.better and len(values) > 1:
            best[column.key] = column.show(max(values) if column.better == "high" else min(values))
    return best


def is_best(row: Mapping[str, Any], column: Column, best: Mapping[str, str]) -> bool:
    """Whether this run has the column's best value."""
    return not row["is_reference"] and column.key in best and column.show(row[column.key]) == best[column.key]


def summarise_run(run: Run, reference: Run | None, baseline: Run | None, rare: tuple[str, ...]) -> dict[str, Any]:
    """A run's row of `summary_table`.

    Args:
        run: the run.
        reference: gives u[s] of the relative gain.
        baseline: the run that it is compared with, row by row.
        rare: the rare skills.
    """
    a, introduced = run.scores, run.continuum.introduced
    average = average_interval(run)
    versus = None if baseline is None or baseline is run else paired_difference(run, baseline)
    final = None if reference is None else _aligned_final(reference, run)
    seconds = run.seconds
    return {
        "label": run.label,
        "method": run.method,
        "seed": run.seed,
        "finished": run.finished,
        "is_reference": run is reference,
        "average_accuracy": average.estimate,
        "average_low": average.low,
        "average_high": average.high,
        "versus_random": math.nan if versus is None else versus.estimate,
        "versus_random_low": math.nan if versus is None else versus.low,
        "versus_random_high": math.nan if versus is None else versus.high,
        "relative_gain": math.nan if final is None else matrix.relative_gain(a, introduced, final),
        "relative_gain_skills": 0 if final is None else int(matrix.gain_skills(introduced, final).sum()),
        "forgetting_max": matrix.forgetting(a, introduced, "max"),
        "forgetting_first": matrix.forgetting(a, introduced, "first"),
        "rare_accuracy": matrix.rare_accuracy(a, introduced, [skill in rare for skill in run.continuum.skills]),
        "backward_transfer": matrix.backward_transfer(a, introduced),
        "forward_transfer": matrix.forward_transfer(a, introduced),
        "unseen_accuracy": matrix.unseen_accuracy(a, introduced),
        "select_seconds": _total(seconds, "extract", "select", "prune"),
        "select_flops": _operations(run, "extract"),
        "train_seconds": _total(seconds, "train"),
        "train_flops": _operations(run, "train"),
        "cost_ratio": _ratio(_total(seconds, "extract", "select", "prune"), _total(seconds, "train")),
        "cost_ratio_flops": _ratio(_operations(run, "extract"), _operations(run, "train")),
        "evaluate_seconds": _total(seconds, "evaluate"),
        "trained_samples": sum(step.selection.table.num_rows for step in run.steps if step.selection is not None),
        "pool_size": math.nan if run.final_pool_size is None else run.final_pool_size,
    }


def rows_by_skill(run: Run) -> dict[str, Mapping[str, float]] | None:
    """The final evaluation's rows of every skill taught; None when some are missing."""
    outline = run.continuum
    taught = [name for name, step in zip(outline.skills, outline.introduced, strict=True) if step > 0]
    if not taught or any(not run.final_rows.get(skill) for skill in taught):
        return None
    return {skill: run.final_rows[skill] for skill in taught}


def _aligned_final(reference: Run, run: Run) -> np.ndarray[Any, np.dtype[np.float64]]:
    column = {skill: position for position, skill in enumerate(reference.continuum.skills)}
    return reference.scores[-1, [column[skill] for skill in run.continuum.skills]]


def _total(seconds: Mapping[str, float], *stages: str) -> float:
    return float(sum(seconds.get(stage, 0.0) for stage in stages)) if seconds else math.nan


def _operations(run: Run, stage: str) -> float:
    """Operations of a stage, 0 when the method has none; NaN when nothing is known yet."""
    return run.flops.get(stage, 0.0) if run.finished else math.nan


def _ratio(selection: float, training: float) -> float:
    """Cost of selection over cost of training; NaN where nothing was trained or one of them is not known."""
    return selection / training if training > 0 else math.nan


def _name(row: Mapping[str, Any]) -> str:
    notes = (["reference"] if row["is_reference"] else []) + ([] if row["finished"] else ["not finished"])
    return str(row["label"]) + (f" ({', '.join(notes)})" if notes else "")


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
