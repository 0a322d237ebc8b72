"""The command that has lmms-eval ask a run's checkpoint its benchmarks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from liit.cli.app import app
from liit.cli.runs import Settings
from liit.cli.show import AsJson, facts
from liit.errors import InputError
from liit.model.quiet import quiet_libraries


@app.command()
def lmms(
    run: Annotated[Path, typer.Argument(help="The run directory.")],
    tasks: Annotated[str, typer.Option(help="Benchmarks of lmms-eval, separated by commas.")],
    step: Annotated[
        int | None, typer.Option(help="Whose checkpoint; 0: the base model. The last trained unless given.", min=0)
    ] = None,
    batch_size: Annotated[int | None, typer.Option(help="Questions per batch; as the run's.", min=1)] = None,
    limit: Annotated[int | None, typer.Option(help="At most so many questions of each, for a try.", min=1)] = None,
    include: Annotated[Path | None, typer.Option(help="Folder with benchmarks of your own, as YAML.")] = None,
    generation: Annotated[
        str | None, typer.Option(help="Instead of the benchmarks' settings, e.g. max_new_tokens=64,temperature=0.")
    ] = None,
    settings: Settings = None,
    as_json: AsJson = False,
) -> None:
    """Measure a run's checkpoint on benchmarks of lmms-eval.

    The extra liit[lmms] installs it; docs/evaluation.md says what is answered.
    """
    from importlib.util import find_spec

    if find_spec("lmms_eval") is None:  # before the model is loaded, which takes seconds
        raise InputError("lmms: the package lmms-eval is not installed; pip install 'liit[lmms]'")
    quiet_libraries()
    from liit.lifelong.benchmarks import benchmark_step, scores

    result = benchmark_step(
        run, step, [name.strip() for name in tasks.split(",") if name.strip()], batch_size=batch_size, limit=limit,
        include=include, generation=generation, overrides=settings or (),
    )  # fmt: skip
    facts(result if as_json else {**result, "benchmarks": scores(result["benchmarks"])}, as_json)
