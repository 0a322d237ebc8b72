"""Sketches: fixed random linear maps that shorten a gradient and keep inner products.

`SignedFold` is the default: for a vector g of length P and a sketch of length k, chunk c holds g[ck : (c+1)k]; with
independent random signs and random cyclic shifts the sum of the chunks' inner products are unbiased estimates of the
vectors' with the variance of a dense Rademacher projection, at O(P) time and no P x k matrix. `Rademacher` is that
projection, the paper's choice (arXiv 2410.10636, section 3), at O(Pk) time.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence
from typing import Protocol

import torch
from torch import Tensor

BLOCK_ROWS = 256
KEEP_ELEMENTS = 1 << 27
CHUNKS_AT_ONCE = 64  # of a fold on a GPU, where a call costs more than its sum
MAPS = {"signed-fold": "signed-fold", "rademacher": "rademacher-2"}
"""What a sketch's map is called in the key of stored gradients; a change of the map changes its name."""


class Sketch(Protocol):
    """A fixed linear map from R^length to R^dim."""

    length: int
    dim: int

    def __call__(self, parts: Iterable[Tensor]) -> Tensor:
        """Sketch N vectors given as consecutive parts.

        Args:
            parts: tensors (N, p_1), (N, p_2), ... with sum(p) = length.

        Returns:
            (N, dim) float32.
        """
        ...


def make_sketch(kind: str, length: int, dim: int, seed: int, device: torch.device | str = "cpu") -> Sketch:
    """The sketch that ``features.sketch`` names.

    Args:
        kind: ``signed-fold`` or ``rademacher``.
        length: P, the number of input coordinates.
        dim: k, the number of sketch coordinates.
        seed: the same seed gives the same map on every device.
        device: where the vectors live.
    """
    if kind == "rademacher":
        return Rademacher(length, dim, seed, device)
    return SignedFold(length, dim, seed, device)


