"""The last layer at a few positions gives what the whole layer gives there, forward and backward."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from small_decoders import FAMILIES, padded_ids, small_decoder

from liit.features.losses import IGNORE
from liit.features.narrow import NarrowLayer, answer_positions, gather


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@pytest.mark.parametrize("family", FAMILIES)
def test_narrow_layer_is_the_whole_layer_at_its_positions(family: str, implementation: str, side: str) -> None:
    if family == "gemma2" and implementation == "sdpa":
        pytest.skip("its soft cap is beyond that kernel")
    model = small_decoder(family, implementation)
    ids, mask = padded_ids(side)
    positions = torch.tensor([[0, 3, 11], [1, 1, 6], [2, 3, 3]])
    if side == "left":
        positions = 11 - positions
    model.layers[0].register_forward_pre_hook(lambda _m, args: (args[0].requires_grad_(), *args[1:]))
    start: list[torch.Tensor] = []
    model.layers[0].register_forward_hook(lambda _m, args, _o: start.append(args[0]))
    seen: list[int] = []
    model.layers[1].mlp.register_forward_hook(lambda _m, _a, out: seen.append(out.shape[1]))
    whole = gather(model(ids, attention_mask=mask)[0], positions)
    with NarrowLayer(model.layers[1]).at(positions):
        few = model(ids, attention_mask=mask)[0]
    assert seen == [12, 3]
    assert few.shape == (3, 3, 32)
    torch.testing.assert_close(few, whole, rtol=1e-4, atol=1e-4)
    weights = torch.randn(few.shape, generator=torch.Generator().manual_seed(2))
    gradients = [torch.autograd.grad(out, h, weights)[0] for out, h in zip((whole, few), start, strict=True)]
    assert gradients[0].abs().max() > 0.1
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-3, atol=1e-4)
    assert model(ids, attention_mask=mask)[0].shape == (3, 12, 32)


def test_layer_without_attention_is_run_whole_and_cut() -> None:
    class Plain(torch.nn.Module):
        def forward(self, hidden_states: torch.Tensor, scale: float = 1.0) -> tuple[torch.Tensor, str]:
            return hidden_states * scale, "more"

    layer = Plain()
    x, positions = torch.randn(2, 5, 3), torch.tensor([[1], [4]])
    with NarrowLayer(layer).at(positions):
        out, more = layer(x, scale=2.0)
    assert more == "more"
    assert torch.equal(out, 2 * gather(x, positions))


@pytest.mark.parametrize("inputs", [{"per_layer_input": torch.zeros(3, 12, 2)}, {"strange": torch.zeros(12)}])
def test_layer_with_inputs_of_an_unknown_kind_is_not_cut(inputs: dict[str, Any]) -> None:
    layer = small_decoder("llama").layers[1]
    rotary = (torch.ones(1, 12, 8), torch.zeros(1, 12, 8))
    with NarrowLayer(layer).at(torch.zeros(3, 1, dtype=torch.long)), pytest.raises(TypeError, match="may belong to"):
        layer(torch.zeros(3, 12, 32), position_embeddings=rotary, **inputs)
    assert "forward" not in layer.__dict__
    assert layer.self_attn.config._attn_implementation == "eager"


def test_positions_are_those_that_predict_an_answer_token() -> None:
    targets = torch.full((3, 10), IGNORE)
    targets[0, [2, 7]] = torch.tensor([5, 6])
    targets[1, 4] = 9
    positions, chosen = answer_positions(targets)
    assert positions is not None
    assert positions[0].tolist() == [2, 7]
    assert chosen.tolist() == [[5, 6], [9, IGNORE], [IGNORE, IGNORE]]
    assert int(positions[1, 0]) == 4
    full = torch.ones(2, 4, dtype=torch.long)
    positions, chosen = answer_positions(full)
    assert positions is None
    assert torch.equal(chosen, full)
