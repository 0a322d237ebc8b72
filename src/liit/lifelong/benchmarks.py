"""Standard benchmarks for a checkpoint of a run, through lmms-eval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from liit.config import load_config
from liit.errors import InputError
from liit.evaluation.lmms import evaluate_benchmarks
from liit.lifelong.rundir import RunDirectory, write_json
from liit.lifelong.workbench import Workbench
from liit.model.lora import WEIGHTS

FOLDER = "lmms"


def benchmark_step(
    run: Path,
    step: int | None,
    tasks: Sequence[str],
    *,
    batch_size: int | None = None,
    limit: int | None = None,
    include: Path | None = None,
    generation: str | None = None,
    overrides: Sequence[str] = (),
) -> dict[str, Any]:
    """Ask the checkpoint of one step the benchmarks, and write what was found into the run's folder `lmms`.

    Args:
        run: the run directory; it may be unfinished, as long as the step is trained.
        step: number of the step; 0 for the base model, None for the last that is trained.
        tasks: names of lmms-eval's benchmarks.
        batch_size: questions per batch; as the run's evaluation unless given.
        limit: at most so many questions of each.
        include: folder with benchmarks of one's own.
        generation: instead of the benchmarks' generation settings.
        overrides: texts like ``model.path=/other/place``, where the run's model has moved.

    Returns:
        Step, checkpoint, what was found by benchmark, and the file it was written to.

    Raises:
        InputError: no such run, step or benchmark, or lmms-eval is not installed.
    """
    if not (run / "continuum.yaml").is_file():
        raise InputError(f"run: {run} is not a run directory; give the --out of a run")
    directory = RunDirectory(run, load_config(run / "continuum.yaml", check_files=False))
    number = _trained_step(directory, step)
    continuum = load_config(run / "continuum.yaml", overrides, check_files=False)
    adapter = directory.step(number) / "adapter" if number else None
    vlm = Workbench(continuum).with_adapter(adapter)
    found = evaluate_benchmarks(
        vlm,
        tasks,
        batch_size=batch_size or continuum.evaluation.batch_size,
        limit=limit,
        include=include,
        generation=generation,
    )
    result = {
        "step": number,
        "checkpoint": vlm.checkpoint_id,
        "limit": limit,
        "generation": generation,
        "benchmarks": {task: asdict(benchmark) for task, benchmark in found.items()},
    }
    file = run / FOLDER / f"{directory.step(number).name}.json"
    file.parent.mkdir(exist_ok=True)
    write_json(file, result)
    return {**result, "written": str(file)}


def scores(benchmarks: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """The numbers among lmms-eval's results, by benchmark and metric."""
    found: dict[str, float] = {}
    for task, benchmark in benchmarks.items():
        for metric, value in benchmark["results"].items():
            if isinstance(value, int | float) and "stderr" not in metric:
                found[f"{task} {metric.removesuffix(',none')}"] = float(value)
    return found


def _trained_step(directory: RunDirectory, step: int | None) -> int:
    trained = [
        number
        for number in range(1, len(directory.continuum.steps) + 1)
        if directory.facts(number, "train") is not None and (directory.step(number) / "adapter" / WEIGHTS).is_file()
    ]
    wanted = max(trained, default=0) if step is None else step
    if wanted != 0 and wanted not in trained:
        there = ", ".join(map(str, [0, *trained]))
        raise InputError(f"step: {wanted} has no checkpoint in {directory.path}; expected one of {there} (0: the base)")
    return wanted
