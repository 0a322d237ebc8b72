"""The program `liit`: its commands, and how errors become exit codes.

Exit codes: 0 done; 2 the user's input is wrong (one line); 1 anything else.
"""

from __future__ import annotations

import sys
from typing import NoReturn

import typer

from liit.errors import InputError

app = typer.Typer(
    name="liit",
    help="Lifelong instruction tuning of vision-language models: choose what to train on, within a fixed budget.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def main() -> NoReturn:
    """Run a command and leave with its exit code."""
    from liit.cli import lists, runs, stage_commands  # noqa: F401 (imported to be registered)

    try:
        app()
    except InputError as error:
        _stop(f"error: {error}", 2)
    except KeyboardInterrupt:
        _stop("stopped; the same command goes on from here", 1)
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        _stop(f"error: {error.strerror or error}{where}; nothing is lost, the same command goes on from here", 1)
    sys.exit(0)


def _stop(message: str, code: int) -> NoReturn:
    line = " ".join(message.split("\n"))
    print(f"liit: {line}", file=sys.stderr, flush=True)
    sys.exit(code)
