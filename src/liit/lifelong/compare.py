"""`liit compare`: methods on one continuum at several seeds, side by side, and one table.

Every run is a process of its own with its share of the cores. What two runs would both do is done once (see
`liit.lifelong.sharing`). Killed anywhere, the same call goes on; with more methods or seeds it takes what is there. All
runs, later ones too, have the number of threads of the first start: results depend on it in the last digit, and are
shared where it is the same.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from liit.config import Continuum, load_config
from liit.lifelong.compare_compute import enlarged_budgets, most_expensive, stage_costs
from liit.lifelong.compare_plan import ALWAYS, EQUAL_COMPUTE, RANDOM, Member, Plan, make_plan
from liit.lifelong.parallel import cores, run_jobs, side_by_side, threads_each
from liit.lifelong.rundir import RunDirectory, read_timings, write_json, write_text

if TYPE_CHECKING:
    from liit.report.seeds import SeedTable

Show = Callable[[str], None]


@dataclass(frozen=True)
class Comparison:
    """What a comparison found.

    Attributes:
        table: one row per method, over seeds.
        result: everything in ``compare.json``.
        out: the directory.
    """

    table: SeedTable
    result: Mapping[str, Any]
    out: Path

    @property
    def report(self) -> Path:
        """The HTML report."""
        return self.out / "report.html"


def compare(
    continuum: str | Path | Continuum,
    methods: Sequence[str],
    seeds: int | Sequence[int] = 3,
    out: str | Path = "runs/compare",
    *,
    overrides: Sequence[str] = (),
    jobs: int | None = None,
    reference: bool = True,
    equal_compute: bool = True,
    show: Show = lambda line: None,
) -> Comparison:
    """Run methods at several seeds on one continuum with the same training budget, and compare them.

    Random replay and random choice balanced by source are always among them, and by default the joint training on all
    data that relative gains refer to. When all are done, the two random methods run once more with budgets that make
    their training alone cost what the most expensive selection and its training cost.

    Args:
        continuum: the YAML file, or what `liit.load_config` made of it.
        methods: names; see `liit methods`.
        seeds: how many, counted from the continuum's seed, or which.
        out: directory of the runs, the table and the report.
        overrides: texts like ``budget=500``, for a file.
        jobs: processes side by side; by default one per GPU, without any one per core.
        reference: whether to add the reference.
        equal_compute: whether to run the random methods with equal total compute too.
        show: gets the lines that the runs print.

    Returns:
        The table, and where everything lies.

    Raises:
        InputError: anything wrong with the input; nothing is half-written.
        JobError: a run failed.
    """
    loaded = continuum if isinstance(continuum, Continuum) else load_config(continuum, overrides)
    plan = make_plan(loaded, methods, seeds, Path(out), reference=reference)
    if plan.added:
        show(f"added, so that the comparison says something: {', '.join(plan.added)}")
    start = time.perf_counter()
    members = plan.members()
    pending = any(not plan.finished(member) for member in members)
    at_once = jobs or (side_by_side() if pending else cores())  # looking for GPUs takes torch
    share = threads_each(at_once, len(members))
    with plan.directory(share) as threads:
        if threads != share:
            show(f"each run has {_threads(threads)}, as when the comparison began; begun now it would be {share}")
        _run(plan, members, at_once, threads, show)
        donor = _donor(plan) if equal_compute else None
        more = [] if donor is None else _enlarged(plan, donor)
        if donor is not None:
            show(f"equal compute: {' and '.join(ALWAYS)} again, with what {donor} costs, selection and training")
        _run(plan, more, at_once, threads, show)
        return _result(plan, [*members, *more], donor, time.perf_counter() - start)


def _threads(number: int) -> str:
    return "1 thread" if number == 1 else f"{number} threads"


def _run(plan: Plan, members: Sequence[Member], at_once: int, threads: int, show: Show) -> None:
    """Make the runs that are not complete."""
    todo = [member for member in members if not plan.finished(member)]
    if done := len(members) - len(todo):
        show(f"{done} of {len(members)} runs are complete")
    if not todo:
        return
    from liit.lifelong.ahead import keep_vision_states  # torch

    if members[0].budgets == () and (images := keep_vision_states(plan.continuum, plan.shared, at_once)):
        show(f"vision features of {images} images computed, once for all runs")
    run_jobs([plan.job(member) for member in todo], at_once, show, threads)


def _donor(plan: Plan) -> str | None:
    """The method whose selection takes most operations."""
    steps = len(plan.continuum.steps)
    costs = {
        name: [sum(stage_costs(plan.path(name, seed), steps).selection) for seed in plan.seeds]
        for name in plan.methods
        if plan.columns(name)
    }
    return most_expensive(costs)


def _enlarged(plan: Plan, donor: str) -> list[Member]:
    """The random methods with the compute of the donor.

    A run that has begun keeps its budgets, so that the same call goes on with it.
    """
    members = []
    for name in ALWAYS:
        for seed in plan.seeds:
            path = plan.path(f"{name}{EQUAL_COMPUTE}-with-{donor}", seed)
            budgets = _budgets_there(path) or _budgets(plan, donor, seed)
            members.append(Member(name + EQUAL_COMPUTE, name, seed, path, budgets))
    return members


def _budgets_there(path: Path) -> tuple[int, ...]:
    file = path / "continuum.yaml"
    if not file.is_file():
        return ()
    there = load_config(file, check_files=False)
    return tuple(there.budget_at(number) for number in range(1, len(there.steps) + 1))


def _budgets(plan: Plan, donor: str, seed: int) -> tuple[int, ...]:
    steps = range(1, len(plan.continuum.steps) + 1)
    member = Member(RANDOM, RANDOM, seed, plan.path(RANDOM, seed))
    run = RunDirectory(member.path, load_config(plan.out / "continuum.yaml", plan.settings(member), check_files=False))
    trained = [int((run.facts(number, "select") or {})["trained"]) for number in steps]
    own, other = stage_costs(run.path, len(steps)), stage_costs(plan.path(donor, seed), len(steps))
    budgets = [plan.continuum.budget_at(number) for number in steps]
    return enlarged_budgets(budgets, trained, own.training, other.selection)


def _result(plan: Plan, members: Sequence[Member], donor: str | None, seconds: float) -> Comparison:
    """Make the table, and write it in every form."""
    from liit.report.page import write_report
    from liit.report.seeds import seed_table, to_csv, to_text

    groups: dict[str, list[Path]] = {name: [] for name in plan.methods if name != plan.reference}
    groups |= {member.label: [] for member in members if member.budgets}
    groups |= {plan.reference: []} if plan.reference else {}
    for member in sorted(members, key=lambda member: member.seed):
        groups[member.label].append(member.path)
    equal = {name: name + EQUAL_COMPUTE for name in ALWAYS} if donor is not None else {}
    table = seed_table(groups, baseline=RANDOM, reference=plan.reference, equal=equal, donor=donor)
    result = {
        "continuum": plan.continuum.name,
        "budget": plan.continuum.budget,
        "steps": [step.name for step in plan.continuum.steps],
        "seeds": list(plan.seeds),
        "added": list(plan.added),
        "baseline": RANDOM,
        "reference": plan.reference,
        "equal_compute": None if donor is None else {"donor": donor, "budgets": _by_seed(members)},
        "shared": shared_stages([member.path for member in members]),
        "seconds": round(seconds, 1),
        "rows": table.rows,
    }
    write_json(plan.out / "compare.json", result)
    write_text(plan.out / "compare.csv", to_csv(table))
    write_text(plan.out / "compare.txt", to_text(table))
    paths = [member.path for member in members if not member.budgets]
    write_report(paths, plan.out / "report.html", seeds=table)
    return Comparison(table, result, plan.out)


def _by_seed(members: Sequence[Member]) -> dict[str, list[int]]:
    return {str(member.seed): list(member.budgets) for member in members if member.budgets and member.method == RANDOM}


def shared_stages(runs: Sequence[Path]) -> list[dict[str, Any]]:
    """What runs took over from others: per step and stage how often, and the seconds that this saved.

    Args:
        runs: run directories.
    """
    times: Counter[tuple[int, str]] = Counter()
    seconds: Counter[tuple[int, str]] = Counter()
    for run in runs:
        for row in read_timings(run):
            if "shared" in row:
                times[row["step"], row["stage"]] += 1
                seconds[row["step"], row["stage"]] += row["seconds"]
    return [
        {"step": step, "stage": stage, "times": times[step, stage], "seconds": round(seconds[step, stage], 1)}
        for step, stage in sorted(times)
    ]


def in_words(shared: Sequence[Mapping[str, Any]]) -> str:
    """What was taken over, on one line."""
    if not shared:
        return "shared: nothing"
    parts = []
    for row in shared:
        times = "once" if row["times"] == 1 else f"{row['times']} times"
        parts.append(f"step {row['step']} {row['stage']} {times} ({row['seconds']:.0f} s)")
    return f"shared: {', '.join(parts)}; {sum(row['seconds'] for row in shared):.0f} s saved in all"
