"""Versions of a pool that somebody still needs, a run that is not finished above all; a gc leaves them on the disk."""

from __future__ import annotations

import json
import os
from pathlib import Path

from liit.data.lance_files import sync_folder
from liit.errors import InputError

NAME = "holds.json"


def read_holds(folder: Path) -> dict[str, int]:
    """Who needs which version and all later ones.

    Args:
        folder: The pool's directory.

    Returns:
        Holder to the oldest version it needs.

    Raises:
        InputError: The file is damaged, so that nobody can tell what is needed.
    """
    file = folder / NAME
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        return {str(holder): int(version) for holder, version in found.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise InputError(
            f"pool {str(folder)!r}: {NAME}, which says what unfinished runs need, cannot be read ({error}); give the "
            f"command of each unfinished run again, or delete the file if there is none"
        ) from error


def write_holds(folder: Path, holds: dict[str, int]) -> None:
    """Note who needs what; the caller holds the lock.

    Args:
        folder: The pool's directory.
        holds: As `read_holds` gives them.
    """
    file = folder / NAME
    if holds:
        part = file.with_suffix(".part")
        with part.open("w", encoding="utf-8") as stream:
            json.dump(dict(sorted(holds.items())), stream)
            stream.write("\n")
            stream.flush()
            os.fsync(stream.fileno())
        part.replace(file)
    else:
        file.unlink(missing_ok=True)
    sync_folder(folder)
