"""Per-sample gradients of a batch equal autograd, row by row."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from reference import row_gradient
from tiny_vlm import mixed_samples, randomise_lora

from liit.config import FeatureSettings
from liit.errors import InputError
from liit.features.extraction import Extractor, Twin
from liit.features.gradients import LoraGradients
from liit.features.losses import answer_statistics
from liit.features.settings import gradient_layers
from liit.features.sketch import SignedFold
from liit.model.batch import collate
from liit.model.chat import ChatEncoder, Encoded
from liit.model.lora import attach_lora, lora_parameters
from liit.model.vision import Pixels
from liit.model.vlm import VLM, load_vlm

TOLERANCE = 1e-4


def encoded(vlm: VLM) -> list[Encoded]:
    encoder = ChatEncoder(vlm)
    return [encoder.encode(sample) for sample in mixed_samples()]


def batched(vlm: VLM, rows: Sequence[Encoded], layers: Sequence[int], side: str = "right") -> np.ndarray:
    recorder = LoraGradients(vlm, layers)
    batch = collate(vlm, rows, Pixels(vlm), side=side)
    labels = batch.pop("labels")
    with recorder.recording():
        hidden = vlm.backbone(**batch, use_cache=False)[0]
        statistics = answer_statistics(hidden, labels, vlm.lm_head, gradient=True)
        parts = list(recorder.per_sample(hidden, statistics.grad_hidden))
    return torch.cat(parts, 1).double().numpy()


def check_rows(got: np.ndarray, vlm: VLM, rows: Sequence[Encoded], layers: Sequence[int]) -> None:
    for gradient, row in zip(got, rows, strict=True):
        expected = row_gradient(vlm, row, list(layers))
        size = np.linalg.norm(expected)
        assert size > 0
        assert np.linalg.norm(gradient - expected) <= TOLERANCE * size, row.id


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("wanted", ["middle", "all", (0, -1), 1], ids=str)
def test_gradients_of_a_mixed_batch_equal_autograd_row_by_row(adapted: VLM, wanted: object, side: str) -> None:
    layers = gradient_layers(FeatureSettings(layers=wanted), 4)
    rows = encoded(adapted)
    check_rows(batched(adapted, rows, layers, side), adapted, rows, layers)


@pytest.mark.parametrize(
    "modules",
    [["q_proj", "v_proj"], ["o_proj"], ["down_proj"], ["gate_proj", "up_proj"], "language-and-projector-linear"],
    ids=str,
)
def test_gradients_are_right_for_any_choice_of_modules(load_tiny: Callable[..., VLM], modules: object) -> None:
    vlm = load_tiny(lora=True, modules=modules)
    rows = encoded(vlm)[:4]
    check_rows(batched(vlm, rows, [1, 2]), vlm, rows, [1, 2])


@pytest.mark.parametrize("wanted", ["middle", "all"])
def test_gradients_are_right_on_the_trained_built_in_model(tiny_path: Path, wanted: str) -> None:
    """In double precision they are autograd's; in single they agree with autograd's own within the tolerance."""
    rows, gradients = [], {}
    for dtype in ("float64", "float32"):
        vlm = load_vlm("builtin:demo")
        attach_lora(vlm, r=8, alpha=16)
        randomise_lora(vlm, scale=0.05)
        vlm.model.to(getattr(torch, dtype))
        layers = gradient_layers(FeatureSettings(layers=wanted), vlm.text_config.num_hidden_layers)
        rows = rows or encoded(vlm)
        gradients[dtype] = batched(vlm, rows, layers), [row_gradient(vlm, row, list(layers)) for row in rows]
    for ours, autograd, ours_single, autograd_single in zip(*gradients["float64"], *gradients["float32"], strict=True):
        size = np.linalg.norm(autograd)
        assert np.linalg.norm(ours - autograd) < 1e-5 * size
        assert np.linalg.norm(ours_single - autograd_single) < TOLERANCE * size


def test_every_parameter_has_its_own_place_in_the_vector(adapted: VLM) -> None:
    """Both factors of all seven linear layers, each nonzero, in the model's order."""
    rows = encoded(adapted)[:2]
    parameters = lora_parameters(adapted, [2])
    assert len(parameters) == 2 * 7
    got = batched(adapted, rows, [2])
    assert got.shape == (2, sum(p.numel() for p in parameters.values()))
    sizes = [p.numel() for p in parameters.values()]
    assert all(np.abs(part).max() > 0 for part in np.split(got, np.cumsum(sizes)[:-1], axis=1))


def test_fresh_adapter_has_a_gradient_at_b_only(load_tiny: Callable[..., VLM]) -> None:
    vlm = load_tiny()
    attach_lora(vlm, r=2, alpha=4)
    got = batched(vlm, encoded(vlm)[:2], [2])
    names = list(lora_parameters(vlm, [2]))
    sizes = [p.numel() for p in lora_parameters(vlm, [2]).values()]
    for name, part in zip(names, np.split(got, np.cumsum(sizes)[:-1], axis=1), strict=True):
        assert (np.abs(part).max() == 0) == ("lora_A" in name), name


def test_grad_norm_and_sketch_are_those_of_the_exact_gradient(adapted: VLM) -> None:
    settings = FeatureSettings(layers="all", dim=64, dtype="float32", batch_tokens=300)
    rows = encoded(adapted)
    out = Extractor(adapted, ["gradient", "grad_norm"], settings, seed=5)([Twin(row, None) for row in rows])
    exact = np.stack([row_gradient(adapted, row, range(4)) for row in rows])
    np.testing.assert_allclose(out["grad_norm"], np.linalg.norm(exact, axis=1), rtol=TOLERANCE)
    sketch = SignedFold(exact.shape[1], 64, 5)([torch.from_numpy(exact)]).numpy()
    assert np.abs(out["gradient"] - sketch).max() <= TOLERANCE * np.abs(sketch).max()


def test_recording_leaves_no_trace(adapted: VLM) -> None:
    before = {name: p.requires_grad for name, p in adapted.model.named_parameters()}
    recorder = LoraGradients(adapted, [1])

    def fail() -> None:
        with recorder.recording():
            assert [n for n, p in adapted.base.named_parameters() if p.requires_grad] == list(recorder.parameters)
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail()
    assert {name: p.requires_grad for name, p in adapted.model.named_parameters()} == before
    assert not any(module._forward_hooks for module in recorder.modules.values())


def test_layers_without_an_adapter_are_refused(load_tiny: Callable[..., VLM]) -> None:
    vlm = load_tiny(lora=True, modules=r".*layers\.0\..*q_proj")
    with pytest.raises(InputError, match=r"features\.layers.*no LoRA"):
        LoraGradients(vlm, [2])
    with pytest.raises(InputError, match=r"features\.layers"):
        gradient_layers(FeatureSettings(layers=4), 4)
