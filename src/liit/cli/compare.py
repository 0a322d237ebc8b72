"""The command that compares methods over seeds."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from liit.cli.app import app
from liit.cli.runs import Settings
from liit.cli.show import AsJson, console
from liit.errors import InputError


@app.command()
def compare(
    continuum: Annotated[Path, typer.Argument(help="The continuum file (YAML).")],
    methods: Annotated[str, typer.Option(help="Methods, separated by commas; see liit methods.")],
    seeds: Annotated[int, typer.Option(help="How many seeds each method runs with, counted from the file's.")] = 3,
    out: Annotated[Path, typer.Option(help="Directory of the runs, the table and the report.")] = Path("runs/compare"),
    jobs: Annotated[
        int | None, typer.Option(help="Runs side by side; one per GPU or core if not given.", min=1)
    ] = None,
    settings: Settings = None,
    no_reference: Annotated[
        bool, typer.Option("--no-reference", help="Do not add multitask, which relative gains refer to.")
    ] = False,
    no_equal_compute: Annotated[
        bool,
        typer.Option("--no-equal-compute", help="Do not run the random methods with the compute of selection too."),
    ] = False,
    csv: Annotated[Path | None, typer.Option(help="Also write the table to this file, as CSV.")] = None,
    as_json: AsJson = False,
) -> None:
    """Compare methods over seeds: one table and one report.

    Random choice, from the whole pool (replay) and evenly from its sources (random-balanced), is always among them.
    Stopped anywhere, the same command goes on; with more methods or seeds it takes the runs that are there.
    """
    if seeds < 1:
        raise InputError(f"--seeds: got {seeds}, expected at least 1; a standard deviation needs 2, an honest one more")
    if csv is not None and not csv.absolute().parent.is_dir():
        raise InputError(f"--csv: there is no folder {csv.absolute().parent}; name a file in one that exists")
    if csv is not None and (csv.is_dir() or not os.access(csv.absolute().parent, os.W_OK)):
        raise InputError(f"--csv: {csv} is a folder or cannot be written; name a file in a folder that can be")
    from liit.lifelong.compare import compare as run_compare
    from liit.lifelong.compare import in_words
    from liit.lifelong.rundir import finite, write_text

    screen = console(as_json)

    def show(line: str) -> None:
        screen.print(line, highlight=False, markup=False, soft_wrap=True)

    found = run_compare(
        continuum, [name.strip() for name in methods.split(",") if name.strip()], seeds, out,
        overrides=settings or (), jobs=jobs, reference=not no_reference, equal_compute=not no_equal_compute, show=show,
    )  # fmt: skip
    from liit.report.seeds import to_csv, to_text
    from liit.report.verdict_seeds import verdict_over_seeds

    if csv is not None:
        write_text(csv, to_csv(found.table))
    if as_json:
        import json

        print(json.dumps(finite(found.result), ensure_ascii=False))
        return
    print(f"\n{to_text(found.table)}")
    for sentence in verdict_over_seeds(found.table):
        print(f"- {sentence}")
    print(f"\n{in_words(found.result['shared'])}")
    print(f"table: {found.out / 'compare.json'}, .csv, .txt\nreport: {found.report}")
