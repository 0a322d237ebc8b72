"""References as sacrebleu takes them."""

from __future__ import annotations

from collections.abc import Sequence


def streams(references: Sequence[Sequence[str]]) -> list[list[str | None]]:
    """Turn the references of every row into sacrebleu's streams: the first of all rows, the second of all rows, ...

    A row with fewer references than another has None in the later streams.
    """
    most = max(len(row) for row in references)
    return [[row[i] if i < len(row) else None for row in references] for i in range(most)]
