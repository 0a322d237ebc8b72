"""How every skill is measured: metric, options, version of its questions, and facts about all its rows together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from liit.report.model import Run


@dataclass(frozen=True)
class Measure:
    """One skill.

    Attributes:
        skill: its name.
        metric: with its options.
        version: of the questions, as their task file gives it; "" without one.
        rows: number of questions.
        facts: the last evaluation's numbers that are no mean over rows, by run, such as corpus chrF.
    """

    skill: str
    metric: str
    version: str
    rows: int
    facts: str


def how_measured(runs: Sequence[Run]) -> list[Measure]:
    """Every skill that some run was evaluated on, in the continuum's order."""
    found = []
    for skill in runs[0].continuum.skills:
        entries = [(run, entry) for run in runs if (entry := _last(run, skill)) is not None]
        if entries:
            first = entries[0][1]
            facts = [f"{run.label}: {text}" for run, entry in entries if (text := _facts(entry))]
            found.append(
                Measure(
                    skill,
                    _metric(first),
                    str(first.get("version", "")),
                    int(first.get("n", 0)),
                    facts[0].partition(": ")[2] if len(runs) == 1 and facts else "; ".join(facts),
                )
            )
    return found


def _last(run: Run, skill: str) -> Mapping[str, Any] | None:
    for step in reversed(run.steps):
        if step.evaluation is not None and skill in step.evaluation:
            return step.evaluation[skill]
    return None


def _metric(entry: Mapping[str, Any]) -> str:
    options = ", ".join(f"{name} {value}" for name, value in entry.get("options", {}).items())
    return f"{entry.get('metric', '?')} ({options})" if options else str(entry.get("metric", "?"))


def _facts(entry: Mapping[str, Any]) -> str:
    numbers = {name: value for name, value in entry.get("facts", {}).items() if isinstance(value, int | float)}
    return ", ".join(f"{name.replace('_', ' ')} {value:.1f}" for name, value in numbers.items())
