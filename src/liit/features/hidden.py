"""Pooled hidden states."""

from __future__ import annotations

import torch
from torch import Tensor


def masked_mean(states: Tensor, mask: Tensor) -> Tensor:
    """Mean over real tokens.

    Args:
        states: (N, T, d).
        mask: (N, T), 1 for real tokens.

    Returns:
        (N, d) float32.
    """
    return _weighted(states, mask.float())


def position_weighted_mean(states: Tensor, mask: Tensor) -> Tensor:
    """RDS+'s pooling (arXiv 2503.01807, appendix G.2): weights w_i = i / sum_j j over the real tokens, i = 1..T.

    The official code ignores the attention mask and is therefore right at batch size 1 only.

    Args:
        states: (N, T, d) last hidden states.
        mask: (N, T), 1 for real tokens, padded on either side.

    Returns:
        (N, d) float32, not normalised.
    """
    return _weighted(states, mask.cumsum(1).float() * mask)


def attended_mean(states: Tensor, attention: Tensor, vision: Tensor, mass: float) -> Tensor:
    """ScalSelect's representation (arXiv 2602.11636): mean state of the image tokens that the instruction looks at.

    Of a row's image tokens those with the largest attention are taken, until they hold more than ``mass`` of it, the
    one that crosses included; all count alike. Where no attention falls on them at all, every image token counts with
    the same share. Ties go to the earlier token.

    Args:
        states: (N, T, d) outputs of block 1.
        attention: (N, T) attention that the instruction pays to each token, not normalised.
        vision: (N, T) bool, true for image tokens.
        mass: tau, the share of attention to hold, in (0, 1].

    Returns:
        (N, d) float32; NaN for rows without image tokens.
    """
    paid = attention.double().masked_fill(~vision, 0)
    total = paid.sum(1, keepdim=True)
    paid = torch.where(total > 0, paid, vision.double())
    share = paid / paid.sum(1, keepdim=True)  # 0 / 0 without image tokens, which end as NaN below
    ranked, order = torch.where(vision, share, -1.0).sort(dim=1, descending=True, stable=True)
    before = ranked.clamp_min(0).cumsum(1) - ranked.clamp_min(0)
    kept = (before <= mass) & (ranked >= 0)  # everything up to the token that crosses
    return _weighted(states, torch.zeros_like(share).scatter_(1, order, kept.double()).float())


def _weighted(states: Tensor, weights: Tensor) -> Tensor:
    """(N, d): sum of (N, T, d) states with (N, T) weights, over the weights' sum."""
    return (weights[:, None, :] @ states.float())[:, 0] / weights.sum(1, keepdim=True)
