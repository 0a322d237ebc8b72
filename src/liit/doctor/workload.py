"""How much there is to score: lengths of a sample of the rows, and how they fall into batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass

import numpy as np

from liit.data.sample import Sample
from liit.errors import InputError
from liit.features.extraction import SHARD_ROWS
from liit.model.batch import bucket_by_length
from liit.model.chat import ChatEncoder, Encoded, RowRefusedError

MOST = 2048


@dataclass(frozen=True, slots=True)
class Batches:
    """What one pass over a workload is made of.

    Attributes:
        widest: tokens of the largest batch, padding included.
        calls: batches.
        rows: rows in them.
        tokens: real tokens.
        padded: tokens, padding included.
        squares: sum over batches of rows times length squared, which attention costs.
        answers: answer tokens.
        answer_places: places at which the last layer runs, padding included.
    """

    widest: int = 0
    calls: float = 0.0
    rows: float = 0.0
    tokens: float = 0.0
    padded: float = 0.0
    squares: float = 0.0
    answers: float = 0.0
    answer_places: float = 0.0

    def times(self, factor: float) -> Batches:
        """The same for so many times as many rows."""
        widest, *sums = astuple(self)
        return Batches(widest, *(factor * value for value in sums))


@dataclass(frozen=True, slots=True)
class Workload:
    """Rows to be scored, known by some of them.

    Attributes:
        rows: how many will be scored.
        refused: how many beside them will be refused because they do not fit the model.
        lengths: (m,) tokens of the rows looked at.
        answers: (m,) answer tokens of each.
        images: (m,) images of each.
        blind_lengths: (m,) tokens without the images; 0 for rows that have none.
        blind_twins: (m,) the same number for rows that are equal without their images; -1 for rows that have none.
    """

    rows: int
    refused: int
    lengths: np.ndarray
    answers: np.ndarray
    images: np.ndarray
    blind_lengths: np.ndarray
    blind_twins: np.ndarray

    @property
    def looked_at(self) -> int:
        """m, the number of rows whose lengths are known."""
        return len(self.lengths)

    @property
    def exact(self) -> bool:
        """Whether every row was looked at."""
        return self.looked_at == self.rows

    @property
    def image_places(self) -> int:
        """Images of all rows, one that occurs twice counted twice."""
        return round(float(self.images.sum()) * self.rows / max(1, self.looked_at))

    def with_images(self, batch_tokens: int) -> Batches:
        """The pass over all rows with their images."""
        return self._batches(self.lengths, np.arange(len(self.lengths)), batch_tokens)

    def without_images(self, batch_tokens: int, *, zeros: bool) -> Batches:
        """The pass over the rows that have images, without them; equal rows of a shard share it.

        Args:
            batch_tokens: token budget of a batch.
            zeros: images are blackened instead of removed, so lengths stay and no two rows are equal.
        """
        if zeros:
            return self._batches(self.lengths, np.flatnonzero(self.images), batch_tokens)
        first: list[int] = []
        for start in range(0, len(self.blind_twins), SHARD_ROWS):
            twins = self.blind_twins[start : start + SHARD_ROWS]
            places = np.unique(twins, return_index=True)[1] + start
            first += [int(place) for place in places if self.blind_twins[place] >= 0]
        return self._batches(self.blind_lengths, np.asarray(sorted(first), dtype=np.int64), batch_tokens)

    def _batches(self, lengths: np.ndarray, chosen: np.ndarray, batch_tokens: int) -> Batches:
        sums, widest = np.zeros(7), 0
        for start in range(0, len(lengths), SHARD_ROWS):
            rows = chosen[(chosen >= start) & (chosen < start + SHARD_ROWS)]
            for bucket in bucket_by_length(lengths[rows].tolist(), batch_tokens):
                own = rows[bucket]
                longest, answers = int(lengths[own].max()), self.answers[own]
                sums += [
                    1, len(own), lengths[own].sum(), len(own) * longest, len(own) * longest**2, answers.sum(),
                    len(own) * int(answers.max()),
                ]  # fmt: skip
                widest = max(widest, len(own) * longest)
        scale = self.rows / max(1, self.looked_at)
        return Batches(widest, *(scale * sums).tolist())


def look_at(
    encoder: ChatEncoder, samples: Sequence[Sample], rows: int | None = None, *, blind: bool = True
) -> Workload:
    """Tokenise some rows.

    Args:
        encoder: of the model.
        samples: the rows to look at.
        rows: how many there are in all; as many as `samples` unless given.
        blind: also tokenise them without their images.

    Raises:
        InputError: none of them fits the model.
    """
    found: list[tuple[int, int, int, int, int]] = []
    twins: dict[tuple[bytes, bytes], int] = {}
    refused, reason = 0, ""
    for sample in samples:
        try:
            row = encoder.encode(sample)
            without = encoder.encode(sample, images=False) if blind and sample.images else None
        except RowRefusedError as error:
            refused, reason = refused + 1, str(error)
            continue
        length, twin = (0, -1) if without is None else (len(without), twins.setdefault(_key(without), len(twins)))
        found.append((len(row), row.n_answer_tokens, len(sample.images), length, twin))
    if samples and not found:
        raise InputError(f"pool: none of the {len(samples)} rows looked at fits the model; the last: {reason}")
    total = len(samples) if rows is None else rows
    share = refused / max(1, len(samples))
    columns = np.asarray(found, dtype=np.int64).reshape(-1, 5).T
    lost = round(share * total)
    return Workload(total - lost, lost, *columns)


def _key(row: Encoded) -> tuple[bytes, bytes]:
    return row.input_ids.tobytes(), row.answer_mask.tobytes()


def choose_rows(n: int, seed: int = 0, most: int = MOST) -> np.ndarray:
    """Numbers of the rows to look at: all of them, or `most` drawn at random, in order."""
    if n <= most:
        return np.arange(n)
    return np.sort(np.random.default_rng(seed).choice(n, size=most, replace=False))
