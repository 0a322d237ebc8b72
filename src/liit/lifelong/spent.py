"""What a stage that was cut off had taken: kept on disk, so that costs are those of all sittings together."""

from __future__ import annotations

import json
import math
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

FILE = "spent.json"
"""In the run directory."""
NOTED_EVERY = 5.0
"""Seconds between two notes, at least."""


class Spent:
    """The account of one stage: seconds and floating-point operations, earlier sittings included.

    It is written down when a stage reports progress and when it ends, however it ends; what a kill takes away is what
    came after the last note. Work that was lost with a sitting and is done again counts as often as it is done. The
    file is no result: when it cannot be written or read, costs are those of this sitting.

    Args:
        file: where the account is kept.
        step: number of the step.
        stage: name of the stage.
    """

    def __init__(self, file: Path, step: int, stage: str) -> None:
        self._file, self._of = file, {"step": step, "stage": stage}
        earlier = _read(file)
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
        part = _part(self._file)
        with suppress(OSError):
            part.write_text(json.dumps(entry) + "\n", encoding="utf-8")
            part.replace(self._file)


def forget_spent(file: Path) -> None:
    """Remove an account; its stage is complete."""
    with suppress(OSError):
        file.unlink(missing_ok=True)
        _part(file).unlink(missing_ok=True)


def spent_on(file: Path) -> tuple[int, str] | None:
    """Step and stage that an account is of, if there is one."""
    entry = _read(file)
    return (entry["step"], entry["stage"]) if entry else None


def _part(file: Path) -> Path:
    return file.with_name(file.name + ".part")


def _read(file: Path) -> dict[str, Any]:
    """The account as it was written; empty when there is none, or what is there is none."""
    try:
        entry = json.loads(file.read_text(encoding="utf-8"))
        counts = isinstance(entry["step"], int) and isinstance(entry["stage"], str) and isinstance(entry["flops"], int)
        whole = counts and entry["flops"] >= 0 and math.isfinite(entry["seconds"]) and entry["seconds"] >= 0
    except (OSError, ValueError, TypeError, KeyError):
        return {}
    return dict(entry) if whole else {}
