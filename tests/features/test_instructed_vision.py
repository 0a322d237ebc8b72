"""ScalSelect's representation against its definition from full attention maps, in several families of attention."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from small_decoders import FAMILIES, padded_ids, small_decoder
from tiny_vlm import mixed_samples

from liit.config import FeatureSettings
from liit.errors import InputError
from liit.features.attention import InstructionAttention, rows_of_mask
from liit.features.engine import Extractor, Twin
from liit.features.hidden import attended_mean
from liit.model.batch import collate
from liit.model.chat import ChatEncoder, Encoded
from liit.model.vision import Pixels
from liit.model.vlm import VLM

NAME = "instructed_vision"


def by_definition(states: np.ndarray, attention: np.ndarray, user: np.ndarray, vision: np.ndarray, mass: float) -> Any:
    """Steps 3 to 6 of the specification, in plain loops: states (T, d), attention (heads, T, T)."""
    paid = attention.mean(0)[user].sum(0)[vision]
    if len(paid) == 0:
        return np.full(states.shape[1], np.nan)
    share = paid / paid.sum() if paid.sum() > 0 else np.full(len(paid), 1 / len(paid))
    held, chosen = 0.0, []
    for place in np.argsort(-share, kind="stable"):
        chosen.append(place)
        held += share[place]
        if held > mass:
            break
    return states[np.flatnonzero(vision)[chosen]].mean(0)


def expected(vlm: VLM, row: Encoded, mass: float) -> Any:
    """One row through the model's own eager attention, which gives the weights away."""
    vlm.backbone.language_model.set_attn_implementation("eager")
    inputs = collate(vlm, [row], Pixels(vlm))
    inputs.pop("labels")
    with torch.no_grad():
        out = vlm.base(**inputs, output_attentions=True, output_hidden_states=True)
    vlm.backbone.language_model.set_attn_implementation("sdpa")
    vision = row.input_ids == vlm.image_token_id
    user = ~vision & ~row.answer_mask
    return by_definition(out.hidden_states[1][0].numpy(), out.attentions[0][0].double().numpy(), user, vision, mass)


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("mass", [0.3, 0.9, 1.0])
def test_instructed_vision_is_its_definition_for_every_shape_of_row(
    adapted: VLM, mass: float, implementation: str
) -> None:
    encoder = ChatEncoder(adapted)
    rows = [encoder.encode(sample) for sample in mixed_samples()]
    adapted.backbone.language_model.set_attn_implementation(implementation)
    settings = FeatureSettings(attention_mass=mass, batch_tokens=400)
    got = Extractor(adapted, [NAME], settings)([Twin(row, None) for row in rows])[NAME]
    assert adapted.text_config._attn_implementation == implementation
    for vector, row in zip(got, rows, strict=True):
        np.testing.assert_allclose(vector, expected(adapted, row, mass), rtol=1e-4, atol=1e-5, err_msg=row.id)
        assert np.isnan(vector).all() == (not row.images)


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("family", FAMILIES)
def test_attention_is_recomputed_as_each_family_computes_it(family: str, side: str) -> None:
    model = small_decoder(family)
    ids, mask = padded_ids(side)
    users = (torch.rand(ids.shape, generator=torch.Generator().manual_seed(3)) < 0.5) | (ids == ids[:, :1])
    users &= mask.bool()
    with torch.no_grad():
        attentions = model(ids, attention_mask=mask, output_attentions=True).attentions[0]
    reference = torch.einsum("nhuk,nu->nk", attentions, users.float()) / attentions.shape[1]
    look = InstructionAttention(model.layers[0], family)
    for implementation in ("eager", "sdpa"):
        if family == "gemma2" and implementation == "sdpa":
            continue  # its soft cap is beyond that kernel
        model.set_attn_implementation(implementation)
        with torch.no_grad(), look.recording(users):
            model(ids, attention_mask=mask)
        torch.testing.assert_close(look.result() * mask, reference * mask, rtol=1e-4, atol=1e-6)
        assert model.layers[0].self_attn.config._attn_implementation == implementation


