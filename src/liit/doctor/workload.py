"""How much there is to score: lengths of a sample of the rows, and how they fall into batches."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import astuple, dataclass
from typing import NamedTuple

import numpy as np

from liit.data.sample import Sample
from liit.errors import InputError
from liit.features.extraction import SHARD_ROWS
from liit.features.packing import ATTENTION_SHARE, Pack, pack_rows
from liit.model.batch import bucket_by_length
from liit.model.chat import ChatEncoder, Encoded, RowRefusedError
from liit.model.image_tokens import image_size

MOST = 2048


@dataclass(frozen=True, slots=True)
class Batches:
    """What one pass over a workload is made of.

    Attributes:
        widest: tokens of the largest batch, padding included.
        calls: batches.
        rows: sequences in them; rows that share their beginning are one.
        tokens: real tokens.
        padded: tokens, padding included.
        squares: sum over batches of sequences times length squared, which attention costs.
        answers: answer tokens.
        answer_places: places at which the last layer runs, padding included.
        images: that come with the sequences.
    """

    widest: int = 0
    calls: float = 0.0
    rows: float = 0.0
    tokens: float = 0.0
    padded: float = 0.0
    squares: float = 0.0
    answers: float = 0.0
    answer_places: float = 0.0
    images: float = 0.0

    def times(self, factor: float) -> Batches:
        """The same for so many times as many rows."""
        widest, *sums = astuple(self)
        return Batches(widest, *(factor * value for value in sums))


class Strand(NamedTuple):
    """One sequence of a batch, a row or several behind one beginning: tokens, answer tokens, images."""

    tokens: int
    answers: int
    images: int


class Looked(NamedTuple):
    """One row, with its images and without (None where it has none)."""

    row: Encoded
    blind: Encoded | None


@dataclass(frozen=True, slots=True)
class Workload:
    """Rows to be scored, known by some of them.

    Attributes:
        rows: how many will be scored.
        refused: how many beside them will be refused because they do not fit the model.
        looked: the rows looked at.
        image_token: id of the image placeholder.
        longest_pack: most tokens of rows that share their beginning without images; 0: none share.
        image_pack: most tokens of rows that share the pass over their image; 0: none share.
    """

    rows: int
    refused: int
    looked: tuple[Looked, ...]
    image_token: int = -1
    longest_pack: int = 0
    image_pack: int = 0

    @property
    def looked_at(self) -> int:
        """Number of rows whose lengths are known."""
        return len(self.looked)

    @property
    def mean_length(self) -> float:
        """Mean number of tokens, images included; 0 when no row was looked at."""
        return sum(len(one.row) for one in self.looked) / max(1, self.looked_at)

    def with_images(self, batch_tokens: int) -> Batches:
        """The pass over all rows with their images."""
        shards = ([_strand(one.row) for one in shard] for shard in self._shards())
        return self._batches(shards, batch_tokens)

    def sharing_images(self, batch_tokens: int) -> tuple[Batches, Batches]:
        """The pass over all rows when those of one image share it up to a layer.

        Returns:
            What runs below that layer, where the rows of an image are one sequence, and what runs above.
        """
        below, above = np.zeros(8), np.zeros(8)
        widest = [0, 0]
        for shard in self._shards():
            rows = [one.row for one in shard]
            shown = [tuple(image.sha256 for image in row.images) for row in rows]
            most = min(self.image_pack, batch_tokens)
            packs = pack_rows(rows, shown, self.image_token, most, batch_tokens)
            for bucket in bucket_by_length([_apart(pack, rows) for pack in packs], batch_tokens):
                some = [packs[i] for i in bucket]
                own = [rows[i] for pack in some for i in pack.rows]
                images = sum(len(rows[pack.rows[0]].images) for pack in some)
                parts = ([pack.tokens for pack in some], [len(row) for row in own])
                for side, (sums, lengths) in enumerate(zip((below, above), parts, strict=True)):
                    n, longest = len(lengths), max(lengths)
                    answers = [row.n_answer_tokens for row in own]
                    sums += [1, n, sum(lengths), n * longest, n * longest**2, sum(answers), n * max(answers), images]
                    widest[side] = max(widest[side], n * longest)
        factor = self.rows / max(1, self.looked_at)
        return Batches(widest[0], *(below * factor).tolist()), Batches(widest[1], *(above * factor).tolist())

    def without_images(self, batch_tokens: int, *, zeros: bool) -> Batches:
        """The pass over the rows that have images, without them.

        Equal rows of a shard share it, and rows that begin alike share their beginning.

        Args:
            batch_tokens: token budget of a batch.
            zeros: images are blackened instead of removed.
        """
        shards = (self._blind(shard, batch_tokens, zeros) for shard in self._shards())
        return self._batches(shards, batch_tokens)

    def _shards(self) -> Iterator[tuple[Looked, ...]]:
        for start in range(0, self.looked_at, SHARD_ROWS):
            yield self.looked[start : start + SHARD_ROWS]

    def _blind(self, shard: Sequence[Looked], batch_tokens: int, zeros: bool) -> list[Strand]:
        distinct: dict[Hashable, tuple[Encoded, Hashable]] = {}
        for row, blind in shard:
            if blind is None:
                continue
            shown = tuple(image_size(image) for image in row.images) if zeros else ()
            one = row if zeros else blind
            distinct.setdefault((one.input_ids.tobytes(), one.answer_mask.tobytes(), shown), (one, shown))
        rows, seen = [one for one, _ in distinct.values()], [shown for _, shown in distinct.values()]
        most = min(self.longest_pack, batch_tokens)
        if not most:
            return [_strand(row) for row in rows]
        return [
            Strand(pack.tokens, sum(rows[i].n_answer_tokens for i in pack.rows), len(rows[pack.rows[0]].images))
            for pack in pack_rows(rows, seen, self.image_token, most)
        ]

    def _batches(self, shards: Iterable[list[Strand]], batch_tokens: int) -> Batches:
        total = np.zeros(8)
        widest = 0
        for shard in shards:
            table = np.asarray(shard, dtype=np.int64).reshape(-1, 3)
            for bucket in bucket_by_length(table[:, 0].tolist(), batch_tokens):
                own = table[bucket]
                tokens, answers, images = own.sum(0)
                n, longest, most = len(own), int(own[:, 0].max()), int(own[:, 1].max())
                total += [1, n, tokens, n * longest, n * longest**2, answers, n * most, images]
                widest = max(widest, n * longest)
        return Batches(widest, *(total * self.rows / max(1, self.looked_at)).tolist())


def _apart(pack: Pack, rows: Sequence[Encoded]) -> int:
    """Places that the rows of a pack take as rows of one length."""
    return len(pack.rows) * max(len(rows[i]) for i in pack.rows)


def _strand(row: Encoded) -> Strand:
    return Strand(len(row), row.n_answer_tokens, len(row.images))


def look_at(
    encoder: ChatEncoder,
    samples: Sequence[Sample],
    rows: int | None = None,
    *,
    blind: bool = True,
    share: bool = True,
    share_images: bool = False,
) -> Workload:
    """Tokenise some rows.

    Args:
        encoder: of the model.
        samples: the rows to look at.
        rows: how many there are in all; as many as `samples` unless given.
        blind: also tokenise them without their images.
        share: rows that begin alike will share the work on their beginning in the pass without images.
        share_images: rows of one image will share the pass over it.

    Raises:
        InputError: none of them fits the model.
    """
    looked: list[Looked] = []
    refused, reason = 0, ""
    for sample in samples:
        try:
            row = encoder.encode(sample)
            looked.append(Looked(row, encoder.encode(sample, images=False) if blind and sample.images else None))
        except RowRefusedError as error:
            refused, reason = refused + 1, str(error)
    if samples and not looked:
        raise InputError(f"pool: none of the {len(samples)} rows looked at fits the model; the last: {reason}")
    total = len(samples) if rows is None else rows
    lost = round(refused / max(1, len(samples)) * total)
    most = int(ATTENTION_SHARE * encoder.vlm.text_config.hidden_size)
    packs = most if share else 0, most if share_images else 0
    return Workload(total - lost, lost, tuple(looked), encoder.vlm.image_token_id, *packs)


def mix(works: Sequence[Workload], rows: Sequence[float]) -> Workload:
    """One workload out of several, each with as many rows as given, known at the rate of the least known.

    Args:
        works: of the parts, in order.
        rows: of each part; fewer than it has when some were pruned.
    """
    rate = min((work.looked_at / count for work, count in zip(works, rows, strict=True) if count), default=1.0)
    looked: list[Looked] = []
    for work, count in zip(works, rows, strict=True):
        take = np.linspace(0, work.looked_at - 1, round(min(rate, 1.0) * count)).round().astype(np.int64)
        looked += [work.looked[i] for i in take]
    first = works[0]
    refused = sum(work.refused for work in works)
    return Workload(round(sum(rows)), refused, tuple(looked), first.image_token, first.longest_pack, first.image_pack)


def choose_rows(n: int, seed: int = 0, most: int = MOST) -> np.ndarray:
    """Numbers of the rows to look at: all of them, or `most` drawn at random, in order."""
    if n <= most:
        return np.arange(n)
    return np.sort(np.random.default_rng(seed).choice(n, size=most, replace=False))
