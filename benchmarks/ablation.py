"""Our variant of Adapt-infinity taken apart: each part alone, on the built-in continuum at several seeds.

    python benchmarks/ablation.py [--seeds 3] [--jobs N] [--out DIR]
    python benchmarks/ablation.py --write-docs       the table in docs/compare.md, from the committed JSON

`adapt-inf-embedding` differs from `adapt-inf` in what is clustered and in the experts that compete. Between and beside
the two stand the methods below. They run in the directory of benchmarks/compare.py, whose runs are taken over where
they are complete. Writes ``benchmarks/results/ablation.json``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from compare import PAGE, between, lines_of, options

from liit import compare
from liit.config import Continuum, MethodSettings, load_config
from liit.demo.continuum import cached_continuum
from liit.lifelong.rundir import finite
from liit.lifelong.workbench import cache_directory
from liit.report.seeds import COSTS, QUALITY, RETENTION

RESULTS = Path(__file__).parent / "results" / "ablation.json"
MARKS = "<!-- table of benchmarks/ablation.py -->", "<!-- end of the ablation -->"
FORWARD = ["log_perplexity", "el2n", "entropy", "image_grounding"]
"""The experts that need no backward pass."""
UNIFORM = {"experts": ["log_perplexity"], "bins": 1, "trim": 0.0}
"""One stratum and no outliers: a uniform draw within each cluster, whatever the score."""
PARTS: dict[str, tuple[str, dict[str, Any]]] = {
    "gradient-without-its-norm": ("adapt-inf", {"experts": FORWARD}),
    "embedding-clusters-only": ("adapt-inf-embedding", UNIFORM),
    "experts-only": ("adapt-inf-embedding", {"experts": FORWARD, "k": 1}),
}
WORDS = {
    "adapt-inf": "gradient clusters, all experts (the paper)",
    "gradient-without-its-norm": "gradient clusters, the experts that need no backward pass",
    "replay": "one cluster, uniform draw (`replay`)",
    "experts-only": "one cluster, the experts that need no backward pass",
    "embedding-clusters-only": "hidden-state clusters, uniform draw in each",
    "adapt-inf-embedding": "hidden-state clusters, the experts that need no backward pass (ours)",
}
COLUMNS = ("average_accuracy", "rare_accuracy", "forgetting_max", "select_flops", "train_flops")


def with_parts(continuum: Continuum) -> Continuum:
    """The continuum with a method for each part."""
    methods = {
        name: MethodSettings.model_validate({"selector": selector, "options": given})
        for name, (selector, given) in PARTS.items()
    }
    return continuum.model_copy(update={"methods": methods})


def table(result: dict[str, Any]) -> str:
    """The table as the page shows it."""
    columns = [column for column in (*QUALITY, *RETENTION, *COSTS) if column.key in COLUMNS]
    rows = {row["label"]: row for row in result["rows"]}
    named = [rows[label] | {"label": words} for label, words in WORDS.items()]
    return lines_of(named, columns, {"versus_random": "difference to random [95 %]"}, "what is in it")


def write_docs() -> None:
    """Put the committed table into the page."""
    between(MARKS, table(json.loads(RESULTS.read_text(encoding="utf-8"))), PAGE)


def main() -> None:
    parser = options(__doc__, "runs/benchmark-compare", PAGE)
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    if arguments.write_docs:
        write_docs()
        return
    continuum = with_parts(load_config(cached_continuum(cache_directory())))
    names = [name for name in WORDS if name != "replay"]
    found = compare(
        continuum, names, arguments.seeds, arguments.out, jobs=arguments.jobs, reference=False, equal_compute=False,
        show=lambda line: print(line, flush=True),
    )  # fmt: skip
    rows = [row for row in found.result["rows"] if row["label"] in WORDS]
    result = {key: found.result[key] for key in ("continuum", "seeds", "budget")} | {"rows": rows}
    text = json.dumps(finite(result), indent=1, ensure_ascii=False)
    RESULTS.write_text(text + "\n", encoding="utf-8")
    print(table(json.loads(text)))


if __name__ == "__main__":
    main()
