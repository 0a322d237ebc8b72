"""Work that may run out of memory, on a GPU or a CPU: tried, and taken again in smaller pieces."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable
from functools import partial

import torch

from liit.errors import InputError

WORDS = ("not enough memory", "can't allocate memory", "out of memory", "cublas_status_alloc_failed")

log = logging.getLogger(__name__)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on a GPU or a CPU."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in WORDS)


def attempt(work: Callable[[], None]) -> str | None:
    """Do the work; what the system said when memory ran out. Returning frees what the failed attempt held."""
    try:
        work()
    except (MemoryError, RuntimeError) as error:  # torch's own errors are RuntimeErrors
        if not is_out_of_memory(error):
            raise
        return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
    return None


def give_back() -> None:
    """Give memory that nobody uses any more back to the system, a GPU's too."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


class Pieces:
    """So many things at once; once memory has run out, fewer for good.

    Args:
        size: how many at once, at first.
        what: one of the things, for messages.
    """

    def __init__(self, size: int, what: str) -> None:
        self.size, self.what = size, what

    def run(self, total: int, work: Callable[[int, int], None], name: Callable[[int], str]) -> None:
        """Do work on all of some things, piece by piece.

        Args:
            total: how many there are.
            work: called with the first of a piece and the one after its last; may run out of memory, and is then called
                again with fewer.
            name: of the thing with a number, for the message.

        Raises:
            InputError: one alone does not fit.
        """
        start = 0
        while start < total:
            stop = min(start + self.size, total)
            problem = attempt(partial(work, start, stop))
            if problem is None:
                start = stop
                continue
            give_back()
            if stop - start == 1:
                raise InputError(
                    f"{self.what} {name(start)} does not fit into memory alone ({problem}); use a smaller model.dtype "
                    "or more memory, or leave it out"
                )
            self.size = (stop - start) // 2
            log.warning("liit: out of memory with %d at once (%s); now %d", stop - start, self.what, self.size)
