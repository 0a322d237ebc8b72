"""What was trained on: the selection's make-up beside the pool's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from liit.report.model import Run, Step, ingested_skills
from liit.report.summary import RARE_SHARE, rare_skills

_COLOURS = 9
OTHER, RARE = "other", "rare skills"


@dataclass(frozen=True)
class Segment:
    """One part of a stacked bar."""

    name: str
    css: str
    count: float
    percent: float


@dataclass(frozen=True)
class Bar:
    """One stacked bar; `label` says whose it is, `total` how many samples (or seconds) it stands for."""

    label: str
    total: float
    segments: list[Segment]
    width: float = 100.0


@dataclass(frozen=True)
class Chart:
    """Stacked bars that share their colours."""

    title: str
    legend: list[tuple[str, str]]
    bars: list[Bar]


@dataclass(frozen=True)
class Lift:
    """How much more often a selection holds a skill than its pool: ratio of shares; None when the pool has none."""

    share: float
    ratio: float | None
    css: str


@dataclass(frozen=True)
class LiftTable:
    """Rows: skill, whether rare, samples in the largest pool, share of it, one lift per run."""

    runs: list[str]
    rows: list[tuple[str, bool, int, float, list[Lift]]]
    step: str


def last_step_charts(runs: Sequence[Run], palette: Mapping[str, Mapping[str, str]]) -> list[Chart]:
    """At the last step: the pool's make-up, then every run's selection, by source and by skill."""
    chosen = [(run, _last_with_selection(run)) for run in runs]
    shown = [(run, step) for run, step in chosen if step is not None and step.pool]
    if not shown:
        return []
    largest = max((step for _, step in shown), key=lambda step: len(step.pool))
    charts = []
    for title, index in (("By source", 0), ("By skill", 1)):
        colours = palette["source" if index == 0 else "skill"]
        bars = [_bar("pool", _counts(largest.pool, index), colours)]
        for run, step in shown:
            bars.append(_bar(run.label, _selected(step, index), colours))
        charts.append(Chart(title, _legend(bars), bars))
    return charts


def step_charts(run: Run, palette: Mapping[str, Mapping[str, str]]) -> list[Chart]:
    """For every step of a run: the pool and the selection, one chart by source and one by skill."""
    charts = []
    for title, index in (("By source", 0), ("By skill", 1)):
        colours = palette["source" if index == 0 else "skill"]
        bars = []
        for step in run.steps:
            if step.selection is None or not step.pool:
                continue
            bars.append(_bar(f"{step.number} {step.name}: pool", _counts(step.pool, index), colours))
            bars.append(_bar("trained on", _selected(step, index), colours))
        if bars:
            charts.append(Chart(title, _legend(bars), bars))
    return charts


def lift_table(runs: Sequence[Run]) -> LiftTable | None:
    """At the last step, skill by skill: the share of the pool, and how each run's selection differs from its pool."""
    shown = [(run, step) for run in runs if (step := _last_with_selection(run)) is not None and step.pool]
    if not shown:
        return None
    largest = max((step for _, step in shown), key=lambda step: len(step.pool))
    pool = _counts(largest.pool, 1)
    rare = set(rare_skills(tuple(runs)))
    rows = []
    for skill, count in sorted(pool.items(), key=lambda item: (-item[1], item[0])):
        lifts = [_lift(_counts(step.pool, 1), _selected(step, 1), skill) for _, step in shown]
        rows.append((skill or "(unlabelled)", skill in rare, count, 100 * count / pool.total(), lifts))
    return LiftTable([run.label for run, _ in shown], rows, f"{largest.number} {largest.name}")


