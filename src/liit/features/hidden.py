"""Pooled hidden states."""

from __future__ import annotations

from torch import Tensor


def masked_mean(states: Tensor, mask: Tensor) -> Tensor:
    """Mean over real tokens.

    Args:
        states: (N, T, d).
        mask: (N, T), 1 for real tokens.

    Returns:
        (N, d) float32.
    """
    weights = mask.float()
    return (states.float() * weights[..., None]).sum(1) / weights.sum(1, keepdim=True)


def position_weighted_mean(states: Tensor, mask: Tensor) -> Tensor:
    """RDS+'s pooling (arXiv 2503.01807, appendix G.2): weights w_i = i / sum_j j over the real tokens, i = 1..T.

    The official code ignores the attention mask and is therefore right at batch size 1 only.

    Args:
        states: (N, T, d) last hidden states.
        mask: (N, T), 1 for real tokens, padded on either side.

    Returns:
        (N, d) float32, not normalised.
    """
    weights = mask.cumsum(1).float() * mask
    return (states.float() * weights[..., None]).sum(1) / weights.sum(1, keepdim=True)
