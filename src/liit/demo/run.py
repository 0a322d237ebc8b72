"""`liit demo`: the built-in continuum with its methods side by side, ending with a report."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from liit.config import Continuum, load_config
from liit.data.sample import ImageRef
from liit.demo.continuum import cached_continuum
from liit.errors import InputError
from liit.lifelong.ahead import fill_rows, in_processes
from liit.lifelong.methods import get_method
from liit.lifelong.parallel import Job, run_jobs, side_by_side
from liit.lifelong.workbench import cache_directory
from liit.model.fingerprint import hash_file

METHODS = ("adapt-inf", "lite-adapt-inf-embedding", "replay", "sequential")
REFERENCE = "multitask"
START_ORDER = ("adapt-inf", "multitask", "lite-adapt-inf-embedding", "replay", "sequential")


@dataclass(frozen=True, slots=True)
class DemoResult:
    """Where everything lies, and how long it took.

    Attributes:
        runs: the run directories, methods first, the reference last.
        reference: the multitask run.
        report: the report.
        seconds: wall time of the parts of this call.
    """

    runs: tuple[Path, ...]
    reference: Path
    report: Path
    seconds: dict[str, float]


def run_demo(
    out: Path,
    *,
    methods: Sequence[str] = METHODS,
    seed: int = 0,
    overrides: Sequence[str] = (),
    jobs: int | None = None,
    show: Callable[[str], None] = print,
) -> DemoResult:
    """Build the continuum, run the methods and the reference side by side, and write the report.

    Called again, it goes on where it was stopped.

    Args:
        out: directory of the runs and the report.
        methods: to run beside the reference.
        seed: of everything.
        overrides: texts like ``budget=500``.
        jobs: processes side by side; by default one per GPU, without any one per core.
        show: gets the lines that the runs print.
    """
    from liit.report import write_report

    methods = tuple(dict.fromkeys(methods))
    for method in methods:
        get_method(method)
    if not methods:
        raise InputError("methods: got none, expected at least one of the names that liit methods lists")
    seconds: dict[str, float] = {}
    at = time.perf_counter()
    path = cached_continuum(cache_directory())
    settings = [f"seed={seed}", *overrides]
    continuum = load_config(path, settings)
    seconds["continuum"] = time.perf_counter() - at
    show(f"continuum: {path.parent} ({seconds['continuum']:.1f} s)")

    at = time.perf_counter()
    images = keep_vision_states(continuum, path.parent / "images")
    seconds["vision"] = time.perf_counter() - at
    show(f"vision tower: {images} images computed and kept ({seconds['vision']:.1f} s)")

    at = time.perf_counter()
    names = sorted({*methods, REFERENCE}, key=_start_order)
    run_jobs([_job(path, out, name, settings) for name in names], jobs or side_by_side(), show)
    seconds["runs"] = time.perf_counter() - at

    at = time.perf_counter()
    runs = tuple(out / name for name in (*(m for m in methods if m != REFERENCE), REFERENCE))
    report = write_report(runs, out / "report.html", reference=out / REFERENCE)
    seconds["report"] = time.perf_counter() - at
    return DemoResult(runs, out / REFERENCE, report, seconds)


def keep_vision_states(continuum: Continuum, images: Path) -> int:
    """Compute the frozen tower's outputs for every image of the continuum once, for all methods; how many were new."""
    rows = [[ImageRef(str(file), hash_file(file))] for file in sorted(images.iterdir())]
    return in_processes(fill_rows, continuum, rows, side_by_side())


def _job(path: Path, out: Path, method: str, settings: Sequence[str]) -> Job:
    options = [option for text in (*settings, f"method={method}") for option in ("--set", text)]
    return Job(method, ("run", str(path), "--out", str(out / method), "--no-report", *options))


def _start_order(method: str) -> int:
    """Place in the queue: in this order two cores finish together."""
    return START_ORDER.index(method) if method in START_ORDER else len(START_ORDER)
