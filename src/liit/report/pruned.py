"""What left the pool for good, each beside the sample that stays for it."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import Any

from liit.report.model import Run, Step
from liit.report.thumbnails import Card, Gallery, take

_PAIRS_LAST, _PAIRS_EARLIER = 8, 4


@dataclass(frozen=True)
class Pair:
    """A pruned sample, its most similar neighbour, and their cosine similarity."""

    pruned: Card
    neighbour: Card
    similarity: float
    neighbour_pruned_too: bool


@dataclass(frozen=True)
class StepPruned:
    """What one step pruned."""

    number: int
    name: str
    before: int | None
    count: int
    sources: list[tuple[str, int]]
    pairs: list[Pair]
    is_last: bool

    @property
    def after(self) -> int | None:
        """Samples left."""
        return None if self.before is None else self.before - self.count


def pruned_steps(run: Run, pool: Any, gallery: Gallery) -> list[StepPruned]:
    """The steps of a run that pruned something, the last one first."""
    steps = [step for step in run.steps if step.pruned is not None and step.pruned.num_rows]
    return [_step(step, pool, gallery, is_last=step is steps[-1]) for step in reversed(steps)]


def _step(step: Step, pool: Any, gallery: Gallery, *, is_last: bool) -> StepPruned:
    rows = [] if step.pruned is None else step.pruned.to_pylist()
    gone = {row["id"] for row in rows}
    paired = [row for row in rows if row.get("neighbour") is not None and _is_number(row.get("similarity"))]
    paired.sort(key=lambda row: (-row["similarity"], row["id"]))
    shown = _spread(paired, _PAIRS_LAST if is_last else _PAIRS_EARLIER)
    samples = take(pool, step.pool_version, [row[side] for row in shown for side in ("id", "neighbour")])
    pairs = [
        Pair(
            pruned=gallery.card(samples[row["id"]]),
            neighbour=gallery.card(samples[row["neighbour"]]),
            similarity=row["similarity"],
            neighbour_pruned_too=row["neighbour"] in gone,
        )
        for row in shown
        if samples
    ]
    sources = Counter(step.pool[key][0] for key in gone if key in step.pool)
    return StepPruned(step.number, step.name, step.pool_size, len(rows), sources.most_common(6), pairs, is_last)


def _spread(rows: list[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    """Evenly spaced from the most to the least similar: the last pairs show how far pruning had to go."""
    if len(rows) <= count:
        return rows
    return [rows[round(i * (len(rows) - 1) / (count - 1))] for i in range(count)]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not math.isnan(value)
