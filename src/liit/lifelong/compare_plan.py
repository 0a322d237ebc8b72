"""What a comparison consists of: its methods, its seeds, its directory, and the command of each run.

DIR/continuum.yaml                   the continuum, every default written out
DIR/plan.json                        which continuum it is, and the threads of each run; another continuum is refused
DIR/runs/METHOD/seed-N/              an ordinary run directory
DIR/shared/                          what the runs do once for all; see liit.lifelong.sharing
DIR/compare.json, .csv, .txt         the table
DIR/report.html                      the report
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from liit.config import Continuum, config_sha256, dump_config, load_config
from liit.errors import InputError
from liit.lifelong.methods import Method, get_method, problem_with
from liit.lifelong.parallel import Job
from liit.lifelong.rundir import RunDirectory, alone_in, take_back, write_json, write_text

FORMAT = 1
RANDOM, BALANCED, REFERENCE = "replay", "random-balanced", "multitask"
ALWAYS = (RANDOM, BALANCED)
"""What every comparison has: the same budget drawn at random, from the whole pool and evenly from its sources."""
EQUAL_COMPUTE = "@equal-compute"
THREADS = "threads"


@dataclass(frozen=True, slots=True)
class Member:
    """One run of a comparison.

    Attributes:
        label: the method's name; of a run with a larger budget, with what it is for.
        method: the method's name.
        seed: of the run.
        path: its directory.
        budgets: of the steps, where they are not the continuum's.
    """

    label: str
    method: str
    seed: int
    path: Path
    budgets: tuple[int, ...] = ()


@dataclass(frozen=True)
class Plan:
    """Methods and seeds on one continuum.

    Attributes:
        continuum: with the first seed; its method does not matter.
        methods: names in the order asked for, then what was added.
        added: of these, the ones that nobody asked for.
        seeds: of the runs.
        out: the comparison's directory.
    """

    continuum: Continuum
    methods: tuple[str, ...]
    added: tuple[str, ...]
    seeds: tuple[int, ...]
    out: Path

    @property
    def reference(self) -> str | None:
        """The method that gives u[s] of the relative gain, where it is among the methods."""
        return REFERENCE if REFERENCE in self.methods else None

    @property
    def shared(self) -> Path:
        """Folder of what the runs share."""
        return self.out / "shared"

    def method(self, name: str) -> Method:
        """A method by name."""
        return get_method(name, self.continuum)

    def columns(self, name: str) -> tuple[str, ...]:
        """Feature columns that a method reads; none means that its selection costs no pass through the model."""
        return self.method(name).columns(self.continuum)

    def members(self) -> list[Member]:
        """All runs with the continuum's budget, in the order in which they are started.

        Long ones first, so that the processes end together; and one method's seeds before the next method, so that what
        two methods share is there when the second one begins.
        """
        order = sorted(self.methods, key=lambda name: (not self.columns(name), name != REFERENCE))
        return [Member(name, name, seed, self.path(name, seed)) for name in order for seed in self.seeds]

    def path(self, label: str, seed: int) -> Path:
        """Directory of a run."""
        return self.out / "runs" / label / f"seed-{seed}"

    def settings(self, member: Member) -> list[str]:
        """Overrides that make a run of the comparison's continuum; of methods defined in the file only its own one."""
        own = {name: value for name, value in self.continuum.methods.items() if name == member.method}
        defined = {name: value.model_dump(mode="json") for name, value in own.items()}
        budgets = [f"steps.{number}.budget={budget}" for number, budget in enumerate(member.budgets)]
        return [f"method={member.method}", f"seed={member.seed}", f"methods={json.dumps(defined)}", *budgets]

    def job(self, member: Member) -> Job:
        """The command of a run."""
        options = [option for text in self.settings(member) for option in ("--set", text)]
        place = ("--out", str(member.path), "--shared", str(self.shared), "--no-report")
        return Job(f"{member.label} {member.seed}", ("run", str(self.out / "continuum.yaml"), *place, *options))

    def finished(self, member: Member) -> bool:
        """Whether a run is complete.

        Raises:
            InputError: its directory holds something else.
        """
        if not member.path.exists():
            return False
        continuum = load_config(self.out / "continuum.yaml", self.settings(member), check_files=False)
        try:
            directory = RunDirectory(member.path, continuum)
        except InputError as error:
            raise InputError(f"{member.label}, seed {member.seed}: {error}") from error
        last = "prune" if self.method(member.method).prunes else "evaluate"
        return directory.facts(len(continuum.steps), last) is not None

    @contextmanager
    def directory(self, threads: int) -> Iterator[int]:
        """Make the comparison's directory when it is new, and keep a second process out.

        Wrong input that shows before any run has begun leaves nothing behind.

        Args:
            threads: of each run, for a new comparison.

        Yields:
            The threads of each run: those of the first start.

        Raises:
            InputError: another process is at it, or it holds another comparison or something else.
        """
        self._check()
        fresh = not (self.out / "plan.json").is_file()
        with alone_in(self.out, "compares") as new:
            try:
                yield self._describe(threads)
            except InputError:
                if fresh and not any(self.out.glob("runs/*/*/run.json")):  # a run that has begun stays
                    take_back(self.out, new)
                raise

    def _describe(self, threads: int) -> int:
        file = self.out / "plan.json"
        if file.is_file():
            threads = json.loads(file.read_text(encoding="utf-8")).get(THREADS, threads)
        write_json(file, {**self._identity(), THREADS: threads})
        write_text(self.out / "continuum.yaml", dump_config(self.continuum))
        self.shared.mkdir(exist_ok=True)
        listed = [list(columns) for name in self.methods if (columns := self.columns(name))]
        write_json(self.shared / "columns.json", listed)
        return threads

    def _identity(self) -> dict[str, Any]:
        # Of the continuum what all runs have in common: methods and seeds may be added later.
        common = self.continuum.model_copy(update={"method": RANDOM, "seed": 0, "methods": {}})
        return {"format": FORMAT, "name": self.continuum.name, "continuum": config_sha256(common)}

    def _check(self) -> None:
        file = self.out / "plan.json"
        if not file.is_file():
            if self.out.exists() and (not self.out.is_dir() or {f.name for f in self.out.iterdir()} - {"lock"}):
                raise InputError(f"out: {self.out} exists and is not a comparison; name a new directory")
            return
        try:
            before = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InputError(f"out: {file} cannot be read ({error}); name a new directory") from error
        threads = before.pop(THREADS, 1) if isinstance(before, dict) else 1
        if before != (now := self._identity()):
            raise InputError(
                f"out: {self.out} belongs to a comparison on another continuum ({_difference(before, now)}); "
                "name a new directory"
            )
        if type(threads) is not int or threads < 1:
            raise InputError(f"out: {file} names {threads!r} {THREADS}, expected a number from 1 on; mend it")


