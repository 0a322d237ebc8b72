"""The loop: at each step of the continuum ingest, extract, select, train, evaluate and prune."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from liit.config import Continuum, load_config
from liit.data.part import PoolPart
from liit.data.pool import Pool
from liit.errors import InputError
from liit.evaluation.evaluate import SkillTask
from liit.features import FeatureStore
from liit.lifelong import stages
from liit.lifelong.methods import Method, get_method
from liit.lifelong.progress import Reporter
from liit.lifelong.queries import QueryRows, QuerySource
from liit.lifelong.rundir import RunDirectory, write_json
from liit.lifelong.sharing import Sharing
from liit.lifelong.workbench import ADAPTER_RULES, Workbench, derived_seed
from liit.training import optimizer_steps
from liit.training.arguments import check_trackers
from liit.training.hooks import make_hooks

HOLDER = "an unfinished run"
"""What the run calls itself in its pool, for `liit pool gc`."""


def run(
    continuum: str | Path | Continuum,
    out: str | Path,
    *,
    overrides: Sequence[str] = (),
    reporter: Reporter | None = None,
    shared: Path | None = None,
) -> RunDirectory:
    """Run a continuum with its method, or go on with a run that was stopped.

    Killed at any instant, the same call continues and ends with the same selections, weights and results as an
    undisturbed run on the same machine and thread count.

    Args:
        continuum: the YAML file, or what `liit.config.load_config` made of it.
        out: the run directory.
        overrides: texts like ``training.epochs=3``, for a file.
        reporter: shows progress; silent by default.
        shared: folder of what the runs of a comparison do once for all; see `liit.lifelong.sharing`.

    Raises:
        InputError: anything wrong with the input; nothing is half-written.
    """
    loaded = continuum if isinstance(continuum, Continuum) else load_config(continuum, overrides)
    method = get_method(loaded.method, loaded)
    check_trackers(loaded.training)
    make_hooks(method.hooks, loaded.lora.adapter)  # refuses now what it would refuse when training begins
    directory = RunDirectory(Path(out), loaded)
    reporter = reporter or Reporter()
    with directory.exclusive():
        if done := len(directory.stages):
            reporter.say(f"{directory.path}: {done} stages are complete, going on after them")
        Loop(directory, method, reporter, shared).run()
    return directory


class Loop:
    """One run.

    Args:
        directory: where it lies.
        method: what it does.
        reporter: shows progress.
        shared: folder of what it shares with others.
    """

    def __init__(self, directory: RunDirectory, method: Method, reporter: Reporter, shared: Path | None = None) -> None:
        self.directory, self.method, self.reporter = directory, method, reporter
        self.continuum = directory.continuum
        from liit.doctor.follow import Forecaster  # which is built on the stages

        self.bench = Workbench(self.continuum)
        self._forecaster = Forecaster(self.bench)
        self.pool = Pool.open_or_create(directory.pool)
        self.tasks: list[SkillTask] = []
        self._sharing = Sharing(self, shared)

    def run(self) -> None:
        """Do every stage that is not complete."""
        sets = [item for _, item in self.continuum.evaluation_sets()]
        self.tasks = stages.read_tasks(self.directory.path / "evaluation", sets)
        last = len(self.continuum.steps)
        self.queries = QuerySource(self.continuum, self.directory.path / "queries", self.tasks)
        if self.method.targeted:
            self.queries.check()
        self._evaluate(0, None)  # first of all, for it shows whether model and questions can be read
        rule = self.continuum.lora.adapter
        self.reporter.say(f"adapter: {rule}, {ADAPTER_RULES[rule]}")
        adapter: Path | None = None
        for number in range(1, last + 1):
            self._hold(number, last)
            adapter = self._step(number, adapter, last)
        self.pool.release(HOLDER)

    def _hold(self, number: int, last: int) -> None:
        """Keep the versions of the pool that a step needs from a gc, until the next step needs others."""
        waits = self.method.once and number < last
        final = "ingest" if waits else "prune" if self.method.prunes else "evaluate"
        if self.directory.facts(number, final) is None:
            self.pool.hold(HOLDER, self._version_before(number))

    def _step(self, number: int, adapter: Path | None, last: int) -> Path | None:
        folder = self.directory.step(number)
        self._stage(number, "ingest", lambda progress: self._ingest(number, folder, progress))
        if self.method.once and number < last:
            return adapter
        trained = folder / "adapter"
        finished = self.directory.facts(number, "prune" if self.method.prunes else "evaluate")
        if finished is None:
            candidates = self.candidates(number)
            if not candidates:
                raise InputError(self._nothing(number))
            ids = candidates.ids()
            features = self._extract(number, adapter, candidates, folder)
            self._stage(number, "select", lambda _: self._select(number, ids, features, folder))
            self._train(number, adapter, folder)
        self._evaluate(number, trained)
        if self.method.prunes:
            self._stage(number, "prune", lambda _: self._prune(number, folder))
        return trained

    def _ingest(self, number: int, folder: Path, progress: stages.Progress) -> stages.Facts:
        step = self.continuum.steps[number - 1]
        facts = stages.ingest_step(self.pool, step, number, progress)
        refused = stages.refused_rows(self.bench, PoolPart(self.pool, self._new_ids(number)))
        facts |= {"refused": dict(sorted(refused.items())), **stages.leaks(self.pool, self.tasks)}
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "ingest.json", facts)
        self.reporter.note(_ingest_note(facts))
        return facts

    def _new_ids(self, number: int) -> list[str]:
        """Ids in the pool that came with this step's commits."""
        before = set(self.pool.at(self._version_before(number)).ids())
        return [sample for sample in self.pool.ids() if sample not in before]

    def _version_before(self, number: int) -> int:
        """Version of the pool at the end of the step before."""
        previous = self.directory.facts(number - 1, "prune") or self.directory.facts(number - 1, "ingest")
        return 1 if previous is None else int(previous["pool_version"])

    def candidates(self, number: int) -> PoolPart:
        """Samples of the pool as it was after this step's ingest that the model can take."""
        facts = self.directory.facts(number, "ingest")
        assert facts is not None
        pool = self.pool.at(int(facts["pool_version"]))
        refused: set[str] = set()
        for step in range(1, number + 1):
            refused.update((self.directory.facts(step, "ingest") or {}).get("refused", {}))
        return PoolPart(pool, [sample for sample in pool.ids() if sample not in refused])

    def _extract(self, number: int, adapter: Path | None, samples: PoolPart, folder: Path) -> Path | None:
        names = stages.feature_names(self.method, self.continuum)
        if not names:
            return None
        out = folder / "features"
        last = self.directory.step(number - 1) if number > 1 and not self.method.once else None
        queries = self._queries(number, samples.ids())

        def work(progress: stages.Progress) -> stages.Facts:
            facts = self._forecaster.extract(adapter, samples, names, out, progress, self.reporter.note, last)
            if queries is not None:
                columns, store = self.method.query_columns(), folder / "queries"
                facts |= stages.extract_queries(self.bench, adapter, queries, columns, store, progress)
                if queries.left_out:
                    self.reporter.note(
                        f"{queries.left_out} samples of the pool are evaluation questions, and no queries"
                    )
            return facts

        self._stage(number, "extract", work, total=len(samples) + (0 if queries is None else len(queries.samples)))
        return out

    def _queries(self, number: int, candidates: list[str]) -> QueryRows | None:
        if not self.method.targeted:
            return None
        return self.queries.at(number, self.pool_now(number), candidates)

    def _select(self, number: int, ids: list[str], features: Path | None, folder: Path) -> stages.Facts:
        fresh = set(self._new_ids(number))
        new = [sample in fresh for sample in ids]
        if self.method.new_only and not any(new):
            raise InputError(self._nothing(number))
        self._say_if_budget_is_larger(number, sum(new) if self.method.new_only else len(ids))
        queries = self._queries(number, ids)
        known = None
        if queries is not None:
            store = FeatureStore(folder / "queries").view([sample.id for sample in queries.samples])
            known = stages.QueryFeatures(store, queries.groups)
        candidates = stages.Candidates(ids, new, features, known)
        return stages.select_step(self.method, self.continuum, self.pool, candidates, number, folder)

    def _say_if_budget_is_larger(self, number: int, available: int) -> None:
        budget = self.continuum.budget_at(number)
        if budget > available and not self.method.once:
            what = "new data" if self.method.new_only else "pool"
            self.reporter.note(f"the budget of {budget} is larger than the {what}: training on all {available} samples")

    def _nothing(self, number: int) -> str:
        facts = self.directory.facts(number, "ingest") or {}
        name = self.continuum.steps[number - 1].name
        return f"step {number} ({name}): nothing to train on with {self.method.name}: {_ingest_note(facts)}"

    def _train(self, number: int, adapter: Path | None, folder: Path) -> None:
        training = self.continuum.training
        epochs = training.multitask_epochs if self.method.once else None
        ids = stages.read_selection(folder / "selection.parquet")

        def train(progress: stages.Progress) -> stages.Facts:
            samples = self.pool_now(number).take(ids)
            seed = derived_seed(self.continuum.seed, number, "train")
            facts = stages.train_step(
                self.bench, adapter, samples, folder / "adapter", seed=seed, epochs=epochs, progress=progress,
                hooks=self.method.hooks, hook_state=None if adapter is None else adapter.parent / "hooks", step=number,
                new=set(self._new_ids(number)) if self.method.hooks else None,
            )  # fmt: skip
            write_json(folder / "train.json", facts)
            return facts

        try:
            self._stage(number, "train", train, total=optimizer_steps(len(ids), training, epochs))
        except InputError as error:
            raise InputError(f"step {number} ({self.continuum.steps[number - 1].name}): {error}") from error

    def pool_now(self, number: int) -> Pool:
        """The pool as it was after a step's ingest."""
        facts = self.directory.facts(number, "ingest")
        assert facts is not None
        return self.pool.at(int(facts["pool_version"]))

    def _evaluate(self, number: int, adapter: Path | None) -> None:
        folder = self.directory.step(number)
        self._stage(
            number,
            "evaluate",
            lambda progress: stages.evaluate_step(self.bench, adapter, self.tasks, number, folder, progress),
            total=sum(len(task.samples) for task in self.tasks),
        )
        stages.forget_saved_skills(folder)  # not before the evaluation counts as complete

    def _prune(self, number: int, folder: Path) -> stages.Facts:
        size = self.continuum.pruning.pool_size
        assert size is not None, "checked by the configuration"
        return stages.prune_step(self.pool, folder / "features", folder / "labels.parquet", size, number, folder)

    def _stage(
        self, number: int, name: str, work: Callable[[stages.Progress], dict[str, Any]], total: int | None = None
    ) -> None:
        """Do a stage unless it is complete, and list it."""
        if self.directory.facts(number, name) is not None:
            return
        step = "base" if number == 0 else self.continuum.steps[number - 1].name
        with self.reporter.stage(number, step, name, total) as progress:
            done = self._sharing.do(number, name, work, progress)
            costs = {"flops": done.flops, "shared": done.shared}
            self.directory.complete(number, name, done.seconds, done.facts, costs)  # before the line that says so


def _ingest_note(facts: stages.Facts) -> str:
    text = f"{facts['added']} samples added, pool of {facts['pool_size']}"
    if facts["quarantined"]:
        reasons = ", ".join(f"{reason} {count}" for reason, count in facts["reasons"].items())
        text += f"; {facts['quarantined']} rows set aside ({reasons})"
    if facts["refused"]:
        first = next(iter(facts["refused"]))
        text += f"; {len(facts['refused'])} do not fit the model and are left out, first {first!r}"
    if facts["leaked_rows"] or facts["leaked_images"]:
        text += (
            f"; warning: {facts['leaked_rows']} evaluation rows and {facts['leaked_images']} evaluation images are "
            "also training data"
        )
    return text