def palette(runs: Sequence[Run]) -> dict[str, dict[str, str]]:
    """The colour class of every source and skill, the same all over the page.

    The most frequent ones have a colour each; the rare skills share one, and everything else is grey.
    """
    by_source: Counter[str] = Counter()
    for run in runs:
        for step in run.steps:
            for source, count in _counts(step.pool, 0).items():
                by_source[source] = max(by_source[source], count)
    rare = rare_skills(tuple(runs))
    common = [skill for skill, _ in ingested_skills(tuple(runs)).most_common() if skill not in rare]
    sources = {name: f"c{i}" for i, (name, _) in enumerate(by_source.most_common(_COLOURS))}
    skills = {name: f"c{i}" for i, name in enumerate(common[:_COLOURS])}
    return {"source": sources, "skill": skills | dict.fromkeys(rare, "rare")}


def time_bars(runs: Sequence[Run], stages: Sequence[str]) -> Chart | None:
    """Seconds per stage, one bar per run, all on one scale."""
    timed = [run for run in runs if run.seconds]
    if not timed:
        return None
    known = [*stages, *sorted({stage for run in timed for stage in run.seconds} - set(stages))]
    colours = {stage: f"c{i}" if i < _COLOURS else "other" for i, stage in enumerate(known)}
    longest = max(sum(run.seconds.values()) for run in timed)
    bars = []
    for run in timed:
        counts = {stage: run.seconds[stage] for stage in known if run.seconds.get(stage)}
        total = sum(counts.values())
        width = 100 * total / longest if longest else 0.0
        bars.append(Bar(run.label, total, _segments(counts, colours), width))
    return Chart("Seconds per stage", _legend(bars), bars)


def _last_with_selection(run: Run) -> Step | None:
    return next((step for step in reversed(run.steps) if step.selection is not None), None)


def _counts(pool: Mapping[str, tuple[str, str]], index: int) -> Counter[str]:
    return Counter(entry[index] for entry in pool.values())


def _selected(step: Step, index: int) -> Counter[str]:
    if step.selection is None:
        return Counter()
    column = ("source", "skill")[index]
    table = step.selection.table
    if column in table.column_names:
        return Counter(value or "" for value in table[column].to_pylist())
    return Counter(step.pool[key][index] for key in table["id"].to_pylist() if key in step.pool)


def _bar(label: str, counts: Counter[str], colours: Mapping[str, str]) -> Bar:
    merged: Counter[str] = Counter()
    css = {OTHER: "other", RARE: "rare"}
    for name, count in counts.items():
        own = colours.get(name)
        shown = RARE if own == "rare" else OTHER if own is None else name or "(unlabelled)"
        css.setdefault(shown, own or "other")
        merged[shown] += count
    order = {name or "(unlabelled)": i for i, name in enumerate(colours)} | {
        RARE: len(colours) + 1,
        OTHER: len(colours),
    }
    ordered = {name: merged[name] for name in sorted(merged, key=lambda name: (order.get(name, len(colours)), name))}
    return Bar(label, counts.total(), _segments(ordered, css))


def _segments(counts: Mapping[str, float], css: Mapping[str, str]) -> list[Segment]:
    total = sum(counts.values()) or 1
    return [Segment(name, css.get(name, "other"), count, 100 * count / total) for name, count in counts.items()]


def _legend(bars: Sequence[Bar]) -> list[tuple[str, str]]:
    seen = {segment.name: segment.css for bar in bars for segment in bar.segments}
    order = {css: i for i, css in enumerate([*(f"c{i}" for i in range(_COLOURS)), "other", "rare"])}
    return sorted(seen.items(), key=lambda item: order.get(item[1], len(order)))


def _lift(pool: Counter[str], selection: Counter[str], skill: str) -> Lift:
    share = selection[skill] / (selection.total() or 1)
    if not pool[skill]:
        return Lift(100 * share, None, "none")
    ratio = share / (pool[skill] / pool.total())
    for bound, css in ((0.25, "d3"), (0.5, "d2"), (0.8, "d1"), (1.25, "d0"), (2.0, "u1"), (4.0, "u2")):
        if ratio < bound:
            return Lift(100 * share, ratio, css)
    return Lift(100 * share, ratio, "u3")


RARE_NOTE = f"rare: under {RARE_SHARE:.0%} of all labelled samples ever ingested"
