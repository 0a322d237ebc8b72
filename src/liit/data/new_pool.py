"""A pool made for a command that may turn out to be wrong: what it leaves then is nothing, or what others put in."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from liit.data.commits import latest_version
from liit.data.lock import write_lock
from liit.data.pool import Pool
from liit.errors import InputError


@contextmanager
def opened_or_new(path: Path) -> Iterator[Pool]:
    """Open the pool at a path, or make one there.

    One that was made is taken back when the block raises an `InputError`, unless another process has used it meanwhile.

    Args:
        path: The pool's directory.

    Yields:
        The pool.

    Raises:
        InputError: As `Pool.open_or_create`, and what the block raises.
    """
    made = [folder for folder in (path, *path.parents) if not folder.exists()]
    fresh = bool(made) or (path.is_dir() and not any(path.iterdir()))
    pool = Pool.open_or_create(path)
    try:
        yield pool
    except InputError:
        if fresh:
            with suppress(InputError):  # somebody writes to it
                _take_back(path, made)
        raise


def _take_back(path: Path, made: Sequence[Path]) -> None:
    with write_lock(path, 0):
        if latest_version(path / "commits") != 1:
            return
        for child in path.iterdir():
            if child.is_dir():
                shutil.rmtree(child, ignore_errors=True)
            else:
                child.unlink(missing_ok=True)
    for folder in made:
        with suppress(OSError):  # somebody has put something there
            folder.rmdir()
