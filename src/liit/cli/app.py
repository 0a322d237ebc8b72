"""The program `liit`: its commands, and how errors become exit codes.

Exit codes: 0 done; 2 the user's input is wrong (one line); 1 anything else.
"""

from __future__ import annotations

import sys
from typing import NoReturn

import typer

from liit.cli.problems import disk_problem
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
    try:
        from liit.cli import doctor, lists, pool_commands, runs, stage_commands  # noqa: F401 (imported to be registered)

        app()
    except InputError as error:
        _stop(f"error: {error}", 2)
    except KeyboardInterrupt:
        _stop_by_user()
    except SystemExit as leaving:
        if leaving.code == _INTERRUPTED:
            _stop_by_user()
        raise
    except JobError as error:
        _stop(f"error: {error}", 1)
    except BaseException as error:  # Lance's panics are no Exception
        reason = disk_problem(error)
        if reason is None:
            raise
        _stop(f"error: {reason}; what is complete stays: mend that, then give the same command again", 1)
    sys.exit(0)


def _stop_by_user() -> NoReturn:
    _stop("stopped; the same command goes on from here", 1)


def _stop(message: str, code: int) -> NoReturn:
    line = " ".join(message.split())
    print(f"liit: {line}", file=sys.stderr, flush=True)
    sys.exit(code)
