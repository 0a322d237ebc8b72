"""Run the demo from an empty directory and keep its table: the numbers in the README.

    python benchmarks/demo.py [--out runs/benchmark-demo] [--seed 0]

Writes ``benchmarks/results/demo.json`` and prints the table as Markdown. Everything but the seconds is repeatable on
one machine and thread count.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
from pathlib import Path

from liit.demo.continuum import cached_continuum
from liit.demo.run import METHODS, run_demo
from liit.lifelong.parallel import cores
from liit.lifelong.workbench import cache_directory
from liit.report import summary_table, to_json

RESULTS = Path(__file__).parent / "results" / "demo.json"
SHOWN = {
    "average_accuracy": ("average accuracy", "{:.3f}"),
    "relative_gain": ("relative gain", "{:.1f} %"),
    "forgetting_max": ("forgetting", "{:.1f} %"),
    "rare_accuracy": ("rare-skill accuracy", "{:.3f}"),
    "select_seconds": ("selection", "{:.0f} s"),
    "train_seconds": ("training", "{:.0f} s"),
}


def markdown(rows: list[dict[str, object]]) -> str:
    """The comparison as a Markdown table, as the README shows it."""
    lines = ["| method | " + " | ".join(title for title, _ in SHOWN.values()) + " |"]
    lines.append("|---" * (len(SHOWN) + 1) + "|")
    for row in rows:
        cells = [
            "–" if not isinstance(value := row.get(key), int | float) or value != value else pattern.format(value)
            for key, (_, pattern) in SHOWN.items()
        ]
        lines.append(f"| {row['method']} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def reachable(reference: Path) -> dict[str, float]:
    """What joint training on all data reaches, skill by skill."""
    last = sorted((reference / "steps").glob("*/evaluation.json"))[-1]
    skills = json.loads(last.read_text(encoding="utf-8"))["skills"]
    return {name: skill["score"] for name, skill in skills.items()}


def blind(seed: int) -> dict[str, float]:
    """What the most frequent training answer to the same question scores, skill by skill, without a picture."""
    manifest = cached_continuum(cache_directory(), seed).parent / "manifest.json"
    skills = json.loads(manifest.read_text(encoding="utf-8"))["skills"]
    return {name: skill["blind"] for name, skill in skills.items() if skill["blind"] is not None}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("runs/benchmark-demo"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--methods", default=",".join(METHODS))
    arguments = parser.parse_args()
    shutil.rmtree(arguments.out, ignore_errors=True)
    result = run_demo(arguments.out, methods=arguments.methods.split(","), seed=arguments.seed)
    rows = json.loads(to_json(summary_table(result.runs, result.reference)))
    RESULTS.parent.mkdir(exist_ok=True)
    facts = {"cores": cores(), "machine": platform.machine(), "seed": arguments.seed, "seconds": result.seconds}
    results = {**facts, "rows": rows, "reachable": reachable(result.reference), "blind": blind(arguments.seed)}
    RESULTS.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    print(markdown(rows))


if __name__ == "__main__":
    main()
