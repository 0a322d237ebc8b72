"""Commands that run everything: demo, run, report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from liit.cli.app import app
from liit.cli.show import AsJson, console, facts
from liit.model.quiet import quiet_libraries

Settings = Annotated[
    list[str] | None, typer.Option("--set", help="Override a setting: key=value, e.g. training.epochs=3. Repeatable.")
]


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Directory of the runs and the report.")] = Path("runs/demo"),
    methods: Annotated[
        str | None, typer.Option(help="Methods to compare, separated by commas; those of the README unless given.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Everything random follows from it.")] = 0,
    jobs: Annotated[
        int | None, typer.Option(help="Runs side by side; one per GPU or core if not given.", min=1)
    ] = None,
    settings: Settings = None,
    rebuild_base: Annotated[
        bool, typer.Option("--rebuild-base", help="Train the built-in base model again (instead of running).")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Run the built-in continuum: methods side by side, then a report."""
    quiet_libraries()
    screen = console(as_json)

    def show(line: str) -> None:
        screen.print(line, highlight=False, markup=False, soft_wrap=True)

    if rebuild_base:
        from liit.demo.vlm.rebuild import rebuild_base as rebuild

        facts(rebuild(out / "base", show=show), as_json)
        return
    from liit.demo.run import METHODS, run_demo
    from liit.report import BRIEF, summary_table, to_json, to_text

    chosen = METHODS if methods is None else [name.strip() for name in methods.split(",") if name.strip()]
    result = run_demo(out, methods=chosen, seed=seed, overrides=settings or (), jobs=jobs, show=show)
    table = summary_table(result.runs, result.reference)
    if as_json:
        print(to_json(table))
        return
    print()
    print(to_text(table, BRIEF).rstrip())
    spent = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in result.seconds.items())
    print(f"\ntime: {sum(result.seconds.values()):.0f} s ({spent})")
    print(f"report: {result.report}")


@app.command()
def run(
    continuum: Annotated[Path, typer.Argument(help="The continuum file (YAML).")],
    out: Annotated[Path, typer.Option(help="The run directory; one that exists is gone on with.")],
    method: Annotated[str | None, typer.Option(help="Instead of the file's method; see liit methods.")] = None,
    settings: Settings = None,
    no_report: Annotated[bool, typer.Option("--no-report", help="Leave out the report and the table.")] = False,
    shared: Annotated[Path | None, typer.Option(hidden=True, help="What runs of one comparison do once.")] = None,
    as_json: AsJson = False,
) -> None:
    """Run a continuum, or go on with a run that was stopped."""
    from liit.config import load_config
    from liit.lifelong.progress import ConsoleReporter

    overrides = [*(settings or ()), *([f"method={method}"] if method else ())]
    loaded = load_config(continuum, overrides)  # before the model's libraries, which take seconds to load
    quiet_libraries()
    from liit.lifelong.loop import run as run_continuum
    from liit.report import BRIEF, summary_table, to_json, to_text, write_report

    directory = run_continuum(loaded, out, reporter=ConsoleReporter(console(as_json)), shared=shared)
    if no_report:
        return
    report = write_report([directory.path], directory.path / "report.html")
    table = summary_table([directory.path], None)
    if as_json:
        print(to_json(table))
        return
    print()
    print(to_text(table, BRIEF).rstrip())
    print(f"\nreport: {report}")


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(help="Run directories on the same continuum.")],
    reference: Annotated[Path | None, typer.Option(help="The multitask run that relative gain refers to.")] = None,
    out: Annotated[Path, typer.Option(help="The page to write.")] = Path("report.html"),
    as_json: AsJson = False,
) -> None:
    """Write the report of one or several runs."""
    from liit.report import BRIEF, load_runs, scoring_text, summary_table, to_json, to_text, write_report

    everything = [*runs, *([reference] if reference and reference not in runs else ())]
    page = write_report(everything, out, reference=reference)
    table: Any = summary_table(everything, reference)
    if as_json:
        print(to_json(table))
        return
    scoring = scoring_text(load_runs(everything, pools=()))
    print("\n".join([to_text(table, BRIEF), *([scoring] if scoring else []), f"report: {page}"]))
