"""Errors that disk or memory are to blame for, told from bugs: one is full, cannot be written, or holds a bad table."""

from __future__ import annotations

import errno
import os

_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)
_LANCE = ("LanceError(", "External error: ", "Encountered corrupt file ", "lance-")


def disk_problem(error: BaseException) -> str | None:
    """Say what the operating system said, when that is why a command failed; the libraries wrap it in their own errors.

    Args:
        error: what ended the command.

    Returns:
        The system's words and the file, or None when the error is of another kind.
    """
    if isinstance(error, OSError) and error.errno is not None:
        # Some errors of ours have more to say than the system, which always starts with its words.
        words = os.strerror(error.errno)
        if error.strerror and error.strerror.startswith(words):
            words = error.strerror
        return f"{words}: {error.filename}" if error.filename else words
    said = " ".join(str(error).split())
    found = [os.strerror(code) for code in _DISK if os.strerror(code) in said or f"os error {code})" in said]
    if found:
        return found[0]
    return f"a table on disk cannot be read ({said[:200]})" if _from_lance(error, said) else None


def memory_problem(error: BaseException) -> str | None:
    """What the system said, when memory ran out where nothing could be done about it; else None."""
    if not isinstance(error, MemoryError | RuntimeError):
        return None
    from liit.model.memory import is_out_of_memory  # torch, which a command that ends well may never need

    if not is_out_of_memory(error):
        return None
    said = next(iter(str(error).strip().splitlines()), "")
    return f"out of memory ({said[:200]})" if said else "out of memory"


def _from_lance(error: BaseException, said: str) -> bool:
    """Whether Lance could not make sense of its files; it panics, which is no `Exception`, over some of them."""
    if type(error).__name__ == "PanicException":
        return True
    return isinstance(error, OSError | ValueError | RuntimeError) and any(mark in said for mark in _LANCE)
