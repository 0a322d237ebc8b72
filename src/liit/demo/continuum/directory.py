"""A directory that appears only when it is complete."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from liit.errors import InputError

# Seconds after which what a killed process left behind is removed; a build takes less than one minute.
ABANDONED = 3600


@contextmanager
def fresh_directory(out: Path) -> Iterator[Path]:
    """Give a directory beside `out` to write to, and rename it to `out` when the block ends well.

    Args:
        out: The directory to make. An empty one may exist.

    Raises:
        InputError: If `out` exists and is not an empty directory.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"out: '{out}' exists and is not an empty directory; name another one or remove it")
    out.parent.mkdir(parents=True, exist_ok=True)
    for left in out.parent.glob(f".{out.name}.part-*"):
        if time.time() - left.stat().st_mtime > ABANDONED:
            shutil.rmtree(left, ignore_errors=True)
    part = out.with_name(f".{out.name}.part-{os.getpid()}")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    try:
        yield part
        part.rename(out)
    finally:
        shutil.rmtree(part, ignore_errors=True)
