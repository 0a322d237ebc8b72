"""The pool's own commit log: one small JSON file per version, written last, by renaming.

A commit names, for each table of the pool, the Lance version that belongs to it, so all tables change at one instant:
the instant the file gets its name. Whatever a killed writer left in the tables is named by no commit and so not there.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from liit.data.lance_files import sync_folder
from liit.errors import InputError

FORMAT = 2
"""Version of the layout on disk; a pool with another one is refused with a line that says what to do.

1: liit before 0.1.0; images held by value lay in the sample table. 2: they have a table of their own, and rows know the
kind of file they came from.
"""


@dataclass(frozen=True, slots=True)
class Commit:
    """One version of a pool.

    Args:
        version: 1 for the empty pool, then one more per commit.
        kind: "create", "add", "ingest", "remove", "restore" or "gc".
        message: What the user or the run says about it.
        key: Names the work, so that a run that is resumed can tell that it is done ("" = none).
        tables: Lance version per table.
        rows: Samples in the pool.
        next_row: Row number of the next sample; numbers are never given twice, not even after a restore.
        restored: The version brought back, for a restore.
        report: Figures of the add, ingest, remove or gc.
        oldest: The oldest version whose rows are still on disk; a gc moves it up.
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
    oldest: int = 1
    time: str = field(default_factory=lambda: Commit.now())
    format: int = FORMAT

    @staticmethod
    def now() -> str:
        """The time, as commits have it."""
        return datetime.now(UTC).isoformat(timespec="seconds")


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
                f"pool {str(folder.parent)!r} was written by a newer liit (layout {found['format']}, this one reads "
                f"{FORMAT}); upgrade liit"
            )
        if found["format"] < FORMAT:
            raise InputError(
                f"pool {str(folder.parent)!r} was written by an older liit (layout {found['format']}, this one reads "
                f"{FORMAT}); make it anew: `liit ingest` the same files into another directory"
            )
        if found.pop("sha256", None) not in (None, _digest(found)):
            raise ValueError("its checksum differs")
        return Commit(**found)
    except InputError:
        raise
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"pool {str(folder.parent)!r}: commit file {path.name} is missing or damaged ({error})"
        ) from error


def _digest(said: dict[str, Any]) -> str:
    """Hash of what a commit says, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def write_commit(folder: Path, commit: Commit) -> None:
    """Make a version real; the caller holds the lock.

    Args:
        folder: The folder of commits.
        commit: The commit.
    """
    part = folder / f"{commit.version:08d}.json.part"
    said = asdict(commit)
    with part.open("w", encoding="utf-8") as file:
        json.dump({**said, "sha256": _digest(said)}, file, indent=1)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    part.replace(folder / f"{commit.version:08d}.json")
    sync_folder(folder)


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
