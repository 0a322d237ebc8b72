"""The program `liit`: its commands, and how errors become exit codes.

Exit codes: 0 done; 2 the user's input is wrong (one line); 1 anything else.
"""

from __future__ import annotations

import errno
import os
import sys
from typing import NoReturn

import typer

from liit.errors import InputError
from liit.lifelong.parallel import JobError

app = typer.Typer(
    name="liit",
    help="Lifelong instruction tuning of vision-language models: choose what to train on, within a fixed budget.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

_INTERRUPTED = 130  # what typer makes of Ctrl-C
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)


def main() -> NoReturn:
    """Run a command and leave with its exit code."""
    try:
        from liit.cli import lists, pool_commands, runs, stage_commands  # noqa: F401 (imported to be registered)

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
    except Exception as error:
        reason = disk_problem(error)
        if reason is None:
            raise
        _stop(f"error: {reason}; what is complete stays: mend that, then give the same command again", 1)
    sys.exit(0)


def disk_problem(error: BaseException) -> str | None:
    """Say what the operating system said, when that is why a command failed; the libraries wrap it in their own errors.

    Args:
        error: what ended the command.

    Returns:
        The system's words and the file, or None when the error is of another kind.
    """
    if isinstance(error, OSError) and error.errno is not None:
        where = f": {error.filename}" if error.filename else ""
        return f"{os.strerror(error.errno)}{where}"
    said = str(error)
    found = [os.strerror(code) for code in _DISK if os.strerror(code) in said or f"os error {code})" in said]
    if found:
        return found[0]
    return f"a table on disk cannot be read ({said[:200]})" if "LanceError(IO)" in said else None


def _stop_by_user() -> NoReturn:
    _stop("stopped; the same command goes on from here", 1)


def _stop(message: str, code: int) -> NoReturn:
    line = " ".join(message.split())
    print(f"liit: {line}", file=sys.stderr, flush=True)
    sys.exit(code)
