"""The pool's own commit log: one small JSON file per version, written last, by renaming.

A commit names, for each table of the pool, the Lance version that belongs to it, so three tables change at one instant:
the instant the file gets its name. Whatever a killed writer left in the tables is named by no commit and so not there.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from liit.errors import InputError

FORMAT = 1
"""Version of the layout on disk; a pool with a higher one is refused with a request to upgrade."""

LOCK_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Commit:
    """One version of a pool.

    Args:
        version: 1 for the empty pool, then one more per commit.
        kind: "create", "add", "ingest", "remove" or "restore".
        message: What the user or the run says about it.
        key: Names the work, so that a run that is resumed can tell that it is done ("" = none).
        tables: Lance version per table.
        rows: Samples in the pool.
        next_row: Row number of the next sample; numbers are never given twice, not even after a restore.
        restored: The version brought back, for a restore.
        report: Figures of the add, ingest or remove.
        time: When, UTC; only for people, order is by version.
    """

    version: int
    kind: str
    message: str
    key: str
    tables: dict[str, int]
    rows: int
    next_row: int
    restored: int | None = None
    report: dict[str, Any] = field(default_factory=dict)
    time: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    format: int = FORMAT


def latest_version(folder: Path) -> int:
    """Highest committed version, 0 when there is none."""
    files = folder.glob("*.json") if folder.is_dir() else ()
    return max((int(file.stem) for file in files if file.stem.isdigit()), default=0)


def read_commit(folder: Path, version: int) -> Commit:
    """Read one commit.

    Args:
        folder: The folder of commits.
        version: Which.

    Returns:
        The commit.

    Raises:
        InputError: It is damaged, or written by a newer liit.
    """
    path = folder / f"{version:08d}.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if found["format"] > FORMAT:
            raise InputError(
                f"pool {str(folder.parent)!r} was written by a newer liit (layout {found['format']}, this one reads up "
                f"to {FORMAT}); upgrade liit"
            )
        return Commit(**found)
    except InputError:
        raise
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"pool {str(folder.parent)!r}: commit file {path.name} is missing or damaged ({error})"
        ) from error


def write_commit(folder: Path, commit: Commit) -> None:
    """Make a version real; the caller holds the lock.

    Args:
        folder: The folder of commits.
        commit: The commit.
    """
    part = folder / f"{commit.version:08d}.json.part"
    with part.open("w", encoding="utf-8") as file:
        json.dump(asdict(commit), file, indent=1)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    part.replace(folder / f"{commit.version:08d}.json")


def lineage(folder: Path, version: int) -> Iterator[Commit]:
    """The commits whose effect is in a version, newest first; what a restore undid is left out.

    Args:
        folder: The folder of commits.
        version: Where to start.

    Yields:
        The commits back to the first.
    """
    while version > 0:
        commit = read_commit(folder, version)
        yield commit
        version = commit.restored if commit.restored is not None else version - 1


@contextmanager
def write_lock(folder: Path, seconds: float | None = None) -> Iterator[None]:
    """Be the only writer of a pool; the system frees the lock when the process ends, however it ends.

    Args:
        folder: The pool's directory.
        seconds: How long to wait for another writer; by default `LOCK_SECONDS`.

    Yields:
        Nothing; the lock is held inside.

    Raises:
        InputError: Another process is still writing, or the directory cannot be written to.
    """
    import fcntl

    seconds = LOCK_SECONDS if seconds is None else seconds

    try:
        file = (folder / "lock").open("w")
    except OSError as error:
        raise InputError(f"pool {str(folder)!r} cannot be written to: {error}") from error
    with file:
        until = time.monotonic() + seconds
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() >= until:
                    raise InputError(
                        f"pool {str(folder)!r} is being written by another process "
                        f"(waited {seconds:g} s); try again when it is done"
                    ) from error
                time.sleep(0.05)
        yield
