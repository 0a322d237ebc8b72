"""Memory of an extraction, shard by shard: what the process holds itself, and what it has mapped from files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from extraction_speed import DIM, EVERYTHING, SEED, WORK, clear_scratch, liit_extraction, official
from extraction_subjects import SUBJECTS, Subject
from official_extraction import CachedRademacher

from liit.features.extraction import SHARD_ROWS
from liit.model.vision import VisionCache

OFFICIAL_ROWS, SHARDS = 16, 8


def run_memory(subject: Subject, rows: int, rounds: int) -> dict[str, Any]:
    """Resident memory above what the loaded model and samples take, each procedure in a process of its own.

    Allocators keep their default settings there, whatever the environment says.
    """
    del rounds
    name = subject.facts["name"]
    shard_rows = min(SHARD_ROWS, max(1, rows // SHARDS))
    shards = _in_a_child("liit", name, rows, shard_rows)
    return {
        "rows": rows,
        "shard_rows": shard_rows,
        "shards": shards,
        "worst_mb": max(shard["peak_mb"] for shard in shards),
        "growth_mb_per_1024": growth(shards, shard_rows),
        "official_mb": _in_a_child("official", name, min(OFFICIAL_ROWS, rows), shard_rows)[0]["peak_mb"],
        "dense_matrix_mb": round(subject.facts["gradient_length"] * DIM * 4 / 2**20, 1),
    }


def growth(shards: list[dict[str, float]], shard_rows: int) -> float:
    """MiB by which resident memory grows for 1024 rows: a line through the later half of the shards.

    In the earlier half the allocators and table libraries fill their reserves, which they then keep.
    """
    later = [shard["own_mb"] + shard["mapped_mb"] for shard in shards[(len(shards) - 1) // 2 :]]
    slope = np.polyfit(np.arange(len(later)), later, 1)[0] if len(later) > 1 else 0.0
    return round(float(slope) * 1024 / shard_rows, 2)


def _in_a_child(method: str, model: str, rows: int, shard_rows: int) -> list[dict[str, float]]:
    command = [sys.executable, __file__, method, model, str(rows), str(shard_rows)]
    plain = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=plain)
    found: list[dict[str, float]] = json.loads(done.stdout.splitlines()[-1])
    return found


class Meter:
    """Follows the resident memory of this process, in MiB above what it is when the meter is made.

    Args:
        shard_rows: rows after which a new entry of `shards` begins.
    """

    def __init__(self, shard_rows: int) -> None:
        self.shard_rows, self.rows = shard_rows, 0
        self.shards: list[dict[str, float]] = []
        self._base = {name: resident(name) for name in ("RssAnon", "RssFile", "VmRSS")}
        self.begin()

    def begin(self) -> None:
        """Begin the shard anew; what was resident before counts, as far as it still is."""
        self._own = self._mapped = 0.0
        Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far

    def look(self, rows: int) -> None:
        """Measure after some more rows; a batch is never part of two shards."""
        self.rows += rows
        self._own = max(self._own, resident("RssAnon") - self._base["RssAnon"])
        self._mapped = max(self._mapped, resident("RssFile") - self._base["RssFile"])
        if self.rows >= (len(self.shards) + 1) * self.shard_rows:
            self.finish()

    def finish(self) -> None:
        """End a shard."""
        figures = {"own_mb": self._own, "mapped_mb": self._mapped, "peak_mb": resident("VmHWM") - self._base["VmRSS"]}
        self.shards.append({name: round(value, 1) for name, value in figures.items()})
        self.begin()


def resident(key: str) -> float:
    """MiB of this process that ``/proc/self/status`` gives under a name."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key)) / 1024


def memory_case(method: str, model: str, rows: int, shard_rows: int) -> list[dict[str, float]]:
    """What one extraction holds, shard by shard, above the process with its libraries, the model and the samples."""
    import lance  # noqa: F401 (a library, not a use of memory that grows)

    torch.set_num_threads(1)
    WORK.mkdir(parents=True, exist_ok=True)
    subject = SUBJECTS[model](WORK)
    samples = subject.samples(rows)
    vision = VisionCache(subject.vlm, Path(tempfile.mkdtemp(dir=WORK)))
    meter = Meter(shard_rows)
    if method == "liit":
        first = VisionCache(subject.vlm, Path(tempfile.mkdtemp(dir=WORK)))
        liit_extraction(subject, samples[:4], EVERYTHING, first)  # what is touched once is no growth
        meter.begin()
        liit_extraction(subject, samples, EVERYTHING, vision, progress=meter.look)
    else:
        official(subject, samples, CachedRademacher(subject.facts["gradient_length"], DIM, SEED))
        meter.finish()
    return meter.shards


if __name__ == "__main__":
    print(json.dumps(memory_case(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))))
    clear_scratch()
