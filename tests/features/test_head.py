"""Heads that scale or cap their logits: statistics and gradients are those of the model's own loss."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from small_decoders import text_model
from torch import nn

from liit.config import FeatureSettings
from liit.errors import InputError
from liit.features.engine import Extractor, Twin
from liit.features.head import LogitHead, choose_head, likely_heads
from liit.model.chat import Encoded
from liit.model.lora import attach_lora, lora_parameters

HEADS = {"llama": (1.0, None), "gemma2": (1.0, 2.0), "cohere": (0.0625, None), "granite": (1 / 3, None)}


def rows() -> list[Encoded]:
    rng = np.random.default_rng(0)
    lengths = (9, 5, 12, 7)
    return [Encoded(f"r{n}", rng.integers(3, 60, n), rng.random(n) < 0.5, ()) for n in lengths]


@pytest.mark.parametrize("layers", ["all", -1])
@pytest.mark.parametrize("family", HEADS)
def test_losses_and_gradients_are_those_of_the_models_own_logits(family: str, layers: Any) -> None:
    vlm = text_model(family)
    attach_lora(vlm, r=2, alpha=4, modules=["q_proj", "v_proj", "down_proj", "lm_head"])
    with torch.no_grad():
        for parameter in lora_parameters(vlm).values():
            parameter.copy_(torch.randn(parameter.shape) * 0.3)
    settings = FeatureSettings(layers=layers, dim=10**4)
    extractor = Extractor(vlm, ["log_perplexity", "entropy", "grad_norm"], settings)
    head = extractor.passes.head
    assert (head.scale, head.cap) == pytest.approx(HEADS[family]) if HEADS[family][1] else head.cap is None
    assert head.scale == pytest.approx(HEADS[family][0])
    assert not extractor.report.notes
    out = extractor([Twin(row, None) for row in rows()])
    n_layers = vlm.text_config.num_hidden_layers
    parameters = lora_parameters(vlm, range(n_layers) if layers == "all" else [n_layers - 1])
    for i, row in enumerate(rows()):
        for parameter in parameters.values():
            parameter.requires_grad_(True)
        ids = torch.from_numpy(row.input_ids)[None]
        logits = vlm.model(input_ids=ids).logits[0, :-1].double()
        answer = torch.from_numpy(row.answer_mask[1:])
        log_p = torch.log_softmax(logits, -1)[answer]
        loss = -log_p.gather(1, ids[0, 1:, None][answer]).mean()
        gradients = torch.autograd.grad(loss, list(parameters.values()))
        np.testing.assert_allclose(out["log_perplexity"][i], float(loss.detach()), rtol=1e-4)
        np.testing.assert_allclose(out["entropy"][i], float(-(log_p.exp() * log_p).sum(-1).mean().detach()), rtol=1e-4)
        norm = float(torch.cat([g.flatten() for g in gradients]).norm())
        np.testing.assert_allclose(out["grad_norm"][i], norm, rtol=1e-3)


def test_cap_that_is_configured_but_not_applied_is_not_applied_here_either() -> None:
    """Gemma 3's vision-language model has the setting of its text model and does not use it."""
    layer, hidden = nn.Linear(4, 9), torch.randn(3, 4) * 9
    config = SimpleNamespace(final_logit_softcapping=1.0, logit_scale=None)
    head = choose_head(likely_heads(layer, config), hidden, layer(hidden), "m")
    assert (head.scale, head.cap) == (1.0, None)


def test_head_with_an_unknown_end_is_refused() -> None:
    layer, hidden = nn.Linear(4, 9), torch.randn(3, 4)
    with pytest.raises(InputError, match="model: m changes its logits after the head in a way"):
        choose_head(likely_heads(layer, SimpleNamespace()), hidden, layer(hidden) * 1.01, "m")


@pytest.mark.parametrize(("scale", "cap"), [(1.0, None), (0.3, None), (1.0, 1.5), (0.5, 2.0)])
def test_gradient_through_scale_and_cap_is_autograds(scale: float, cap: float | None) -> None:
    head = LogitHead(nn.Linear(4, 9).requires_grad_(False), scale, cap)
    hidden = torch.randn(3, 4, requires_grad=True)
    logits = head.logits(hidden)
    gradient = torch.randn(3, 9)
    (expected,) = torch.autograd.grad(logits, hidden, gradient)
    torch.testing.assert_close(head.pull(gradient, logits.detach()), expected)