class SignedFold:
    """Random signs, a random cyclic shift per chunk of ``dim`` coordinates, and the sum of the chunks.

    Args:
        length: P, the number of input coordinates.
        dim: k, the number of sketch coordinates.
        seed: of the signs and shifts; the same seed gives the same map on every device.
        device: where the vectors live.
    """

    def __init__(self, length: int, dim: int, seed: int, device: torch.device | str = "cpu") -> None:
        self.length, self.dim = length, dim
        generator = torch.Generator().manual_seed(seed)
        signs = torch.randint(0, 2, (length,), generator=generator, dtype=torch.int8) * 2 - 1
        self.signs = signs.to(device)
        self.at_once = 1 if torch.device(device).type == "cpu" else CHUNKS_AT_ONCE
        self.shifts = torch.randint(0, dim, (-(-length // dim),), generator=generator).tolist()

    def __call__(self, parts: Iterable[Tensor]) -> Tensor:
        """See `Sketch`."""
        out: Tensor | None = None
        position = 0
        for part in parts:
            if out is None:
                out = torch.zeros(len(part), self.dim, dtype=torch.float32, device=part.device)
            done = 0
            signed = part.float() * self.signs[position : position + part.shape[1]].float()
            while done < part.shape[1]:
                chunk, inside = divmod(position, self.dim)
                whole = 0 if inside else min((part.shape[1] - done) // self.dim, self.at_once)
                if whole > 1:
                    take = whole * self.dim
                    self._add_chunks(out, signed[:, done : done + take], self.shifts[chunk : chunk + whole])
                else:
                    take = min(self.dim - inside, part.shape[1] - done)
                    self._add(out, signed[:, done : done + take], (inside + self.shifts[chunk]) % self.dim)
                done += take
                position += take
        return _complete(out, position, self.length)

    def _add_chunks(self, out: Tensor, chunks: Tensor, shifts: Sequence[int]) -> None:
        """Add whole chunks that lie behind one another, each with its shift."""
        there = torch.arange(self.dim, device=out.device)[None]
        source = (there - torch.tensor(shifts, device=out.device)[:, None]) % self.dim
        out += chunks.unflatten(1, source.shape).gather(2, source.expand(len(chunks), -1, -1)).sum(1)

    def _add(self, out: Tensor, piece: Tensor, start: int) -> None:
        """Add a piece at a cyclic position."""
        head = min(piece.shape[1], self.dim - start)
        out[:, start : start + head] += piece[:, :head]
        if head < piece.shape[1]:
            out[:, : piece.shape[1] - head] += piece[:, head:]


class Rademacher:
    """Dense projection by random signs over sqrt(dim).

    The P x k signs are made in blocks of rows, each from its own seed, where the vectors are, and made again at every
    call unless all of them fit into ``keep`` numbers of one byte.

    Args:
        length: P, the number of input coordinates.
        dim: k, the number of sketch coordinates.
        seed: the same seed gives the same map on every device and for every ``keep``.
        device: where the vectors live.
        keep: most signs to hold in memory.
    """

    def __init__(
        self, length: int, dim: int, seed: int, device: torch.device | str = "cpu", keep: int = KEEP_ELEMENTS
    ) -> None:
        self.length, self.dim, self.seed, self.device = length, dim, seed, device
        n_blocks = -(-length // BLOCK_ROWS)
        kept = length * dim <= keep
        self._kept = [self._draw(block) for block in range(n_blocks)] if kept else None

    def __call__(self, parts: Iterable[Tensor]) -> Tensor:
        """See `Sketch`."""
        out: Tensor | None = None
        position = 0
        current, signs = -1, torch.empty(0)
        for part in parts:
            if out is None:
                out = torch.zeros(len(part), self.dim, dtype=torch.float32, device=part.device)
            done = 0
            while done < part.shape[1]:
                block, inside = divmod(position, BLOCK_ROWS)
                if block != current:
                    current, signs = block, self._block(block)
                take = min(BLOCK_ROWS - inside, part.shape[1] - done)
                out.addmm_(part[:, done : done + take].float(), signs[inside : inside + take])
                done += take
                position += take
        return _complete(out, position, self.length) / math.sqrt(self.dim)

    def _block(self, block: int) -> Tensor:
        signs = self._draw(block) if self._kept is None else self._kept[block]
        return signs.float()

    def _draw(self, block: int) -> Tensor:
        count = BLOCK_ROWS * self.dim
        bits = random_bits(count, seed_of(self.seed, "rademacher", block), self.device)
        return bits.mul_(2).sub_(1).view(BLOCK_ROWS, self.dim)


def random_bits(count: int, seed: int, device: torch.device | str) -> Tensor:
    """(count,) int8 zeros and ones, the same on every device.

    SplitMix64 (Steele, Lea and Flood, OOPSLA 2014): a counter, mixed. Integers wrap around alike everywhere, which a
    device's own generator does not promise.
    """
    words = torch.arange(1, -(-count // 64) + 1, device=device) * _signed(0x9E3779B97F4A7C15) + _signed(seed)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        words = (words ^ _shifted(words, shift)) * _signed(factor)
    words ^= _shifted(words, 31)
    bits: Tensor = (words[:, None] >> torch.arange(64, device=device)).bitwise_and_(1).to(torch.int8)
    return bits.flatten()[:count]


def _shifted(words: Tensor, places: int) -> Tensor:
    """Bits moved to the right, zeros following."""
    return (words >> places) & ((1 << (64 - places)) - 1)


def _signed(word: int) -> int:
    """The int64 with the bits of an unsigned 64-bit word."""
    return word - (1 << 64) if word >> 63 else word


def seed_of(*parts: str | int) -> int:
    """A seed for one purpose, from the run's seed and names."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def _complete(out: Tensor | None, position: int, length: int) -> Tensor:
    if out is None or position != length:
        raise ValueError(f"parts: got {position} coordinates, expected {length}")
    return out
