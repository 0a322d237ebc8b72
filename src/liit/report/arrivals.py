"""The data page: what each step brought, what was set aside and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
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
class Leak:
    """One skill of which evaluation data is in the pool: of its rows and different images, how many."""

    skill: str
    rows: int
    leaked_rows: int
    images: int
    leaked_images: int


@dataclass(frozen=True)
class LeakExample:
    """A row or an image that is in both: what, the skill, and the ids of the evaluation and the training sample."""

    what: str
    skill: str
    evaluation: str
    training: str
    source: str


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
    leaks: list[Leak]
    leak_examples: list[LeakExample]

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
    last = next(step.ingest for step in reversed(run.steps) if step.ingest is not None)
    return Arrivals(run.label, steps, reasons.most_common(), _examples(pool), *_leaks(last.get("leaks") or {}))


def _leaks(found: Mapping[str, Any]) -> tuple[list[Leak], list[LeakExample]]:
    """What `ingest.json` says about leaks; runs of older versions say nothing more than the two numbers."""
    skills = [
        Leak(shortened(str(skill)), *(int(counts[name]) for name in ("rows", "leaked_rows", "images", "leaked_images")))
        for skill, counts in sorted((found.get("by_skill") or {}).items())
    ]
    names = ("what", "skill", "evaluation", "training", "source")
    examples = [LeakExample(*(shortened(str(row[name])) for name in names)) for row in found.get("examples") or ()]
    return skills, examples[:_EXAMPLES]


def _examples(pool: Any) -> list[SetAside]:
    if pool is None:
        return []
    columns = ["source", "line", "id", "reason"]
    rows = pool.quarantine().select(columns).slice(0, _EXAMPLES).to_pylist()
    return [SetAside(*(shortened(str(row[name] if row[name] is not None else "")) for name in columns)) for row in rows]
