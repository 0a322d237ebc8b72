"""Read run directories into the report's data model."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from liit.errors import InputError
from liit.report.model import Outline, Run, Selection, Step


def load_runs(paths: Sequence[Path], pools: Collection[Path] | None = None) -> tuple[Run, ...]:
    """Read several runs of one continuum.

    Args:
        paths: run directories. Runs of the same method are told apart by their seed, or else by their directory.
        pools: of these runs the pools are read too, which takes most of the time and memory; None: of all.

    Returns:
        The runs in the order given.

    Raises:
        InputError: no path, a directory that is not a run, or runs of different continua.
    """
    if not paths:
        raise InputError("runs: none given; name at least one run directory")
    runs = [load_run(path, pool=pools is None or path in pools) for path in paths]
    first = runs[0]
    for run in runs[1:]:
        same = (run.continuum.steps, set(run.continuum.skills)) == (first.continuum.steps, set(first.continuum.skills))
        if not same or run.continuum.name != first.continuum.name:
            raise InputError(
                f"runs: {run.path} belongs to the continuum {run.continuum.name!r} {list(run.continuum.steps)}, but "
                f"{first.path} to {first.continuum.name!r} {list(first.continuum.steps)}; report them apart"
            )
    methods = Counter(run.method for run in runs)
    seeds = Counter((run.method, run.seed) for run in runs)
    return tuple(replace(run, label=_label(run, methods, seeds)) for run in runs)


def _label(run: Run, methods: Mapping[str, int], seeds: Mapping[tuple[str, int], int]) -> str:
    if methods[run.method] == 1:
        return run.method
    if seeds[run.method, run.seed] == 1:
        return f"{run.method} (seed {run.seed})"
    return f"{run.method} ({run.path.name})"


def load_run(path: Path, *, pool: bool = True) -> Run:
    """Read one run directory, finished or not.

    Args:
        path: the directory.
        pool: also read what was in the pool at every step.

    Raises:
        InputError: the directory has no readable run.json or continuum.yaml, or another of its files is damaged.
    """
    path = Path(path)
    try:
        return _load_run(path, pool)
    except InputError:
        raise
    except (LookupError, TypeError, AttributeError, ValueError) as error:  # JSON and YAML of another form than we write
        raise InputError(
            f"runs: a file of {path} is not as liit wrote it ({type(error).__name__}: {error}); put it back, or make "
            "the run again"
        ) from error


def _load_run(path: Path, pool: bool) -> Run:
    state, config = _run_json(path), _config(path)
    continuum = _outline(state, config)
    extractions = {int(entry["step"]): entry for entry in state.get("stages", []) if entry["stage"] == "extract"}
    steps = tuple(
        _step(path, number, name, extractions.get(number)) for number, name in enumerate(continuum.steps, start=1)
    )
    evaluations = [_evaluation(path / "steps" / "00-base"), *(step.evaluation for step in steps)]
    skills = continuum.skills
    extra = [skill for skills_of_step in evaluations if skills_of_step for skill in skills_of_step]
    unknown = sorted(set(extra) - set(skills))
    if unknown:
        raise InputError(
            f"{path}: evaluated skills {unknown} are not in its continuum.yaml; the directory mixes two runs"
        )
    scores = np.array(
        [[_score(evaluation, skill) for skill in skills] for evaluation in evaluations], dtype=np.float64
    ).reshape(len(evaluations), len(skills))
    last = _step_directory(path, len(steps), steps[-1].name) if steps else None
    return Run(
        path=path,
        label=str(state.get("method", "?")),
        method=str(state.get("method", "?")),
        seed=int(state.get("seed", 0)),
        version=str(state.get("liit", "?")),
        config=config,
        continuum=continuum,
        steps=_with_pools(path, steps) if pool else steps,
        scores=scores,
        final_rows=_final_rows(last) if last else {},
        seconds=_sums(path, "seconds"),
        flops=_sums(path, "flops"),
        wrong_format=_wrong_format(steps[-1].evaluation if steps else None),
    )


def open_pool(path: Path) -> Any:
    """The pool of a run, read-only use; None when the run has none yet."""
    from liit.data.pool import Pool

    directory = path / "pool"
    return Pool.open(directory) if directory.is_dir() else None


def _run_json(path: Path) -> dict[str, Any]:
    state = _json(path / "run.json")
    if not isinstance(state, dict) or not isinstance(state.get("steps"), list):
        raise InputError(f"runs: {path} is not a run directory (no readable run.json in it); give the --out of a run")
    return state


def _config(path: Path) -> dict[str, Any]:
    file = path / "continuum.yaml"
    try:
        config = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise InputError(f"runs: {file} cannot be read ({type(error).__name__}); is {path} a complete run?") from error
    if not isinstance(config, dict):
        raise InputError(f"runs: {file} is not a continuum file")
    return config


def _outline(state: Mapping[str, Any], config: Mapping[str, Any]) -> Outline:
    introduced: dict[str, int] = {}
    for number, step in enumerate(config.get("steps") or [], start=1):
        for task in step.get("evaluation") or []:
            introduced.setdefault(str(task["skill"]), number)
    for task in config.get("unseen") or []:
        introduced.setdefault(str(task["skill"]), 0)
    return Outline(
        name=str(state.get("name", "")),
        steps=tuple(str(name) for name in state["steps"]),
        skills=tuple(introduced),
        introduced=np.array(list(introduced.values()), dtype=np.int64),
    )


def _step_directory(path: Path, number: int, name: str) -> Path:
    # By number: a step's name may hold characters that its directory's name cannot.
    found = sorted((path / "steps").glob(f"{number:02d}-*"))
    return found[0] if found else path / "steps" / f"{number:02d}-{name}"


def _step(path: Path, number: int, name: str, extract: Mapping[str, Any] | None) -> Step:
    directory = _step_directory(path, number, name)
    pruned = directory / "pruned.parquet"
    return Step(
        number=number,
        name=name,
        ingest=_json(directory / "ingest.json"),
        extract=extract,
        selection=_selection(directory),
        train=_json(directory / "train.json"),
        prune=_json(directory / "prune.json"),
        pruned=_table(pruned) if pruned.is_file() else None,
        evaluation=_evaluation(directory),
    )


def _selection(directory: Path) -> Selection | None:
    if not (directory / "selection.parquet").is_file():
        return None
    labels = directory / "labels.parquet"
    clusters = None
    if labels.is_file():
        table = _table(labels).select(["id", "cluster"])
        clusters = dict(zip(table["id"].to_pylist(), table["cluster"].to_pylist(), strict=True))
    document = _json(directory / "selection.json") or {}
    return Selection(
        table=_table(directory / "selection.parquet"),
        info={**document, **(document.get("selector") or {})},
        labels=clusters,
    )


def _table(file: Path) -> pa.Table:
    try:
        return pq.read_table(file, page_checksum_verification=True)
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"runs: {file} cannot be read as Parquet ({' '.join(str(error).split())[:160]})") from error


def _with_pools(path: Path, steps: tuple[Step, ...]) -> tuple[Step, ...]:
    pool = open_pool(path)
    if pool is None:
        return steps
    return tuple(_with_pool(step, pool) for step in steps)


def _with_pool(step: Step, pool: Any) -> Step:
    if step.pool_version is None or step.pool_version < pool.oldest:  # `liit pool gc` has freed it
        return step
    table = pool.at(step.pool_version).columns(["id", "source", "skill"])
    columns = (table[name].to_pylist() for name in ("id", "source", "skill"))
    return replace(step, pool={key: (source or "", skill or "") for key, source, skill in zip(*columns, strict=True)})


def _evaluation(directory: Path) -> Mapping[str, Mapping[str, Any]] | None:
    document = _json(directory / "evaluation.json")
    return None if document is None else document["skills"]


def _score(evaluation: Mapping[str, Mapping[str, Any]] | None, skill: str) -> float:
    if evaluation is None or skill not in evaluation or evaluation[skill].get("score") is None:
        return float("nan")
    return float(evaluation[skill]["score"])


def _final_rows(directory: Path) -> dict[str, dict[str, float]]:
    rows: dict[str, dict[str, float]] = {}
    for row in _json_lines(directory / "predictions.jsonl"):
        rows.setdefault(str(row["skill"]), {})[str(row["id"])] = float(row["score"])
    return rows


def _wrong_format(evaluation: Mapping[str, Mapping[str, Any]] | None) -> dict[str, tuple[int, int]]:
    return {
        skill: (int(result.get("wrong_format", 0)), int(result.get("n", 0)))
        for skill, result in (evaluation or {}).items()
    }


def _sums(path: Path, what: str) -> dict[str, float]:
    """Something of `timings.jsonl` by stage, summed over steps."""
    sums: dict[str, float] = {}
    for row in _json_lines(path / "timings.jsonl"):
        sums[str(row["stage"])] = sums.get(str(row["stage"]), 0.0) + float(row.get(what, "nan"))
    return sums


def _json(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise InputError(f"runs: {file} cannot be read as JSON ({error})") from error


def _json_lines(file: Path) -> Iterator[Any]:
    if not file.is_file():
        return
    with file.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                yield json.loads(line)
            except ValueError as error:
                raise InputError(f"runs: {file}, line {number}, is not JSON ({error})") from error
