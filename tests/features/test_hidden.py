"""Pooled hidden states, by hand."""

from __future__ import annotations

import pytest
import torch

from liit.features.hidden import masked_mean, position_weighted_mean

STATES = torch.tensor([[[6.0, 0.0], [0.0, 6.0], [6.0, 6.0], [99.0, 99.0]]])
MASK = torch.tensor([[1, 1, 1, 0]])


@pytest.mark.parametrize("side", ["right", "left"])
def test_rds_weights_are_one_two_three_sixths_on_either_padding_side(side: str) -> None:
    turn = 1 if side == "left" else 0
    out = position_weighted_mean(STATES.roll(turn, 1), MASK.roll(turn, 1))
    torch.testing.assert_close(out, torch.tensor([[1 * 1 + 0 + 3.0, 0 + 2.0 + 3.0]]))


@pytest.mark.parametrize("turn", [0, 1])
def test_mean_leaves_padding_out(turn: int) -> None:
    out = masked_mean(STATES.roll(turn, 1), MASK.roll(turn, 1))
    torch.testing.assert_close(out, torch.tensor([[4.0, 4.0]]))


def test_half_precision_states_are_pooled_in_float32() -> None:
    states = torch.full((1, 4096, 1), 1.001, dtype=torch.bfloat16)
    out = masked_mean(states, torch.ones(1, 4096))
    assert out.dtype == torch.float32
    torch.testing.assert_close(out, states[:, 0].float())
