"""Signed-fold sketch of a long vector: random signs, a cyclic shift per chunk, and the sum of the chunks.

For a vector g of length P and a sketch of length k, chunk c holds g[ck : (c+1)k]; with independent random signs and
random shifts the sketch's inner products are unbiased estimates of the vectors' with the variance of a dense
Rademacher projection (the paper's choice, arXiv 2410.10636, section 3), at O(P) time and no P x k matrix.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


class SignedFold:
    """A fixed random linear map from R^length to R^dim.

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
        self.shifts = torch.randint(0, dim, (-(-length // dim),), generator=generator).tolist()

    def __call__(self, parts: Iterable[Tensor]) -> Tensor:
        """Sketch N vectors given as consecutive parts.

        Args:
            parts: tensors (N, p_1), (N, p_2), ... with sum(p) = length.

        Returns:
            (N, dim) float32.
        """
        out: Tensor | None = None
        position = 0
        for part in parts:
            if out is None:
                out = torch.zeros(len(part), self.dim, dtype=torch.float32, device=part.device)
            done = 0
            while done < part.shape[1]:
                chunk, inside = divmod(position, self.dim)
                take = min(self.dim - inside, part.shape[1] - done)
                piece = part[:, done : done + take].float() * self.signs[position : position + take]
                self._add(out, piece, (inside + self.shifts[chunk]) % self.dim)
                done += take
                position += take
        if out is None or position != self.length:
            raise ValueError(f"parts: got {position} coordinates, expected {self.length}")
        return out

    def _add(self, out: Tensor, piece: Tensor, start: int) -> None:
        """Add a piece at a cyclic position."""
        head = min(piece.shape[1], self.dim - start)
        out[:, start : start + head] += piece[:, :head]
        if head < piece.shape[1]:
            out[:, : piece.shape[1] - head] += piece[:, head:]