def test_other_layers_keep_their_kernel_and_their_outputs(tiny: VLM) -> None:
    rows = [ChatEncoder(tiny).encode(sample) for sample in mixed_samples()[:3]]
    batch = collate(tiny, rows, Pixels(tiny))
    batch.pop("labels")
    with torch.no_grad():
        plain = tiny.backbone(**batch)[0]
        look = InstructionAttention(tiny.decoder_layers[0], tiny.path)
        with look.recording(batch["attention_mask"].bool()):
            kernels = [layer.self_attn.config._attn_implementation for layer in tiny.decoder_layers]
            looked = tiny.backbone(**batch)[0]
    assert kernels[1:] == ["sdpa"] * 3
    assert torch.equal(plain, looked)


def test_attention_that_cannot_be_looked_at_is_refused(load_tiny: Callable[..., VLM]) -> None:
    vlm = load_tiny()
    for layer in vlm.decoder_layers:
        layer.self_attn.forward = lambda hidden_states, **_: (hidden_states, None)
    with pytest.raises(InputError, match=r"instructed_vision cannot be computed for .*attention interface"):
        Extractor(vlm, [NAME], FeatureSettings())([Twin(ChatEncoder(vlm).encode(mixed_samples()[0]), None)])
    look = InstructionAttention(vlm.decoder_layers[0], "m")
    query = torch.zeros(1, 1, 2, 4)
    for options in ({"s_aux": query}, {"position_bias": query}, {"sliding_window": 3}):
        with pytest.raises(InputError, match="instructed_vision cannot be computed"):
            look._weights(vlm.base, query, query, None, torch.ones(1, 2, dtype=torch.bool), options)


def test_mask_of_chosen_positions_is_read_from_every_kind_of_mask() -> None:
    positions = torch.tensor([[0, 2], [3, 1]])
    causal = torch.tensor([[[1, 0, 0, 0], [1, 1, 1, 0]], [[1, 1, 1, 1], [1, 1, 0, 0]]]).bool()[:, None]
    assert torch.equal(rows_of_mask(None, positions, 4), causal)
    padding = torch.tensor([[1, 1, 1, 1], [0, 1, 1, 1]])
    assert torch.equal(rows_of_mask(padding, positions, 4), causal & padding.bool()[:, None, None])
    whole = torch.randn(1, 3, 4, 4)
    rows = rows_of_mask(whole, positions, 4)
    assert torch.equal(rows[1], whole[0][:, [3, 1]])
    for strange in ("mask", torch.zeros(1, 1, 4, 9)):
        with pytest.raises(TypeError):
            rows_of_mask(strange, positions, 4)


def test_attended_mean_keeps_the_shortest_prefix_that_holds_more_than_the_mass() -> None:
    """The specification's case: shares .5, .3, .15, .05 keep three tokens at .9, the one that crosses included."""
    states = torch.arange(10.0).reshape(1, 5, 2)
    vision = torch.tensor([[True, True, False, True, True]])
    attention = torch.tensor([[0.15, 0.5, 7.0, 0.05, 0.3]])
    for mass, kept in ((0.9, [1, 4, 0]), (0.49, [1]), (0.79, [1, 4]), (0.96, [0, 1, 3, 4]), (1.0, [0, 1, 3, 4])):
        torch.testing.assert_close(attended_mean(states, attention, vision, mass)[0], states[0, kept].mean(0))
    nothing = attended_mean(states, torch.zeros(1, 5), vision, 0.9)  # uniform; ties go to the earlier token
    torch.testing.assert_close(nothing[0], states[0, [0, 1, 3, 4]].mean(0))
    assert attended_mean(states, attention, torch.zeros_like(vision), 0.9).isnan().all()
