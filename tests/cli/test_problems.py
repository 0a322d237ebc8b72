"""Which errors the disk is to blame for, told from bugs."""

from __future__ import annotations

import errno

import pyarrow as pa
import pytest

from liit.cli.problems import disk_problem


class PanicException(BaseException):
    """As Lance's library raises it: by this name, and no `Exception`."""


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/a/b"), "No space left on device: /a/b"),
        (OSError(errno.EROFS, "x"), "Read-only file system"),
        (OSError(errno.ENOSPC, "No space left on device (5 of 9 bytes were written)", "/a"),
         "No space left on device (5 of 9 bytes were written): /a"),
        (pa.ArrowInvalid("External error: Not found: a/b.lance, local.rs:273:40"), "a table on disk cannot be read"),
        (RuntimeError("LanceError(IO): file size is too small"), "a table on disk cannot be read"),
        (OSError("LanceError(IO): Generic LocalFileSystem error: (os error 28)"), "No space left on device"),
        (PanicException("range end index 4 out of range"), "a table on disk cannot be read"),
    ],
)  # fmt: skip
def test_the_disk_is_blamed_in_the_words_of_the_system(error: BaseException, said: str) -> None:
    assert (disk_problem(error) or "").startswith(said)


@pytest.mark.parametrize(
    "error",
    [
        ValueError("list index out of range"),
        KeyError("External"),
        pa.ArrowInvalid("offset overflow"),
        RuntimeError("x"),
    ],
)
def test_a_bug_is_not(error: BaseException) -> None:
    assert disk_problem(error) is None
