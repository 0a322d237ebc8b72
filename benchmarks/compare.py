"""Every method on the built-in continuum at several seeds, with equal budgets and with equal compute.

    python benchmarks/compare.py [--methods a,b,c] [--seeds 3] [--jobs N] [--set key=value] [--out DIR]
                                 [--no-equal-compute]
    python benchmarks/compare.py --more-seeds 8      our variant and random choice only, at more seeds
    python benchmarks/compare.py --write-docs        the tables in docs/compare.md, from the committed JSON

Writes ``benchmarks/results/compare.json`` or, with --more-seeds, ``compare-more-seeds.json``. Stopped anywhere, the
same command goes on, and the second takes over the runs of the first. Two hours on two cores, then half an hour.
Accuracies are repeatable on one machine and thread count; seconds are not.
"""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from liit.demo.continuum import cached_continuum
from liit.lifelong.compare import compare
from liit.lifelong.parallel import cores
from liit.lifelong.rundir import finite
from liit.lifelong.workbench import cache_directory
from liit.report.seeds import COSTS, EQUAL, QUALITY, RETENTION, difference, shown
from liit.report.summary import Column
from liit.report.verdict_seeds import verdict_over_seeds

RESULTS = Path(__file__).parent / "results" / "compare.json"
MORE_RESULTS = RESULTS.with_name("compare-more-seeds.json")
PAGE = Path(__file__).parents[1] / "docs" / "compare.md"
TABLE = "<!-- table of benchmarks/compare.py -->", "<!-- end of the table -->"
MORE_TABLE = "<!-- more seeds, benchmarks/compare.py -->", "<!-- end of more seeds -->"
MORE_METHOD = "adapt-inf-embedding"
MORE_COLUMNS = ("average_accuracy", "rare_accuracy", "forgetting_max")
METHODS = (
    "adapt-inf", "adapt-inf-embedding", "lite-adapt-inf", "lite-adapt-inf-embedding",
    "rds-plus", "gist", "scalselect", "coincide",
    "sequential", "half-replay", "dgg", "dgg+adapt-inf", "ewc",
)  # fmt: skip
SECONDS = {"select_seconds", "train_seconds", "evaluate_seconds"}
"""Not in the page: they are those of one machine. Their ratio is."""


def numbers(row: dict[str, Any]) -> dict[str, Any]:
    """A row of the JSON as the table wants it: NaN for what does not exist."""
    return {key: float("nan") if value is None else value for key, value in row.items()}


def markdown(result: dict[str, Any]) -> str:
    """The tables as the page shows them."""
    donor = (result["equal_compute"] or {}).get("donor")
    versus = {"versus_random": "difference to random [95 %]"}
    if donor is not None:
        versus["versus_equal"] = f"difference to random with the compute of {donor} [95 %]"
    quality = [column for column in QUALITY if column is not EQUAL or donor is not None]
    costs = [column for column in COSTS if column.key not in SECONDS]
    parts = [lines_of(result["rows"], *part) for part in ((quality, versus), (RETENTION, {}), (costs, {}))]
    seeds, budget = len(result["seeds"]), f"{result['budget']:,}"
    settings = ", ".join(result["settings"]) or "none"
    head = f"Continuum `{result['continuum']}`, {budget} samples per step, {seeds} seeds; settings changed: {settings}."
    said = "\n".join(f"- {sentence}" for sentence in result["verdict"])
    return "\n\n".join([head, *parts, said])


def more_markdown(result: dict[str, Any]) -> str:
    """The table of the comparison at more seeds."""
    columns = [column for column in (*QUALITY, *RETENTION) if column.key in MORE_COLUMNS]
    table = lines_of(result["rows"], columns, {"versus_random": "difference to random [95 %]"})
    return f"{len(result['seeds'])} seeds:\n\n{table}"


def lines_of(
    rows: Sequence[dict[str, Any]], columns: Sequence[Column], differences: Mapping[str, str], title: str = "method"
) -> str:
    """A table in Markdown.

    Args:
        rows: of the JSON.
        columns: numbers with their spread over seeds.
        differences: titles of differences with their intervals, by key.
        title: of the first column, which has the rows' labels.
    """
    titles = [title, *(column.title for column in columns), *differences.values()]
    lines = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    for row in map(numbers, rows):
        cells = [row["label"], *(shown(row, column) for column in columns)]
        cells += [difference(row, key) for key in differences]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def options(doc: str | None, out: str, page: Path) -> argparse.ArgumentParser:
    """The options that all scripts around `liit compare` have."""
    parser = argparse.ArgumentParser(description=(doc or "").partition("\n")[0])
    parser.add_argument("--jobs", type=int, help="runs side by side")
    parser.add_argument("--out", type=Path, default=Path(out), help="directory of the runs")
    parser.add_argument("--write-docs", action="store_true", help=f"only put what is committed into docs/{page.name}")
    return parser


def between(marks: tuple[str, str], text: str, page: Path = PAGE) -> None:
    """Put a text between two marks of a page."""
    old = page.read_text(encoding="utf-8")
    before, _, rest = old.partition(marks[0])
    _, _, after = rest.partition(marks[1])
    if not after:
        raise SystemExit(f"{page.name} lacks {marks[0]} or {marks[1]}")
    page.write_text(f"{before}{marks[0]}\n\n{text}\n\n{marks[1]}{after}", encoding="utf-8")


def write_docs() -> None:
    """Put the committed tables into the page."""
    between(TABLE, markdown(json.loads(RESULTS.read_text(encoding="utf-8"))))
    if MORE_RESULTS.is_file():
        between(MORE_TABLE, more_markdown(json.loads(MORE_RESULTS.read_text(encoding="utf-8"))))


def main() -> None:
    parser = options(__doc__, "runs/benchmark-compare", PAGE)
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--set", action="append", default=[], dest="settings", metavar="KEY=VALUE")
    parser.add_argument("--no-equal-compute", action="store_true", help="leave out the runs with equal compute")
    parser.add_argument("--more-seeds", type=int, help=f"only {MORE_METHOD} and random choice, at so many seeds")
    arguments = parser.parse_args()
    if arguments.write_docs:
        write_docs()
        return
    more = arguments.more_seeds is not None
    names = [MORE_METHOD] if more else arguments.methods.split(",")
    path = cached_continuum(cache_directory())
    found = compare(
        path, names, arguments.more_seeds if more else arguments.seeds, arguments.out, overrides=arguments.settings,
        jobs=arguments.jobs, reference=not more, equal_compute=not (more or arguments.no_equal_compute),
        show=lambda line: print(line, flush=True),
    )  # fmt: skip
    machine = {"cores": cores(), "machine": platform.machine(), "settings": arguments.settings}
    result = {**machine, **found.result, "verdict": verdict_over_seeds(found.table)}
    text = json.dumps(finite(result), indent=1, ensure_ascii=False)
    (MORE_RESULTS if more else RESULTS).write_text(text + "\n", encoding="utf-8")
    print((more_markdown if more else markdown)(json.loads(text)))


if __name__ == "__main__":
    main()
