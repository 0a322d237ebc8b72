"""One-pass extraction against the official procedure: speed, memory, equality, fidelity of the sketch, work not done.

    python benchmarks/extraction.py --part features --model demo       one part; what it measured goes into the JSON
    python benchmarks/extraction.py --all                              every part of the table, each in its own process
    python benchmarks/extraction.py --part wall --model demo           wall time on 2 threads; wants an idle machine
    python benchmarks/extraction.py --write-docs                       the JSON's numbers into the documentation

Times are CPU seconds of one thread (`time.process_time`), both procedures in one process, in turn, median of rounds;
only ratios are claimed. The batch size is liit's default token budget, not tuned to any model here; the official
procedure takes one sample at a time by its nature. Both start from samples and end with files on disk: tokenising,
opening images and writing count on both sides. Before anything is timed, both must agree.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from extraction_limits import run_arithmetic, run_counts, run_fidelity, run_scaling
from extraction_memory import run_memory
from extraction_speed import WORK, clear_scratch, run_features, run_sketch, run_wall
from extraction_subjects import SUBJECTS, Subject
from extraction_table import write_page

RESULTS = Path(__file__).parent / "results" / "extraction.json"
PARTS: dict[str, Callable[[Subject, int, int], dict[str, Any]]] = {
    "features": run_features,
    "sketch": run_sketch,
    "wall": run_wall,
    "memory": run_memory,
    "scaling": run_scaling,
    "fidelity": run_fidelity,
    "counts": run_counts,
    "arithmetic": run_arithmetic,
}
ROWS = {"demo": 96, "middle": 48, "large": 48, "toy": 6}
OTHER_ROWS = {"memory": 8192, "scaling": 1024, "fidelity": 256, "counts": 96}
TABLE_PARTS = (
    ("features", "demo"),
    ("features", "middle"),
    ("features", "large"),
    ("sketch", "demo"),
    ("sketch", "middle"),
    ("sketch", "large"),
    ("arithmetic", "demo"),
    ("arithmetic", "middle"),
    ("arithmetic", "large"),
    ("memory", "middle"),
    ("scaling", "demo"),
    ("fidelity", "demo"),
    ("counts", "demo"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--part", choices=sorted(PARTS))
    parser.add_argument("--model", choices=sorted(SUBJECTS), default="demo")
    parser.add_argument("--rows", type=int, help="samples; the default is small enough for minutes")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--all", action="store_true", help="every part of the table, one process each")
    parser.add_argument("--write-docs", action="store_true", help="put the table into docs/extraction-benchmark.md")
    chosen = parser.parse_args()
    if chosen.write_docs:
        write_page(json.loads(RESULTS.read_text()))
        return
    if chosen.all:
        for part, model in TABLE_PARTS:
            subprocess.run([sys.executable, __file__, "--part", part, "--model", model], check=True)
        return
    if chosen.part is None:
        parser.error("name a --part, or --all, or --write-docs")
    rows = chosen.rows or OTHER_ROWS.get(chosen.part, ROWS[chosen.model])
    measure(chosen.part, chosen.model, rows, chosen.rounds, None if chosen.model == "toy" else RESULTS)


def measure(part: str, model: str, rows: int, rounds: int, results: Path | None = RESULTS) -> dict[str, Any]:
    """Measure one part and put it into a JSON file; ``None`` keeps it nowhere."""
    from liit.model.quiet import quiet_libraries

    quiet_libraries()
    torch.set_num_threads(1)
    WORK.mkdir(parents=True, exist_ok=True)
    clear_scratch()
    subject = SUBJECTS[model](WORK)
    before = _jiffies()
    found = PARTS[part](subject, rows, rounds)
    clear_scratch()
    found |= {"model": subject.facts, "threads": torch.get_num_threads(), "others": _others_since(before)}
    if results is not None:
        _keep(results, f"{part}/{model}", found)
    print(json.dumps({f"{part}/{model}": found}, indent=1))
    return found


def _keep(results: Path, name: str, found: dict[str, Any]) -> None:
    known = json.loads(results.read_text()) if results.exists() else {}
    parts = {**known.get("parts", {}), name: found}
    environment = {"machine": platform.machine(), "cores": os.cpu_count(), "torch": torch.__version__}
    results.parent.mkdir(exist_ok=True)
    results.write_text(json.dumps({"environment": environment, "parts": dict(sorted(parts.items()))}, indent=1) + "\n")


def _jiffies() -> tuple[float, float, float]:
    """Busy CPU seconds of the machine, CPU seconds of this process and its children, wall time."""
    fields = [int(x) for x in Path("/proc/stat").read_text().splitlines()[0].split()[1:]]
    idle = fields[3] + fields[4]
    busy = (sum(fields[:8]) - idle) / os.sysconf("SC_CLK_TCK")
    own = os.times()
    return busy, own.user + own.system + own.children_user + own.children_system, time.perf_counter()


def _others_since(before: tuple[float, float, float]) -> float:
    """Cores that other processes kept busy meanwhile, on average."""
    busy, own, wall = (now - then for now, then in zip(_jiffies(), before, strict=True))
    return round(max(0.0, (busy - own) / wall), 2)


if __name__ == "__main__":
    main()