def _difference(before: Any, now: Mapping[str, Any]) -> str:
    if not isinstance(before, dict):
        return "plan.json is not as liit wrote it"
    for key in ("format", "name"):
        if before.get(key) != now[key]:
            return f"{key} {before.get(key)!r}, not {now[key]!r}"
    return "its settings or its steps differ"


def make_plan(
    continuum: Continuum, methods: Sequence[str], seeds: int | Sequence[int], out: Path, *, reference: bool = True
) -> Plan:
    """Check what is asked for, and add what every comparison has.

    Args:
        continuum: what the methods learn.
        methods: their names.
        seeds: how many, counted from the continuum's, or which.
        out: the comparison's directory.
        reference: also run the joint training on all data that relative gains refer to.

    Raises:
        InputError: no or unknown methods, one that cannot be run on this continuum, or no seeds; so that no run is
            refused hours after the first one began.
    """
    asked = tuple(dict.fromkeys(methods))
    if not asked:
        raise InputError("methods: got none, expected at least one of the names that liit methods lists")
    wanted = dict.fromkeys([*asked, *ALWAYS, *([REFERENCE] if reference else [])])
    names = (*(name for name in wanted if name != REFERENCE), *([REFERENCE] if REFERENCE in wanted else []))
    for name in names:
        get_method(name, continuum)
        problem = problem_with(continuum.model_copy(update={"method": name}))
        if problem is not None:
            raise InputError(problem[1])
    _check_training(continuum, [get_method(name, continuum) for name in names])
    chosen = tuple(range(continuum.seed, continuum.seed + seeds)) if isinstance(seeds, int) else tuple(seeds)
    if not chosen or len(set(chosen)) != len(chosen) or min(chosen) < 0:
        raise InputError(f"seeds: {seeds} given, expected at least 1, or different seeds from 0 on")
    return Plan(continuum, names, tuple(name for name in names if name not in asked), chosen, out)


def _check_training(continuum: Continuum, methods: Sequence[Method]) -> None:
    """Refuse what a run would refuse when it starts: hooks and trackers."""
    if continuum.training.report_to == "none" and not any(method.hooks for method in methods):
        return
    from liit.training.arguments import check_trackers  # torch
    from liit.training.hooks import make_hooks

    check_trackers(continuum.training)
    for method in methods:
        try:
            make_hooks(method.hooks, continuum.lora.adapter)
        except InputError as error:
            raise InputError(f"{method.name}: {error}") from error
