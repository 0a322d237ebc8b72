"""The data page: what each step brought, what was set aside and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from liit.report.model import Run
from liit.report.thumbnails import shortened

_EXAMPLES = 12


@dataclass(frozen=True)
class Arrival:
    """One step's ingest counts; the same for every run of a continuum except the pool's size.

    `refused` samples are in the pool but do not fit the model; `leaked` counts evaluation rows and images that are also
    in the pool.
    """

    number: int
    name: str
    added: int
    quarantined: int
    duplicates: int
    pool_size: int
    refused: int
    leaked_rows: int
    leaked_images: int


@dataclass(frozen=True)
class SetAside:
    """One quarantined row."""

    source: str
    line: str
    id: str
    reason: str


@dataclass(frozen=True)
class Arrivals:
    """All that was ingested, as seen by one run."""

    run: str
    steps: list[Arrival]
    reasons: list[tuple[str, int]]
    examples: list[SetAside]

    @property
    def quarantined(self) -> int:
        """Rows set aside, all steps."""
        return sum(step.quarantined for step in self.steps)

    @property
    def refused(self) -> int:
        """Samples that do not fit the model, all steps."""
        return sum(step.refused for step in self.steps)

    @property
    def leaked(self) -> tuple[int, int]:
        """Evaluation rows and images that are also in the pool at the last step."""
        return self.steps[-1].leaked_rows, self.steps[-1].leaked_images


def arrivals(runs: Sequence[Run], pools: Sequence[Any]) -> Arrivals | None:
    """The ingest of the run that got furthest; None when nothing was ingested yet.

    Args:
        runs: the runs.
        pools: their pools, None where there is none.
    """
    counted = [sum(step.ingest is not None for step in run.steps) for run in runs]
    if not any(counted):
        return None
    position = max(range(len(runs)), key=lambda i: counted[i])
    run, pool = runs[position], pools[position]
    steps, reasons = [], Counter[str]()
    for step in run.steps:
        if step.ingest is None:
            continue
        added, quarantined, duplicates = (int(step.ingest.get(k, 0)) for k in ("added", "quarantined", "duplicates"))
        steps.append(
            Arrival(
                number=step.number,
                name=step.name,
                added=added,
                quarantined=quarantined,
                duplicates=duplicates,
                pool_size=step.pool_size or 0,
                refused=len(step.ingest.get("refused") or ()),
                leaked_rows=int(step.ingest.get("leaked_rows", 0)),
                leaked_images=int(step.ingest.get("leaked_images", 0)),
            )
        )
        reasons.update({str(reason): int(count) for reason, count in (step.ingest.get("reasons") or {}).items()})
    return Arrivals(run.label, steps, reasons.most_common(), _examples(pool))


def _examples(pool: Any) -> list[SetAside]:
    if pool is None:
        return []
    columns = ["source", "line", "id", "reason"]
    rows = pool.quarantine().select(columns).slice(0, _EXAMPLES).to_pylist()
    return [SetAside(*(shortened(str(row[name] if row[name] is not None else "")) for name in columns)) for row in rows]
