"""Batches of similar length within a token budget, which shrinks when memory runs out."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from liit.errors import InputError
from liit.features.report import ExtractionReport
from liit.model.memory import attempt, give_back

log = logging.getLogger("liit.features")


class RowDoesNotFitError(InputError):
    """A row needs more memory than there is, in a batch of its own."""


class TokenBudget:
    """Runs work over rows in batches.

    A batch that runs out of memory is not lost: the budget is cut to half of what that batch held, for good, and its
    rows are taken again.

    Args:
        tokens: most tokens of a batch, padding included; a longer row gets a batch of its own.
        report: is told when memory runs out.
    """

    def __init__(self, tokens: int, report: ExtractionReport) -> None:
        self.tokens, self.report = tokens, report
        report.batch_tokens = tokens

    def run(self, lengths: Sequence[tuple[int, int]], work: Callable[[np.ndarray], None], name: Sequence[str]) -> None:
        """Give every row to ``work`` once, together with rows like it.

        Args:
            lengths: of each row, tokens and answer tokens. Longest rows come first, so memory trouble shows at once.
            work: called with the row numbers of a batch; may run out of memory, and is then called again with fewer.
            name: of each row, for the message.

        Raises:
            RowDoesNotFitError: a row does not fit into memory alone.
        """
        sizes = np.asarray(lengths, dtype=np.int64).reshape(-1, 2)
        order = np.lexsort((np.arange(len(sizes)), -sizes[:, 1], -sizes[:, 0]))
        start = 0
        while start < len(order):
            longest = max(1, int(sizes[order[start], 0]))
            rows = order[start : start + max(1, self.tokens // longest)]
            problem = attempt(partial(work, rows))
            if problem is None:
                start += len(rows)
            else:
                self._shrink(rows, longest, name, problem)

    def _shrink(self, rows: np.ndarray, longest: int, name: Sequence[str], problem: str) -> None:
        give_back()
        if len(rows) == 1:
            raise RowDoesNotFitError(
                f"sample {name[rows[0]]!r} with {longest} tokens does not fit into memory in a batch of its own "
                f"({problem}); lower model.max_length to refuse such rows, or use a smaller model.dtype or more memory"
            )
        self.tokens = max(1, longest * len(rows) // 2)
        self.report.out_of_memory += 1
        self.report.batch_tokens = self.tokens
        message = (
            f"out of memory with {len(rows)} rows of up to {longest} tokens; "
            f"going on with features.batch_tokens={self.tokens}"
        )
        self.report.note(message)
        log.warning(message)
