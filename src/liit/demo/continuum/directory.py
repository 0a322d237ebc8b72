"""A directory that appears only when it is complete."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from liit.errors import InputError


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
    part = out.with_name(f".{out.name}.part-{os.getpid()}")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    try:
        yield part
        part.rename(out)
    finally:
        shutil.rmtree(part, ignore_errors=True)
