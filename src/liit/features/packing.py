"""Rows that begin alike share the work on their beginning.

A causal decoder's states at a token depend on what stands before it only, so rows with the same beginning (a picture
and the template around it, a question about it, an instruction) have the same states there. They are laid behind one
another as one sequence: the beginning once, then what follows in each row. A mask lets every token see the beginning
and its own row, and each token keeps the position that it has in its row. The outcome is that of separate rows, up to
rounding.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from liit.features.losses import IGNORE
from liit.model.chat import Encoded

SHORTEST = 4  # shared tokens for which sharing is worth it
ATTENTION_SHARE = 1.5  # longest pack in hidden sizes: beyond, attention across rows costs what sharing saves


class Pack(NamedTuple):
    """Rows, by number, that share their first ``prefix`` tokens; ``tokens`` is the length of their sequence."""

    rows: tuple[int, ...]
    prefix: int
    tokens: int


def pack_rows(
    rows: Sequence[Encoded], images: Sequence[Hashable], image_token: int, most: int, apart: int | None = None
) -> list[Pack]:
    """Put rows that begin alike into packs; rows without company get one of their own.

    Args:
        rows: the rows.
        images: of each row, what its images are; only rows for which it is equal share. All images of a row must lie in
            the shared beginning.
        image_token: id of the placeholder.
        most: tokens of a pack; a longer row gets a pack of its own.
        apart: most places that the rows of a pack take as rows of one length, for packs that part on the way.

    Returns:
        Packs that hold every row once, in an order that depends on the rows only.
    """
    by_image: dict[Hashable, list[int]] = {}
    for number, shown in enumerate(images):
        by_image.setdefault(shown, []).append(number)
    packs: list[Pack] = []
    for group in by_image.values():
        sequences = {number: rows[number].input_ids.tolist() for number in group}
        after = {number: _after_images(rows[number], image_token) for number in group}
        current = Pack((), 0, 0)
        for number in sorted(group, key=lambda one: (sequences[one], one)):
            grown = _with(current, number, sequences, after)
            if grown is None or grown.tokens > most or (apart is not None and _apart(grown, sequences) > apart):
                packs += [current] if current.rows else []
                length = len(sequences[number])
                current = Pack((number,), length, length)
            else:
                current = grown
        packs.append(current)
    return packs


def _with(pack: Pack, number: int, sequences: dict[int, list[int]], after: dict[int, int]) -> Pack | None:
    """The pack with one more row, when that saves no less than the pack alone saves."""
    if not pack.rows:
        return None
    prefix = min(_common(sequences[pack.rows[-1]], sequences[number]), pack.prefix)
    shared_by = len(pack.rows)
    alone = (shared_by - 1) * pack.prefix
    if prefix < max(SHORTEST, after[number]) or shared_by * prefix < alone:
        return None
    rows = (*pack.rows, number)
    return Pack(rows, prefix, prefix + sum(len(sequences[one]) - prefix for one in rows))


def _apart(pack: Pack, sequences: dict[int, list[int]]) -> int:
    return len(pack.rows) * max(len(sequences[number]) for number in pack.rows)


def _common(one: list[int], other: list[int]) -> int:
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def _after_images(row: Encoded, image_token: int) -> int:
    """Number of tokens up to the last image placeholder."""
    places = np.flatnonzero(row.input_ids == image_token)
    return int(places[-1]) + 1 if len(places) else 0


@dataclass(frozen=True, slots=True)
class PackedRows:
    """Some packs as one batch.

    Attributes:
        input_ids: (B, T) tokens of the packs, padded on the right.
        position_ids: (B, T) position of each token in its row.
        allowed: (B, 1, T, T) bool, what each token may look at.
        rows: numbers of the rows, pack by pack; N of them.
        owner: (N,) pack of each row.
        place: (N, L) where a row's tokens are in its pack, padded with 0.
        mask: (N, L), 1 for real tokens of the rows.
        labels: (N, L) with -100 outside answers.
    """

    input_ids: Tensor
    position_ids: Tensor
    allowed: Tensor
    rows: tuple[int, ...]
    owner: Tensor
    place: Tensor
    mask: Tensor
    labels: Tensor

    def unpack(self, values: Tensor) -> Tensor:
        """(N, L, ...) values of the rows' tokens from the packs' (B, T, ...)."""
        return values[self.owner[:, None], self.place]

    def cut(self, positions: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
        """The packs' positions that some positions of the rows are.

        Args:
            positions: (N, S) positions in the rows.
            real: (N, S) bool, false for padding.

        Returns:
            (B, Z) positions in the packs, and (N, S) where among these Z each row's are.
        """
        counts = real.sum(1)
        ends = counts.cumsum(0)
        first = torch.zeros(len(self.input_ids), dtype=torch.long, device=real.device)
        first.scatter_reduce_(0, self.owner, ends - counts, "amin", include_self=False)
        start = ends - counts - first[self.owner]  # rows come pack by pack
        slots = (start[:, None] + torch.arange(positions.shape[1], device=real.device)).masked_fill(~real, 0)
        width = max(1, int((slots + 1).masked_fill(~real, 0).max()))
        packed = torch.zeros(len(self.input_ids), width, dtype=torch.long, device=real.device)
        where = self.owner[:, None].expand_as(slots)
        packed[where[real], slots[real]] = self.place.gather(1, positions)[real]
        return packed, slots


def lay_out(packs: Sequence[Pack], rows: Sequence[Encoded], device: torch.device) -> PackedRows:
    """Make one batch of some packs."""
    width = max(pack.tokens for pack in packs)
    numbers = [number for pack in packs for number in pack.rows]
    longest = max(len(rows[number]) for number in numbers)
    ids, positions = np.zeros((len(packs), width), np.int64), np.zeros((len(packs), width), np.int64)
    segment = np.full((len(packs), width), -1, np.int64)  # 0: shared; -1: padding
    place, mask = np.zeros((len(numbers), longest), np.int64), np.zeros((len(numbers), longest), np.int64)
    labels, owner = np.full((len(numbers), longest), IGNORE, np.int64), np.zeros(len(numbers), np.int64)
    row = 0
    for b, pack in enumerate(packs):
        end = pack.prefix
        segment[b, :end] = 0
        ids[b, :end], positions[b, :end] = rows[pack.rows[0]].input_ids[:end], np.arange(end)
        for order, number in enumerate(pack.rows):
            one = rows[number]
            own = slice(end, end + len(one) - pack.prefix)
            ids[b, own], segment[b, own] = one.input_ids[pack.prefix :], order + 1
            positions[b, own] = np.arange(pack.prefix, len(one))
            place[row, : len(one)] = np.concatenate([np.arange(pack.prefix), np.arange(own.start, own.stop)])
            mask[row, : len(one)], owner[row] = 1, b
            labels[row, : len(one)] = np.where(one.answer_mask, one.input_ids, IGNORE)
            row, end = row + 1, own.stop
    segments = torch.from_numpy(segment).to(device, torch.int32)
    seen, other = segments[:, :, None], segments[:, None, :]
    allowed = ((other == 0) | (other == seen)) & torch.ones(width, width, dtype=torch.bool, device=device).tril()
    tensors = [torch.from_numpy(array).to(device) for array in (ids, positions, owner, place, mask, labels)]
    return PackedRows(tensors[0], tensors[1], allowed[:, None], tuple(numbers), *tensors[2:])
