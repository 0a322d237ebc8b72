"""What runs of one comparison need not do twice: stages whose inputs are equal are done once and copied.

    shared/evaluate-KEY/        the base model's answers: a fresh adapter changes none, so one for all methods and seeds
    shared/extract-KEY/         features of the first step's rows with the fresh adapter of one seed
    shared/train-KEY/           an adapter trained from the same start on the same rows in the same order
    shared/columns.json         the feature columns of every method of the comparison

KEY is a hash of everything that the result depends on, the number of threads included, and the inputs themselves lie
beside the result and are compared. From the second step on two runs differ in model or rows, so nothing is looked up.

A shared extraction has the columns of all methods whose passes are the same, so that each column's bytes are those of
an extraction of its own; each run gets the columns that it needs, and its own extraction then finds everything there
and compares the feature store's key.

Whoever comes first does the work and the others wait. Killed, it leaves nothing that counts, and the next one does it.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

import liit
from liit.data.lance_files import sync_file
from liit.features import FeatureStore
from liit.features.extraction import SHARD_ROWS
from liit.features.plan import plan_passes
from liit.features.settings import check_features
from liit.features.store import open_tables
from liit.features.table import CONTENT, FeatureTable
from liit.lifelong import stages
from liit.lifelong.cost import FlopCounter
from liit.lifelong.rundir import new_directory, write_json
from liit.lifelong.spent import FILE as SPENT
from liit.lifelong.spent import Spent, forget_spent
from liit.lifelong.stages import Facts, Progress
from liit.model.fingerprint import hash_file, hash_settings

if TYPE_CHECKING:
    from liit.config import FeatureSettings
    from liit.data.sample import Sample
    from liit.lifelong.loop import Loop

COUNTED = ("extract", "train")
"""Stages whose operations are counted: what selection and training cost. No other one but evaluation has any."""
OUTPUTS = {"evaluate": ("predictions.jsonl", "evaluation.json"), "train": ("adapter", "train.json"), "extract": ()}
COLUMNS, META = "columns.json", "shared.json"

Work = Callable[[Progress], Facts]


@dataclass(frozen=True, slots=True)
class Done:
    """A stage that is complete.

    Attributes:
        facts: for ``run.json``.
        seconds: that it takes, earlier sittings included; of a stage taken over, those of the run that did it.
        flops: operations, of the stages that count them.
        shared: the run that it was taken over from, such as ``adapt-inf/seed-0``.
    """

    facts: Facts
    seconds: float
    flops: int | None = None
    shared: str | None = None


class Sharing:
    """Does the stages of one run, or takes over what another run of the comparison has done.

    Args:
        loop: the run.
        place: folder of the shared results; None: every stage is done.
    """

    def __init__(self, loop: Loop, place: Path | None) -> None:
        self.loop, self.place = loop, place
        self.label = "/".join(loop.directory.path.absolute().parts[-2:])

    def do(self, number: int, name: str, work: Work, progress: Progress) -> Done:
        """Do a stage or take it over.

        Args:
            number: of the step.
            name: of the stage.
            work: what the stage does; called with `progress`.
            progress: called with the number of units just done.
        """
        if self.place is not None and number <= 1 and name in OUTPUTS:
            inputs = self._inputs(number, name)
            if inputs is not None:
                entry = _entry(self.place, name, inputs)
                with _alone_at(entry):
                    done = self._shared(number, name, work, progress, inputs, entry)
                if done.shared is not None:
                    self.loop.reporter.note(f"taken over from {done.shared}, {done.seconds:.1f} s")
                return done
        return self._measured(number, name, work, progress)

    def _shared(
        self,
        number: int,
        name: str,
        work: Work,
        progress: Progress,
        inputs: Mapping[str, Any],
        entry: Path,
    ) -> Done:
        if name == "extract":
            return self._extract(number, work, progress, inputs, entry)
        folder = self.loop.directory.step(number)
        if (found := self._found(entry, inputs)) is not None:
            folder.mkdir(parents=True, exist_ok=True)
            for output in OUTPUTS[name]:
                _copy(entry / output, folder / output)
            shutil.rmtree(folder / "adapter.training", ignore_errors=True)  # where a training of its own had come to
            return found
        done = self._measured(number, name, work, progress)
        with new_directory(entry) as part:
            for output in OUTPUTS[name]:
                _copy(folder / output, part / output)
            self._describe(part, inputs, done)
        return done

    def _extract(self, number: int, work: Work, progress: Progress, inputs: Mapping[str, Any], entry: Path) -> Done:
        loop, out = self.loop, self.loop.directory.step(number) / "features"
        found = self._found(entry, inputs)
        if found is None:
            samples, names = loop.candidates(number), inputs["columns"]

            def extract(progress: Progress) -> Facts:
                return stages.extract_step(loop.bench, None, samples, names, entry / "features", progress)

            account = entry.with_name(f"{entry.name}.{SPENT}")  # beside the work, which another run may go on with
            found = self._measured(number, "extract", extract, progress, account)
            self._describe(entry, inputs, found)
            forget_spent(account)
        if not open_tables(out):
            with new_directory(out) as part:
                copy_columns(entry / "features", part, loop.method.columns(loop.continuum))
        own = self._measured(number, "extract", work, lambda _: None)  # looks at the keys; scores the queries, if any
        return Done(own.facts, found.seconds + own.seconds, (found.flops or 0) + (own.flops or 0), found.shared)

    def _measured(self, number: int, name: str, work: Work, progress: Progress, account: Path | None = None) -> Done:
        """Do a stage, measure its time, and count its operations where they are of interest.

        What sittings that were cut off had taken is part of it.
        """
        spent = Spent(account or self.loop.directory.spent, number, name)
        counter = FlopCounter()

        def noted(units: int) -> None:
            progress(units)
            spent.note(counter.total)

        try:
            with counter if name in COUNTED else nullcontext():
                facts = work(noted)
        finally:
            spent.note(counter.total, at_once=True)
        seconds, flops = spent.total(counter.total)
        return Done(facts, seconds, flops if name in COUNTED else None)

    def _found(self, entry: Path, inputs: Mapping[str, Any]) -> Done | None:
        """What another run has done, or this one before it was stopped."""
        file = entry / META
        if not file.is_file():
            return None
        meta = json.loads(file.read_text(encoding="utf-8"))
        if meta["inputs"] != json.loads(json.dumps(inputs)):
            raise RuntimeError(f"{file} has the hash but not the inputs of this stage")
        by = meta["by"]
        return Done(meta["facts"], meta["seconds"], meta["flops"], None if by == self.label else by)

    def _describe(self, folder: Path, inputs: Mapping[str, Any], done: Done) -> None:
        found = {"by": self.label, "seconds": done.seconds, "flops": done.flops, "facts": done.facts, "inputs": inputs}
        write_json(folder / META, found)

    def _inputs(self, number: int, name: str) -> dict[str, Any] | None:
        """Everything that a stage's result depends on; None when nobody else can have the same."""
        if name == "evaluate":
            return self._evaluation(number)
        return self._training(number) if name == "train" else self._extraction(number)

    def _common(self) -> dict[str, Any]:
        return {
            "liit": liit.__version__,
            "torch": torch.__version__,
            "threads": torch.get_num_threads(),
            "model": self.loop.continuum.model.model_dump(mode="json"),
            "weights": self.loop.bench.vlm.base_id,
            "template": self.loop.bench.encoder.template_id,
        }

    def _evaluation(self, number: int) -> dict[str, Any]:
        loop = self.loop
        settings = loop.continuum.evaluation.model_dump(mode="json", exclude={"batch_size"})
        tasks = [[task.skill, task.identity] for task in loop.tasks]
        inputs = self._common() | {"step": number, "evaluation": settings, "tasks": tasks, "adapter": None}
        if number:
            adapter = loop.directory.step(number) / "adapter"
            inputs["adapter"] = {file.name: hash_file(file) for file in sorted(adapter.iterdir())}
            inputs["lora"] = loop.continuum.lora.model_dump(mode="json")
        return inputs

    def _training(self, number: int) -> dict[str, Any] | None:
        loop, continuum = self.loop, self.loop.continuum
        if loop.method.hooks:
            return None
        ids = stages.read_selection(loop.directory.step(number) / "selection.parquet")
        return self._common() | {
            "seed": continuum.seed,
            "lora": continuum.lora.model_dump(mode="json"),
            "training": continuum.training.model_dump(mode="json"),
            "once": loop.method.once,
            "rows": _rows(loop.pool_now(number).take(ids)),
        }

    def _extraction(self, number: int) -> dict[str, Any] | None:
        assert self.place is not None
        loop, continuum = self.loop, self.loop.continuum
        names = loop.method.columns(continuum)
        listed: list[list[str]] = json.loads((self.place / COLUMNS).read_text(encoding="utf-8"))
        layers = loop.bench.scorer.vlm.text_config.num_hidden_layers
        mates = [other for other in listed if same_passes(names, other, continuum.features, layers)]
        if len(mates) < 2:
            return None
        return self._common() | {
            "seed": continuum.seed,
            "lora": continuum.lora.model_dump(mode="json"),
            "features": continuum.features.model_dump(mode="json"),
            "columns": list(check_features([name for other in mates for name in other])),
            "rows": _rows(loop.candidates(number)),
        }


