"""The run directory: what is complete, and where everything lies.

A stage writes its files beside their targets and renames them; only then is it listed in `run.json`, itself replaced
atomically. So a killed run has, at any instant, a list of complete stages and at most one unfinished one, which is done
again from the beginning. `run.json` holds no times, so that a resumed run ends with the same bytes; they lie in
`timings.jsonl`.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

import liit
from liit.config import Continuum, config_sha256, dump_config, load_config
from liit.data.lance_files import sync_file
from liit.errors import InputError
from liit.lifelong.spent import FILE, forget_spent, spent_on

FORMAT = 1


class RunDirectory:
    """One run on disk. Nothing is written before `exclusive`.

    Args:
        path: the directory; made when it does not exist.
        continuum: what is run there.

    Raises:
        InputError: the directory holds something else, or another run.
    """

    def __init__(self, path: Path, continuum: Continuum) -> None:
        self.path = Path(path)
        self.continuum = continuum
        self._state = self._read()

    def step(self, number: int) -> Path:
        """Directory of a step; 0 is the base model before any step."""
        name = "base" if number == 0 else self.continuum.steps[number - 1].name
        return self.path / "steps" / f"{number:02d}-{name}"

    @property
    def pool(self) -> Path:
        """The pool's directory."""
        return self.path / "pool"

    @property
    def spent(self) -> Path:
        """What the stage at hand has taken so far; there while it is not complete."""
        return self.path / FILE

    @property
    def stages(self) -> tuple[tuple[int, str], ...]:
        """Step and name of every complete stage, in the order in which they were completed."""
        return tuple((entry["step"], entry["stage"]) for entry in self._state["stages"])

    def facts(self, step: int, stage: str) -> dict[str, Any] | None:
        """What a complete stage recorded, or None while it is not complete."""
        for entry in self._state["stages"]:
            if entry["step"] == step and entry["stage"] == stage:
                return dict(entry)
        return None

    def complete(
        self, step: int, stage: str, seconds: float, facts: Mapping[str, Any], costs: Mapping[str, Any] | None = None
    ) -> None:
        """List a stage as complete; its files must be in place. Its costs go with the seconds, as far as not None."""
        known = {name: value for name, value in (costs or {}).items() if value is not None}
        timing = {"step": step, "stage": stage, "seconds": round(seconds, 3), **known}
        before = [row for row in read_timings(self.path) if (row["step"], row["stage"]) != (step, stage)]
        write_jsonl(self.path / "timings.jsonl", [*before, timing])
        state = {**self._state, "stages": [*self._state["stages"], {"step": step, "stage": stage, **facts}]}
        write_json(self.path / "run.json", state)
        self._state = state
        forget_spent(self.spent)

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Make the directory when it is new, and keep a second process out while the run goes on.

        Wrong input that shows before any stage of a new run is complete leaves nothing behind.

        Raises:
            InputError: another process is at it, or the directory cannot be made.
        """
        with alone_in(self.path, "runs") as new:
            fresh = not (self.path / "run.json").is_file()
            try:
                self._state = self._read()  # another process may have gone on with the run since
                self._describe()
                if spent_on(self.spent) in self.stages:  # killed right after the stage was listed
                    forget_spent(self.spent)
                yield
            except InputError:
                if fresh and not self._state["stages"]:
                    take_back(self.path, new)
                raise

    def _describe(self) -> None:
        # run.json first: it marks the directory as a run, so that only a run's continuum.yaml is ever written over.
        if not (self.path / "run.json").is_file():
            write_json(self.path / "run.json", self._state)
        if not (self.path / "continuum.yaml").is_file():
            write_text(self.path / "continuum.yaml", dump_config(self.continuum))

    def _read(self) -> dict[str, Any]:
        identity = {
            "liit": liit.__version__,
            "format": FORMAT,
            "name": self.continuum.name,
            "method": self.continuum.method,
            "seed": self.continuum.seed,
            "config_sha256": config_sha256(self.continuum),
            "steps": [step.name for step in self.continuum.steps],
        }
        file = self.path / "run.json"
        if file.is_file():
            return self._resume(file, identity)
        if self.path.exists() and (
            not self.path.is_dir() or {f.name for f in self.path.iterdir()} - {"lock", "run.json.part"}
        ):
            raise InputError(f"out: {self.path} exists and is not a run; name a new directory")
        return {**identity, "stages": []}

    def _resume(self, file: Path, identity: Mapping[str, Any]) -> dict[str, Any]:
        try:
            state = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InputError(f"out: {file} cannot be read ({error}); name a new directory") from error
        if not isinstance(state, dict) or not isinstance(state.get("stages"), list):
            raise InputError(f"out: {file} was not written by liit; name a new directory")
        if state.get("format") != FORMAT:
            raise InputError(
                f"out: {self.path} was written in format {state.get('format')}, this liit writes {FORMAT}; "
                "name a new directory"
            )
        if state.get("config_sha256") != identity["config_sha256"]:
            raise InputError(
                f"out: {self.path} belongs to another run ({self._difference(state, identity)}); "
                "name a new directory, or go on with its own continuum.yaml"
            )
        return state

    def _difference(self, state: Mapping[str, Any], identity: Mapping[str, Any]) -> str:
        for key in ("name", "method", "seed"):
            if state.get(key) != identity[key]:
                return f"{key} {state.get(key)!r}, not {identity[key]!r}"
        try:
            before = load_config(self.path / "continuum.yaml", check_files=False).model_dump(mode="json")
        except InputError:  # killed before it was written, or changed by hand
            return "its settings differ"
        now = self.continuum.model_dump(mode="json")
        changed = [key for key in now if before.get(key) != now[key]]
        return f"its {', '.join(changed)} differ" if changed else "its settings differ"


def read_timings(run: Path) -> list[dict[str, Any]]:
    """What the stages of a run took, in the order of their ends: step, stage, seconds; where known flops, shared."""
    file = run / "timings.jsonl"
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] if file.is_file() else []


@contextmanager
def nothing_left_of(path: Path) -> Iterator[None]:
    """When the input turns out to be wrong, remove a directory that was not there, or was empty, before."""
    new = [folder for folder in (path, *path.parents) if not folder.exists()]
    fresh = bool(new) or (path.is_dir() and not any(path.iterdir()))
    try:
        yield
    except InputError:
        if fresh and path.is_dir():
            take_back(path, new)
        raise


@contextmanager
def alone_in(path: Path, doing: str) -> Iterator[list[Path]]:
    """Make a directory when it is new, and keep other processes out; the system frees it when this one ends.

    Args:
        path: the directory.
        doing: what the other process would be doing there, for the message.

    Yields:
        The folders that were made, for `take_back`.

    Raises:
        InputError: another process is at it, or the directory cannot be made.
    """
    import fcntl

    new = [folder for folder in (path, *path.parents) if not folder.exists()]
    try:
        path.mkdir(parents=True, exist_ok=True)
        stream = (path / "lock").open("w")
    except OSError as error:
        raise InputError(f"out: cannot make {path} ({error.strerror}); name another directory") from error
    with stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise InputError(f"out: another process {doing} in {path}; wait, or name another") from error
        yield new


def take_back(path: Path, new: Sequence[Path]) -> None:
    """Remove what a run wrote into a directory that was not there, or was empty, before."""
    for child in path.iterdir():
        if child.is_dir():
            shutil.rmtree(child, ignore_errors=True)
        else:
            child.unlink(missing_ok=True)
    for folder in new:
        with suppress(OSError):  # somebody else put something there meanwhile
            folder.rmdir()


def write_text(path: Path, text: str) -> None:
    """Write a file beside its target and rename it."""
    part = path.with_name(path.name + ".part")
    with part.open("w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    part.replace(path)


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically; numbers that are not finite become null."""
    write_text(path, json.dumps(finite(value), indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def finite(value: Any) -> Any:
    """The value with None for numbers that are not finite, which JSON does not have."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    return [finite(item) for item in value] if isinstance(value, list | tuple) else value


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write JSON lines atomically."""
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def write_table(path: Path, table: pa.Table) -> None:
    """Write a Parquet file atomically, with a checksum of every page, which `read_table` compares."""
    part = path.with_name(path.name + ".part")
    pq.write_table(table, part, write_page_checksum=True)
    sync_file(part)
    part.replace(path)


def read_table(path: Path, columns: list[str]) -> pa.Table:
    """Read columns of a Parquet file; all of it is read, so that damage shows wherever it is.

    Raises:
        OSError, pyarrow.ArrowException, KeyError, ValueError: it is missing, damaged, or lacks a column.
    """
    return pq.read_table(path, page_checksum_verification=True).select(columns)


@contextmanager
def new_directory(path: Path) -> Iterator[Path]:
    """Give a fresh directory that takes the target's place when the block ends without an error."""
    part = path.with_name(path.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    yield part
    for file in part.rglob("*"):
        if file.is_file():
            sync_file(file)
    shutil.rmtree(path, ignore_errors=True)
    part.rename(path)
