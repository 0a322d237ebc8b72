"""One writer at a time: a lock file that the system frees when its process ends, however it ends."""

from __future__ import annotations

import errno
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from liit.errors import InputError

LOCK_SECONDS = 30.0
"""How long a writer waits for another one."""


@contextmanager
def write_lock(folder: Path, seconds: float | None = None) -> Iterator[None]:
    """Be the only writer of a pool.

    The lock is the system's (`flock`), so that of a process that died is free at once; the file also says who holds
    it, for the one who waits.

    Args:
        folder: The pool's directory.
        seconds: How long to wait for another writer; by default `LOCK_SECONDS`.

    Yields:
        Nothing; the lock is held inside.

    Raises:
        InputError: Another process is still writing, or the directory cannot be written to or is gone.
    """
    import fcntl

    seconds = LOCK_SECONDS if seconds is None else seconds
    try:
        file = (folder / "lock").open("a+", encoding="utf-8")
    except OSError as error:
        raise InputError(f"pool {str(folder)!r} cannot be written to: {error}") from error
    with file:
        until = time.monotonic() + seconds
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError as error:
                if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                    raise InputError(
                        f"pool {str(folder)!r} cannot be locked ({error.strerror}); put it on a file system with flock"
                    ) from error
                if time.monotonic() >= until:
                    raise InputError(
                        f"pool {str(folder)!r} is being written by another process{_holder(file)} "
                        f"(waited {seconds:g} s); try again when it is done"
                    ) from error
                time.sleep(0.05)
        if not _still_there(file, folder / "lock"):
            raise InputError(f"pool {str(folder)!r} was taken away by another process; give the command again")
        _sign(file)
        try:
            yield
        finally:
            with suppress(OSError):
                file.truncate(0)


def _still_there(file: IO[str], path: Path) -> bool:
    """Whether the file that is locked is the one that others will lock: its pool may have been removed meanwhile."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _sign(file: IO[str]) -> None:
    # A full disk must not keep a pool from being read or cleaned up: who holds the lock is only for people.
    with suppress(OSError):
        file.seek(0)
        file.truncate()
        since = datetime.now(UTC).isoformat(timespec="seconds")
        json.dump({"pid": os.getpid(), "host": socket.gethostname(), "since": since}, file)
        file.flush()


def _holder(file: IO[str]) -> str:
    try:
        file.seek(0)
        found: dict[str, Any] = json.loads(file.read())
        pid, host, since = int(found["pid"]), str(found["host"]), str(found["since"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    gone = ""
    if host == socket.gethostname():
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            gone = "; that process has ended, and one that it started holds the lock on"
        except OSError:
            pass
    return f": process {pid} on {host} since {since}{gone}"
