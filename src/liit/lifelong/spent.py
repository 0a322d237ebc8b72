"""What a stage that was cut off had taken: kept beside the run, so that costs are those of all sittings together."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

FILE = "spent.json"
NOTED_EVERY = 5.0
"""Seconds; a kill loses at most so much of the account."""


class Spent:
    """The account of one stage: seconds and floating-point operations, earlier sittings included.

    Work that was lost with a sitting and is done again counts as often as it is done. The file is no result: when it
    cannot be written or read, costs are those of this sitting.

    Args:
        run: the run directory.
        step: number of the step.
        stage: name of the stage.
    """

    def __init__(self, run: Path, step: int, stage: str) -> None:
        self._file, self._of = run / FILE, {"step": step, "stage": stage}
        earlier = _read(self._file)
        same = all(earlier.get(key) == value for key, value in self._of.items())
        self._seconds: float = earlier["seconds"] if same else 0.0
        self._flops: int = earlier["flops"] if same else 0
        self._start = self._noted = time.perf_counter()

    def total(self, flops: int) -> tuple[float, int]:
        """Seconds and operations so far, when this sitting has done so many operations."""
        return self._seconds + time.perf_counter() - self._start, self._flops + flops

    def note(self, flops: int, *, at_once: bool = False) -> None:
        """Write down what was taken so far, unless that was done a moment ago."""
        now = time.perf_counter()
        if now - self._noted < NOTED_EVERY and not at_once:
            return
        self._noted = now
        seconds, operations = self.total(flops)
        entry = {**self._of, "seconds": round(seconds, 3), "flops": operations}
        with suppress(OSError):
            self._file.write_text(json.dumps(entry) + "\n", encoding="utf-8")


def forget_spent(run: Path) -> None:
    """Remove the account; its stage is complete."""
    (run / FILE).unlink(missing_ok=True)


def spent_on(run: Path) -> tuple[int, str] | None:
    """Step and stage that the account is of, if there is one."""
    entry = _read(run / FILE)
    return (entry["step"], entry["stage"]) if entry else None


def _read(file: Path) -> dict[str, Any]:
    with suppress(OSError, ValueError):
        entry = json.loads(file.read_text(encoding="utf-8"))
        if isinstance(entry, dict) and {"step", "stage", "seconds", "flops"} <= set(entry):
            return dict(entry)
    return {}
