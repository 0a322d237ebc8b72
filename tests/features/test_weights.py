"""Gradients of whole weight matrices: exact norms, sketches whose inner products are right on average."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from reference import row_loss
from tiny_vlm import mixed_samples

from liit.config import FeatureSettings
from liit.errors import InputError
from liit.features.engine import Extractor, Twin
from liit.features.sketch import SignedFold
from liit.features.weights import WeightGradients
from liit.model.chat import ChatEncoder, Encoded
from liit.model.vlm import VLM

SETTINGS = FeatureSettings(gradient_of="weights", dim=512, batch_tokens=500, layers=(1, 3))


def encoded(vlm: VLM) -> list[Encoded]:
    encoder = ChatEncoder(vlm)
    return [encoder.encode(sample) for sample in mixed_samples()]


def exact(vlm: VLM, rows: Sequence[Encoded], layers: Sequence[int]) -> np.ndarray:
    """Gradients at every linear layer's weight, row by row, by autograd."""
    weights = [
        parameter
        for layer in layers
        for name, parameter in vlm.decoder_layers[layer].named_parameters()
        if parameter.ndim == 2 and ".lora_" not in name
    ]
    found = []
    for row in rows:
        vlm.model.requires_grad_(False)
        for weight in weights:
            weight.requires_grad_(True)
        found.append(torch.cat([g.flatten() for g in torch.autograd.grad(row_loss(vlm, row), weights)]).numpy())
    return np.stack(found)


def sketched(vlm: VLM, rows: Sequence[Encoded], settings: FeatureSettings, seed: int = 0) -> dict[str, np.ndarray]:
    return Extractor(vlm, ["gradient", "grad_norm"], settings, seed=seed)([Twin(row, None) for row in rows])


@pytest.mark.parametrize("lora", [False, True])
def test_without_shortening_it_is_autograds_gradient(load_tiny: Callable[..., VLM], lora: bool) -> None:
    vlm = load_tiny(lora=lora)
    rows = encoded(vlm)
    whole = exact(vlm, rows, [1, 3])
    settings = SETTINGS.model_copy(update={"factor_width": 10**4})
    out = sketched(vlm, rows, settings)
    np.testing.assert_allclose(out["grad_norm"], np.linalg.norm(whole, axis=1), rtol=1e-4)
    expected = SignedFold(whole.shape[1], 512, 0)([torch.from_numpy(whole)]).numpy()
    assert np.abs(out["gradient"] - expected).max() < 1e-4 * np.abs(expected).max()


def test_norms_are_exact_and_inner_products_right_on_average(tiny: VLM) -> None:
    rows = encoded(tiny)[:3]
    whole = exact(tiny, rows, [1, 3])
    products = whole @ whole.T
    estimates = []
    for seed in range(30):
        out = sketched(tiny, rows, SETTINGS.model_copy(update={"factor_width": 24, "dim": 4096}), seed)
        np.testing.assert_allclose(out["grad_norm"], np.linalg.norm(whole, axis=1), rtol=1e-4)
        estimates.append(out["gradient"] @ out["gradient"].T)
    error = np.std(estimates, axis=0) / np.sqrt(len(estimates))
    size = np.sqrt(np.outer(np.diag(products), np.diag(products)))
    assert (np.abs(np.mean(estimates, axis=0) - products) < 4 * error).all()
    assert (error < 0.07 * size).all()  # the test above can fail


def test_wider_sides_keep_cosines_better_and_memory_stays_small(tiny: VLM) -> None:
    rows = encoded(tiny)
    whole = exact(tiny, rows, [1, 3])
    unit = whole / np.linalg.norm(whole, axis=1, keepdims=True)
    errors = []
    for width in (4, 16, 48):
        source = WeightGradients(tiny, [1, 3], width, 0)
        assert source.length < whole.shape[1]
        got = [
            sketched(tiny, rows, SETTINGS.model_copy(update={"factor_width": width, "dim": 8192}), seed)["gradient"]
            for seed in range(4)
        ]
        got = [g / np.linalg.norm(g, axis=1, keepdims=True) for g in got]
        errors.append(np.sqrt(np.mean([np.square(g @ g.T - unit @ unit.T) for g in got])))
    assert errors[0] > 1.5 * errors[1] > 1.5 * errors[2]
    assert errors[2] < 0.1


def test_no_optimizer_state_and_no_missing_layers(tiny: VLM, tmp_path: pytest.TempPathFactory) -> None:
    with pytest.raises(InputError, match="no coordinates to precondition"):
        Extractor(tiny, ["gradient"], SETTINGS, optimizer_state=tmp_path / "x")  # type: ignore[operator]
    tiny.decoder_layers[2].self_attn = torch.nn.Identity()
    tiny.decoder_layers[2].mlp = torch.nn.Identity()
    with pytest.raises(InputError, match=r"\[2\] hold no linear layers"):
        WeightGradients(tiny, [2], 8, 0)
