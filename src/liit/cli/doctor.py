"""The command that looks before anything starts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from liit.cli.app import app
from liit.cli.runs import Settings
from liit.cli.show import AsJson, console
from liit.cli.stage_commands import FEATURES
from liit.errors import InputError
from liit.model.quiet import quiet_libraries


@app.command()
def doctor(
    continuum: Annotated[Path | None, typer.Argument(help="A continuum file: predict its run.")] = None,
    model: Annotated[str | None, typer.Option(help="builtin:demo, a directory or a hub name.")] = None,
    pool: Annotated[Path | None, typer.Option(help="Directory of a pool: predict its extraction.")] = None,
    features: Annotated[str, typer.Option(help="Feature names, separated by commas.")] = FEATURES,
    adapter: Annotated[Path | None, typer.Option(help="Adapter to score with; none: a fresh one.")] = None,
    settings: Settings = None,
    no_run: Annotated[
        bool, typer.Option("--no-run", help="Load no weights and try nothing; times are then lower bounds.")
    ] = False,
    seconds: Annotated[float, typer.Option(help="How long trying may take, roughly.", min=0.1)] = 10.0,
    as_json: AsJson = False,
) -> None:
    """Say what this machine has and what a run will need.

    With a continuum file: a whole run. With a pool as well, or with a model and a pool: that pool's extraction. With a
    model alone: its size.
    """
    from liit.config import load_config

    if (continuum is None) == (model is None) and (model is not None or pool is not None or settings):
        raise InputError("doctor: expected a continuum file or --model, one of them, with --pool and --set")
    loaded = load_config(continuum, settings or ()) if continuum is not None else None
    quiet_libraries()
    from liit.doctor.diagnosis import diagnose, settings_for
    from liit.lifelong.rundir import finite

    if model is not None:
        loaded = settings_for(model, settings or ())
    names = [name.strip() for name in features.split(",") if name.strip()]
    found = diagnose(
        loaded, pool=pool, features=names, adapter=adapter, whole_run=continuum is not None and pool is None,
        run=not no_run, budget=seconds,
    )  # fmt: skip
    if as_json:
        print(json.dumps(finite(found.as_dict())))
        return
    for line in found.lines():
        console(as_json).print(line, highlight=False, markup=False, soft_wrap=True)