def same_passes(one: Sequence[str], other: Sequence[str], settings: FeatureSettings, layers: int) -> bool:
    """Whether two lists of columns come from the very same passes through the model, so that one pass can serve both.

    Args:
        one: standard feature names.
        other: standard feature names.
        settings: of the extraction.
        layers: decoder layers of the model.
    """
    plans = [plan_passes(names, settings, layers) for names in (one, other)]
    passes = [(replace(p, features=(), embedding_layers=()), p.forward_layers, p.narrow) for p in plans]
    return passes[0] == passes[1]


def copy_columns(source: Path, out: Path, names: Iterable[str]) -> None:
    """Write a feature store with some of another one's columns, as an extraction of these columns would have.

    Args:
        source: a feature store of one table.
        out: an empty directory.
        names: the columns.
    """
    (table,) = open_tables(source)
    chosen = [name for name in table.names if name in set(names)]
    columns = {name: FeatureStore(source)[name] for name in chosen}
    target = FeatureTable(out, table.key.only(chosen))
    rows = table.rows()
    for start in range(0, rows.num_rows, SHARD_ROWS):
        part = rows.slice(start, SHARD_ROWS)
        shard = {name: values[start : start + SHARD_ROWS] for name, values in columns.items()}
        target.append(part["id"].to_pylist(), part[CONTENT].to_pylist(), shard)


def _rows(samples: Iterable[Sample]) -> str:
    """Hash of some samples in their order."""
    digest = hashlib.sha256()
    for sample in samples:
        digest.update(f"{json.dumps(sample.id)} {sample.content_hash}\n".encode())
    return digest.hexdigest()


def _entry(place: Path, name: str, inputs: Mapping[str, Any]) -> Path:
    return place / f"{name}-{hash_settings(inputs)[:32]}"


@contextmanager
def _alone_at(entry: Path) -> Iterator[None]:
    """Wait until no other process is at this result; the system frees it when a process ends, however it ends."""
    import fcntl

    entry.parent.mkdir(parents=True, exist_ok=True)
    with (entry.parent / f"{entry.name}.lock").open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def _copy(source: Path, target: Path) -> None:
    """Copy a file or a folder beside its target and rename it."""
    if source.is_dir():
        with new_directory(target) as part:
            shutil.copytree(source, part, dirs_exist_ok=True)
        return
    part = target.with_name(target.name + ".part")
    shutil.copyfile(source, part)
    sync_file(part)
    part.replace(target)
