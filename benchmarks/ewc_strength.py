"""How strong Elastic Weight Consolidation should hold: average accuracy on development rows, by strength.

    python benchmarks/ewc_strength.py [--strengths 1,100,1000,1e4,1e6] [--jobs N] [--out DIR]
    python benchmarks/ewc_strength.py --write-docs     the table in docs/training.md, from the committed JSON

The first three steps of the built-in continuum are evaluated on their development rows instead of their evaluation
rows, so that the default comes from steps and rows that no result is reported on. `sequential`, which is `ewc` without
a penalty, and random replay stand beside it. One seed; about ten minutes on two cores. Writes
``benchmarks/results/ewc_strength.json``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from compare import between, options

from liit import compare
from liit.config import Continuum, MethodSettings, load_config
from liit.demo.continuum import cached_continuum
from liit.lifelong.workbench import cache_directory

RESULTS = Path(__file__).parent / "results" / "ewc_strength.json"
PAGE = Path(__file__).parents[1] / "docs" / "training.md"
MARKS = "<!-- table of benchmarks/ewc_strength.py -->", "<!-- end of the table -->"
PREFIX = "ewc-"
STEPS = 3


def on_development_rows(continuum: Continuum) -> Continuum:
    """The continuum's first steps with its development rows in the place of its evaluation rows."""
    steps = []
    for step in continuum.steps[:STEPS]:
        rows = {dev.skill: dev for dev in step.dev}
        tasks = [
            task.model_copy(update={"path": rows[task.skill].path, "images": rows[task.skill].images})
            for task in step.evaluation
        ]
        steps.append(step.model_copy(update={"evaluation": tuple(tasks), "dev": ()}))
    return continuum.model_copy(update={"steps": tuple(steps)})


def with_strengths(continuum: Continuum, strengths: list[str]) -> Continuum:
    """The continuum with a method for each strength."""
    methods = {
        PREFIX + strength: MethodSettings.model_validate(
            {
                "selector": "random",
                "new_only": True,
                "hooks": ({"name": "ewc", "options": {"strength": float(strength)}},),
            }
        )
        for strength in strengths
    }
    return continuum.model_copy(update={"methods": methods})


def table(result: dict[str, Any]) -> str:
    """The table as the page shows it."""
    lines = ["| λ | average accuracy | forgetting (max) |", "|---|---|---|"]
    lines += [
        f"| {row['strength']} | {row['average_accuracy']:.3f} | {row['forgetting_max']:.1f} % |"
        for row in result["rows"]
    ]
    return "\n".join(lines)


def write_docs() -> None:
    """Put the committed table into the page."""
    between(MARKS, table(json.loads(RESULTS.read_text(encoding="utf-8"))), PAGE)


def main() -> None:
    parser = options(__doc__, "runs/benchmark-ewc", PAGE)
    parser.add_argument("--strengths", default="1,100,1000,1e4,1e6")
    arguments = parser.parse_args()
    if arguments.write_docs:
        write_docs()
        return
    strengths = arguments.strengths.split(",")
    continuum = load_config(cached_continuum(cache_directory()))
    continuum = with_strengths(on_development_rows(continuum), strengths)
    names = ["sequential", *(PREFIX + strength for strength in strengths)]
    found = compare(
        continuum, names, 1, arguments.out, jobs=arguments.jobs, reference=False, equal_compute=False,
        show=lambda line: print(line, flush=True),
    )  # fmt: skip
    measured = {row["label"]: row for row in found.result["rows"]}
    shown = {"0 (`sequential`)": "sequential"} | {strength: PREFIX + strength for strength in strengths}
    shown["random replay beside it"] = "replay"
    rows = [
        {"strength": title, **{key: measured[name][key] for key in ("average_accuracy", "forgetting_max")}}
        for title, name in shown.items()
    ]
    result = {"continuum": continuum.name, "seeds": found.result["seeds"], "budget": continuum.budget}
    result |= {"steps": [step.name for step in continuum.steps], "rows": rows}
    RESULTS.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(table(result))


if __name__ == "__main__":
    main()
