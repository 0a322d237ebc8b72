"""Operations counted while they run are those of the arithmetic on paper."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from liit.lifelong.cost import FlopCounter


def test_a_forward_pass_takes_two_operations_per_weight_and_row() -> None:
    with torch.no_grad(), FlopCounter() as counter:
        nn.Linear(5, 7)(torch.ones(3, 2, 5))
        torch.ones(3, 4) @ torch.ones(4, 6)
        nn.Conv2d(3, 8, 2)(torch.ones(1, 3, 5, 5))
    assert (counter.forward, counter.backward) == (2 * 6 * 35 + 2 * 3 * 4 * 6 + 2 * 16 * 8 * 12, 0)


@pytest.mark.parametrize(("weights", "input", "times"), [(False, False, 0), (False, True, 1), (True, True, 2)])
def test_a_backward_pass_costs_a_forward_pass_per_operand_that_gets_a_gradient(
    weights: bool, input: bool, times: int
) -> None:
    layer = nn.Linear(5, 7).requires_grad_(weights)
    with FlopCounter() as counter:
        layer(torch.ones(4, 5, requires_grad=input))
    assert counter.forward == 2 * 4 * 35
    assert counter.backward == times * counter.forward


def test_attention_is_counted_for_all_pairs_and_twice_backward() -> None:
    query, key, value = (torch.rand(2, 3, n, 8, requires_grad=True) for n in (5, 9, 9))
    with FlopCounter() as counter:
        nn.functional.scaled_dot_product_attention(query, key, value)
    assert counter.forward == 4 * 2 * 3 * 5 * 9 * 8
    assert counter.backward == 2 * counter.forward


def test_training_lora_on_a_frozen_layer_costs_two_passes_and_the_factors_three() -> None:
    frozen, down, up = nn.Linear(10, 10).requires_grad_(False), nn.Linear(10, 2, bias=False), nn.Linear(2, 10)
    x = torch.ones(6, 10, requires_grad=True)
    with FlopCounter() as counter:
        (frozen(x) + up(down(x))).sum().backward()
    assert counter.total == 2 * 6 * (2 * 100 + 3 * 40)


def test_what_is_counted_does_not_change_what_comes_out() -> None:
    torch.manual_seed(0)
    layer, x = nn.Linear(4, 4), torch.rand(3, 4)
    plain = layer(x)
    with FlopCounter():
        assert torch.equal(layer(x), plain)
