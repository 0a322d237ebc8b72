"""The program `liit`: its commands, and how errors become exit codes.

Exit codes: 0 done; 2 the user's input is wrong (one line); 1 anything else.
"""

from __future__ import annotations

import sys
from typing import NoReturn

import typer

from liit.cli.interrupt import Interrupts
from liit.cli.problems import disk_problem, memory_problem
from liit.errors import InputError
from liit.lifelong.parallel import JobError, end_with_parent

app = typer.Typer(
    name="liit",
    help="Lifelong instruction tuning of vision-language models: choose what to train on, within a fixed budget.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

_INTERRUPTED = 130  # what typer makes of Ctrl-C


def main() -> NoReturn:
    """Run a command and leave with its exit code."""
    end_with_parent()
    interrupts = Interrupts()
    interrupts.watch()
    try:
        from liit.cli import compare, doctor, lists, lmms, pool_commands, runs, stage_commands  # noqa: F401 (registered)

        app()
    except BaseException as error:  # Lance's panics are no Exception
        _leave(error, interrupts.seen)
    sys.exit(0)


def _leave(error: BaseException, interrupted: bool) -> NoReturn:
    """Say in one line how a command ended, where there is one, and leave with the exit code for it."""
    code = error.code if isinstance(error, SystemExit) else None
    if isinstance(error, SystemExit) and not code:
        raise error
    if interrupted or isinstance(error, KeyboardInterrupt) or code == _INTERRUPTED:  # whatever a library made of it
        _stop("stopped; the same command goes on from here", 1)
    if isinstance(error, InputError):
        _stop(f"error: {error}", 2)
    if isinstance(error, JobError):
        _stop(f"error: {error}", 1)
    reason = disk_problem(error) or memory_problem(error)
    if reason is not None and not isinstance(error, SystemExit):
        _stop(f"error: {reason}; what is complete stays: mend that, then give the same command again", 1)
    raise error


def _stop(message: str, code: int) -> NoReturn:
    line = " ".join(message.split())
    print(f"liit: {line}", file=sys.stderr, flush=True)
    sys.exit(code)
