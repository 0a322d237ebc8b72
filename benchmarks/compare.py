"""Every method on the built-in continuum at several seeds, with equal budgets and with equal compute.

    python benchmarks/compare.py [--methods a,b,c] [--seeds 3] [--jobs N] [--set key=value] [--out DIR]
    python benchmarks/compare.py --write-docs        the table in docs/compare.md, from the committed JSON

Writes ``benchmarks/results/compare.json`` (or what --results names). Stopped anywhere, the same command goes on. More
than an hour on two cores. Accuracies are repeatable on one machine and thread count; seconds are not.
"""

from __future__ import annotations

import argparse
import json
import platform
from pathlib import Path
from typing import Any

from liit.demo.continuum import cached_continuum
from liit.lifelong.compare import compare
from liit.lifelong.parallel import cores
from liit.lifelong.rundir import finite
from liit.lifelong.workbench import cache_directory
from liit.report.seeds import COSTS, EQUAL, QUALITY, RETENTION, difference, shown
from liit.report.verdict_seeds import verdict_over_seeds

RESULTS = Path(__file__).parent / "results" / "compare.json"
PAGE = Path(__file__).parents[1] / "docs" / "compare.md"
BEGIN, END = "<!-- table of benchmarks/compare.py -->", "<!-- end of the table -->"
METHODS = (
    "adapt-inf", "adapt-inf-embedding", "lite-adapt-inf", "lite-adapt-inf-embedding",
    "rds-plus", "gist", "scalselect", "coincide",
    "sequential", "half-replay", "dgg", "dgg+adapt-inf", "ewc",
)  # fmt: skip
APART = {"select_seconds", "train_seconds", "evaluate_seconds", "cost_ratio", "cost_ratio_flops"}
"""Not among the page's columns: seconds are those of one machine. Their ratio, made from them, is the last column."""


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
    costs = [column for column in COSTS if column.key not in APART]
    parts = []
    for columns, differences in ((quality, versus), (RETENTION, {}), (costs, {})):
        titles = ["method", *(column.title for column in columns), *differences.values()]
        if columns is costs:
            titles.append("selection / training time")
        lines = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
        for row in map(numbers, result["rows"]):
            cells = [f"{row['label']}", *(shown(row, column) for column in columns)]
            cells += [difference(row, key) for key in differences]
            if columns is costs:
                cells.append(f"{row['select_seconds'] / row['train_seconds']:.2f}")
            lines.append(f"| {' | '.join(cells)} |")
        parts.append("\n".join(lines))
    seeds, budget = len(result["seeds"]), f"{result['budget']:,}"
    settings = ", ".join(result["settings"]) or "none"
    head = f"Continuum `{result['continuum']}`, {budget} samples per step, {seeds} seeds; settings changed: {settings}."
    said = "\n".join(f"- {sentence}" for sentence in result["verdict"])
    return "\n\n".join([head, *parts, said])


def write_docs() -> None:
    """Put the committed table into the page."""
    page = PAGE.read_text(encoding="utf-8")
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    table = markdown(json.loads(RESULTS.read_text(encoding="utf-8")))
    PAGE.write_text(f"{before}{BEGIN}\n\n{table}\n\n{END}{after}", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int)
    parser.add_argument("--set", action="append", default=[], dest="settings", metavar="KEY=VALUE")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmark-compare"))
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--write-docs", action="store_true", help="only put the committed table into docs/compare.md")
    arguments = parser.parse_args()
    if arguments.write_docs:
        write_docs()
        return
    path = cached_continuum(cache_directory())
    found = compare(
        path, arguments.methods.split(","), arguments.seeds, arguments.out,
        overrides=arguments.settings, jobs=arguments.jobs, show=lambda line: print(line, flush=True),
    )  # fmt: skip
    machine = {"cores": cores(), "machine": platform.machine(), "settings": arguments.settings}
    result = {**machine, **found.result, "verdict": verdict_over_seeds(found.table)}
    arguments.results.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(finite(result), indent=1, ensure_ascii=False)
    arguments.results.write_text(text + "\n", encoding="utf-8")
    print(markdown(json.loads(text)))


if __name__ == "__main__":
    main()
