"""Which errors the disk or the memory is to blame for, told from bugs."""

from __future__ import annotations

import errno

import pyarrow as pa
import pytest
import torch

from liit.cli.app import _leave
from liit.cli.problems import disk_problem, memory_problem


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
    assert memory_problem(error) is None


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (MemoryError(), "out of memory"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nSee"),
         "out of memory (CUDA out of memory. Tried to allocate 2.00 GiB.)"),
    ],
)  # fmt: skip
def test_memory_that_runs_out_where_nothing_catches_it_is_one_line(
    error: Exception, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """As in a training hook's own pass."""
    with pytest.raises(SystemExit) as left:
        _leave(error, interrupted=False)
    assert left.value.code == 1
    expected = f"liit: error: {said}; what is complete stays: mend that, then give the same command again\n"
    assert capsys.readouterr().err == expected
