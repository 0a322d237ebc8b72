"""The report: one self-contained HTML file about one or several runs of a continuum."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

import liit
from liit.report import composition
from liit.report.arrivals import arrivals
from liit.report.clusters import cluster_steps, how_clustered
from liit.report.heatmap import heat_css, heat_map
from liit.report.measured import how_measured
from liit.report.model import STAGES, Run
from liit.report.pruned import pruned_steps
from liit.report.reading import open_pool
from liit.report.scoring import scored_steps
from liit.report.seeds import COSTS, RETENTION, SeedTable, difference, is_sure, quality_columns, seeds_of
from liit.report.summary import (
    COLUMNS,
    RARE_SHARE,
    Column,
    best_values,
    is_best,
    load_compared,
    rare_skills,
    summarise,
)
from liit.report.thumbnails import Gallery
from liit.report.verdict import verdict
from liit.report.verdict_seeds import verdict_over_seeds

PICTURE_BYTES = 2_600_000
"""What all thumbnails together may take; with the text the page stays under 4 MB."""


def write_report(
    runs: Sequence[Path], out: Path, reference: Path | None = None, seeds: SeedTable | None = None
) -> Path:
    """Write the report of one or several runs of the same continuum.

    Of methods that were run with several seeds the page shows means over seeds and, in detail, the runs of the first.

    The file needs no network and no script. Everything that comes from a data set is escaped. It is written beside its
    target and renamed, so a reader never sees half of it.

    Args:
        runs: run directories, finished or not.
        out: the HTML file to write, or a directory, which gets `report.html`.
        reference: the run whose final accuracies are u[s] in the relative gain; without it a `multitask` run among
            `runs` serves.
        seeds: a comparison over seeds to show instead of one made from the runs.

    Returns:
        The path of the file written.

    Raises:
        InputError: a directory that is no run, or runs of different continua.
    """
    if seeds is None and runs:
        seeds = seeds_of(runs, reference)
    if seeds is None:
        loaded, reference_run = load_compared(runs, reference)
    else:
        loaded = seeds.details
        reference_run = next((run for run in loaded if run.label == seeds.reference), None)
    target = Path(out) / "report.html" if Path(out).is_dir() else Path(out)
    target.parent.mkdir(parents=True, exist_ok=True)
    _write(target, render(loaded, reference_run, seeds))
    return target


def render(runs: tuple[Run, ...], reference: Run | None, seeds: SeedTable | None = None) -> str:
    """The page as text; runs and reference as `liit.report.summary.load_compared` returns them."""
    environment = Environment(
        loader=PackageLoader("liit.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"count": _count, "seconds": _seconds, "sure": is_sure}
    environment.filters |= {"spread": lambda mean, sd, column: column.show.spread(mean, sd)}
    environment.filters |= {
        "difference_of": lambda row, key: difference(row, key).partition(" ")[0],
        "interval_of": lambda row, key: difference(row, key).partition(" ")[2],
    }
    return environment.get_template("report.html").render(_context(runs, reference, seeds))


def _context(runs: tuple[Run, ...], reference: Run | None, seeds: SeedTable | None) -> dict[str, Any]:
    rows = summarise(runs, reference)
    best = best_values(rows) if seeds is None else {}  # one of several seeds shows no best
    pools = [open_pool(run.path) for run in runs]
    gallery = Gallery(PICTURE_BYTES)
    palette = composition.palette(runs)
    # Clusters before pruned pairs and last steps before earlier ones: the pictures' budget goes to the important first.
    clusters = [(run, cluster_steps(run, pool, gallery)) for run, pool in zip(runs, pools, strict=True)]
    pruned = [(run, pruned_steps(run, pool, gallery)) for run, pool in zip(runs, pools, strict=True)]
    columns = [column for column in COLUMNS if column.key not in _BENEATH.values()]
    table = [(row, [(c.show(row[c.key]), is_best(row, c, best), _small(row, c)) for c in columns]) for row in rows]
    return {
        "version": liit_version(),
        "css": Markup(_stylesheet()),  # noqa: S704 - our own file and computed colours, nothing from data
        "continuum": runs[0].continuum,
        "runs": runs,
        "facts": _facts(runs, seeds),
        "verdict": verdict(runs, rows) if seeds is None else verdict_over_seeds(seeds),
        "seeds": seeds,
        "seed_parts": [] if seeds is None else _seed_parts(seeds),
        "title": _title(runs, seeds),
        "columns": columns,
        "formulas": COLUMNS,
        "table": table,
        "reference": reference,
        "gain_skills": _gain_note(rows),
        "rare": rare_skills(runs),
        "rare_share": f"{100 * RARE_SHARE:g} %",
        "heat_maps": [(run, heat_map(run)) for run in runs],
        "wrong_format": _wrong_format(runs),
        "measures": how_measured(runs),
        "last_charts": composition.last_step_charts(runs, palette),
        "step_charts": [(run, composition.step_charts(run, palette)) for run in runs],
        "lift": composition.lift_table(runs),
        "clusters": [(run, how_clustered(run), steps) for run, steps in clusters if steps],
        "pruned": [(run, steps) for run, steps in pruned if steps],
        "scored": [(run, steps) for run in runs if (steps := scored_steps(run))],
        "arrivals": arrivals(runs, pools),
        "time": composition.time_bars(runs, STAGES),
        "gallery": gallery,
    }


def liit_version() -> str:
    """The version that writes the report."""
    return str(getattr(liit, "__version__", "unknown"))


_BENEATH = {
    "select_seconds": "select_flops",
    "train_seconds": "train_flops",
    "cost_ratio": "cost_ratio_flops",
}
"""What stands small under a number, so that the table is no wider than the page."""


def _small(row: Mapping[str, Any], column: Column) -> str:
    """What stands small under a number: an interval, operations, or nothing."""
    if column.key == "average_accuracy":
        low, high = row["average_low"], row["average_high"]
        return "" if math.isnan(low) else f"{low:.3f}–{high:.3f}"
    below = next((other for other in COLUMNS if other.key == _BENEATH.get(column.key)), None)
    return "" if below is None or not row[below.key] > 0 else below.show(row[below.key])


def _title(runs: tuple[Run, ...], seeds: SeedTable | None) -> str:
    """Heading of the table of single runs."""
    if seeds is not None:
        return "One seed in detail" if len(seeds.seeds) > 1 else "In detail"
    return "Result" if len(runs) == 1 else "Comparison"


def _seed_parts(seeds: SeedTable) -> list[tuple[str, tuple[Column, ...], list[tuple[str, str]]]]:
    """Title, columns and paired differences of the tables over seeds."""
    differences = [("versus_random", "difference to random replay")] if seeds.baseline is not None else []
    if seeds.donor is not None:
        differences.append(("versus_equal", "difference to random replay at equal compute"))
    return [
        ("Accuracy at the end", quality_columns(seeds), differences),
        ("What is kept", RETENTION, []),
        ("What it costs", COSTS, []),
    ]


def _facts(runs: tuple[Run, ...], seeds: SeedTable | None = None) -> list[tuple[str, str]]:
    def each(values: Sequence[object]) -> str:
        return ", ".join(dict.fromkeys(str(value) for value in values))

    rows = {skill: len(ids) for run in runs for skill, ids in run.final_rows.items()}
    models = [run.config.get("model") for run in runs]
    return [
        ("steps", " → ".join(runs[0].continuum.steps)),
        ("model", each([model.get("path", "?") if isinstance(model, dict) else model for model in models])),
        ("budget", each([_budget(run) for run in runs]) + " samples per step"),
        ("seed", each([run.seed for run in runs] if seeds is None else seeds.seeds)),
        ("methods", each([run.label for run in runs])),
        ("evaluation", f"{len(runs[0].continuum.skills)} skills, {_count(sum(rows.values()))} rows"),
        ("run with liit", each([run.version for run in runs])),
    ]


def _budget(run: Run) -> str:
    budget = run.config.get("budget")
    return _count(budget) if isinstance(budget, int) else str(budget or "?")


def _gain_note(rows: Sequence[dict[str, Any]]) -> int:
    return max((row["relative_gain_skills"] for row in rows), default=0)


def _wrong_format(runs: Sequence[Run]) -> list[tuple[Run, int, int, list[tuple[str, int, int]]]]:
    """Per run: answers of the wrong form, rows, and the skills with most of them."""
    result = []
    for run in runs:
        if not run.wrong_format:
            continue
        wrong = sum(count for count, _ in run.wrong_format.values())
        worst = sorted(((skill, w, n) for skill, (w, n) in run.wrong_format.items() if w), key=lambda item: -item[1])
        result.append((run, wrong, sum(n for _, n in run.wrong_format.values()), worst[:6]))
    return result


def _stylesheet() -> str:
    return (Path(__file__).parent / "report.css").read_text(encoding="utf-8") + heat_css()


def _count(value: float) -> str:
    return f"{value:,.0f}"


def _seconds(value: float) -> str:
    if value < 10:
        return f"{value:.1f} s"
    return f"{value:.0f} s" if value < 600 else f"{value / 60:.0f} min" if value < 36_000 else f"{value / 3600:.1f} h"


def _write(target: Path, text: str) -> None:
    part = target.with_name(f".{target.name}.part")
    try:
        # A data set's text may hold a lone surrogate, which UTF-8 cannot: it becomes "?".
        with part.open("w", encoding="utf-8", errors="replace") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
