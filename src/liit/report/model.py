"""What the report knows about a run: plain data, read once from a run directory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

STAGES = ("ingest", "extract", "select", "train", "evaluate", "prune")
"""The stages of a step in their order; `timings.jsonl` names them so."""


@dataclass(frozen=True)
class Outline:
    """What the runs have in common: the steps and the skills each one introduces."""

    name: str
    steps: tuple[str, ...]
    skills: tuple[str, ...]
    introduced: NDArray[np.int64]
    """[S] step (1 to T) that introduces a skill, 0 for skills no step teaches."""


@dataclass(frozen=True)
class Selection:
    """What one step trained on, and why."""

    table: pa.Table
    """One row per selected sample: id, row, cluster, expert, score, rank, reason, source, skill."""
    info: Mapping[str, Any]
    labels: Mapping[str, int] | None
    """Cluster of every pool sample; None for methods without clusters."""


@dataclass(frozen=True)
class Step:
    """One step of a run, as far as it got; what is missing is None."""

    number: int
    name: str
    ingest: Mapping[str, Any] | None = None
    extract: Mapping[str, Any] | None = None
    """The extraction's facts in run.json."""
    selection: Selection | None = None
    train: Mapping[str, Any] | None = None
    prune: Mapping[str, Any] | None = None
    pruned: pa.Table | None = None
    evaluation: Mapping[str, Mapping[str, Any]] | None = None
    pool: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """id -> (source, skill) of the pool the step selected from."""

    @property
    def pool_size(self) -> int | None:
        """Samples in the pool when the step selected."""
        if self.ingest is not None and "pool_size" in self.ingest:
            return int(self.ingest["pool_size"])
        return len(self.pool) or None

    @property
    def pool_version(self) -> int | None:
        """Version of the pool the step selected from."""
        return None if self.ingest is None else self.ingest.get("pool_version")


@dataclass(frozen=True)
class Run:
    """One run directory."""

    path: Path
    label: str
    method: str
    seed: int
    version: str
    config: Mapping[str, Any]
    continuum: Outline
    steps: tuple[Step, ...]
    """Steps 1 to T."""
    scores: NDArray[np.float64]
    """[T + 1, S] accuracy matrix, base model first; NaN where not evaluated."""
    final_rows: Mapping[str, Mapping[str, float]]
    """skill -> id -> score of the rows of the final evaluation; empty while the run is not finished."""
    seconds: Mapping[str, float]
    """stage -> seconds, summed over steps."""
    flops: Mapping[str, float]
    """stage -> operations, summed over steps, of the stages that count them; NaN where one of them has not."""
    wrong_format: Mapping[str, tuple[int, int]]
    """skill -> (answers of the wrong form, rows) of the final evaluation."""

    @property
    def finished(self) -> bool:
        """Whether the last step was evaluated on every skill taught."""
        return bool(not np.isnan(self.scores[-1, self.continuum.introduced > 0]).any())

    @property
    def final_pool_size(self) -> int | None:
        """Samples left in the pool after the last step and its pruning."""
        for step in reversed(self.steps):
            if step.pool_size is not None:
                return step.pool_size - (0 if step.pruned is None else step.pruned.num_rows)
        return None


def ingested_skills(runs: tuple[Run, ...]) -> Counter[str]:
    """How many samples of each skill ever were in a pool, over all runs and steps, pruned ones included."""
    skill_of = {key: skill for run in runs for step in run.steps for key, (_, skill) in step.pool.items()}
    return Counter(skill for skill in skill_of.values() if skill)
