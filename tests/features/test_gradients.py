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
from liit.features import FEATURES, engine
from liit.features.engine import Extractor, Twin
from liit.features.gradients import LoraGradients
from liit.features.losses import answer_statistics, next_tokens
from liit.features.narrow import answer_positions
from liit.features.passes import Passes
from liit.features.settings import gradient_layers
from liit.features.sketch import SignedFold
from liit.features.taps import only_scoring
from liit.model.batch import collate
from liit.model.chat import ChatEncoder, Encoded
from liit.model.lora import attach_lora, lora_parameters
from liit.model.vision import Pixels
from liit.model.vlm import VLM, load_vlm

TOLERANCE = 1e-4


def encoded(vlm: VLM) -> list[Encoded]:
    encoder = ChatEncoder(vlm)
    return [encoder.encode(sample) for sample in mixed_samples()]


def batched(
    vlm: VLM, rows: Sequence[Encoded], layers: Sequence[int], side: str = "right", *, narrow: bool = True
) -> np.ndarray:
    """Per-sample gradients of one batch; narrow: the last layer runs at the answers' positions only."""
    source = LoraGradients(vlm, layers)
    batch = collate(vlm, rows, Pixels(vlm), side=side)
    targets = next_tokens(batch["labels"])
    positions, targets = answer_positions(targets) if narrow else (None, targets)
    assert (positions is not None) == narrow
    with only_scoring(vlm):
        passes = Passes(vlm, head=True)
        assert passes.narrow is not None
        with source.recording():
            hidden = passes.run(batch, len(passes.layers), positions)
            statistics = answer_statistics(hidden, targets, passes.head, gradient=True)
            parts = list(source.per_sample(hidden, statistics.grad_hidden))
    assert [part.name for part in parts] == list(source.parameters)
    for part in parts:
        torch.testing.assert_close(part.squares, (part.values**2).sum(1))
    return torch.cat([part.values for part in parts], 1).double().numpy()


def check_rows(got: np.ndarray, vlm: VLM, rows: Sequence[Encoded], layers: Sequence[int]) -> None:
    for gradient, row in zip(got, rows, strict=True):
        expected = row_gradient(vlm, row, list(layers))
        size = np.linalg.norm(expected)
        assert size > 0
        assert np.linalg.norm(gradient - expected) <= TOLERANCE * size, row.id


@pytest.mark.parametrize("narrow", [True, False])
@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("wanted", ["middle", "all", (0, -1), 1, -1], ids=str)
def test_gradients_of_a_mixed_batch_equal_autograd_row_by_row(
    adapted: VLM, wanted: object, side: str, narrow: bool
) -> None:
    layers = gradient_layers(FeatureSettings(layers=wanted), 4)
    rows = [row for row in encoded(adapted) if row.id != "long" or not narrow]
    check_rows(batched(adapted, rows, layers, side, narrow=narrow), adapted, rows, layers)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_gradients_with_checkpointing_and_dropout_left_on_are_those_without(
    load_tiny: Callable[..., VLM], dtype: str
) -> None:
    plain = load_tiny(dtype=dtype)
    attach_lora(plain, r=3, alpha=6, dropout=0.5)
    randomise_lora(plain)
    rows = encoded(plain)[:3]
    expected = batched(plain, rows, [0, 1, 2, 3])
    plain.model.train()
    plain.model.gradient_checkpointing_enable()
    plain.model.enable_input_require_grads()
    out = batched(plain, rows, [0, 1, 2, 3])
    np.testing.assert_array_equal(out, expected)
    assert all(module.training for module in plain.model.modules())


def test_gradients_in_bfloat16_are_autograds_within_its_rounding(load_tiny: Callable[..., VLM]) -> None:
    gradients = {}
    for dtype in ("float32", "bfloat16"):
        vlm = load_tiny(lora=True, dtype=dtype)
        rows = encoded(vlm)[:3]
        ours, autograd = batched(vlm, rows, [1, 2]), [row_gradient(vlm, row, [1, 2]) for row in rows]
        gradients[dtype] = ours, autograd
    for ours, autograd, exact in zip(*gradients["bfloat16"], gradients["float32"][1], strict=True):
        size = np.linalg.norm(exact)
        assert np.linalg.norm(ours - exact) < max(1.5 * np.linalg.norm(autograd - exact), 0.02 * size)


def test_experts_that_mix_the_tokens_of_samples_are_refused(adapted: VLM) -> None:
    """A module that sees tokens without samples has no per-sample gradient."""
    source = LoraGradients(adapted, [2])
    layer = adapted.decoder_layers[2].mlp
    whole = layer.forward
    layer.forward = lambda x: whole(x.flatten(0, 1)).unflatten(0, x.shape[:2])
    rows = encoded(adapted)[:2]
    batch = collate(adapted, rows, Pixels(adapted))
    with only_scoring(adapted), source.recording():
        hidden = Passes(adapted, head=False).run(batch, 4)
        with pytest.raises(InputError, match=r"mixes the tokens of several samples"):
            list(source.per_sample(hidden, torch.ones_like(hidden)))


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


def test_extraction_leaves_no_trace(adapted: VLM, monkeypatch: pytest.MonkeyPatch) -> None:
    adapted.model.train()
    before = {name: (p.requires_grad, p.detach().clone()) for name, p in adapted.model.named_parameters()}
    extractor = Extractor(adapted, FEATURES, FeatureSettings(dim=8))
    twins = [Twin(row, None) for row in encoded(adapted)[:2]]

    def fail(*_: object, **__: object) -> None:
        assert not any(p.requires_grad for p in adapted.decoder_layers.parameters())
        assert not any(module.training for module in adapted.model.modules())
        raise RuntimeError("stop")

    for broken in (False, True):
        if broken:
            monkeypatch.setattr(engine, "answer_statistics", fail)
            with pytest.raises(RuntimeError, match="stop"):
                extractor(twins)
        else:
            extractor(twins)
        for name, parameter in adapted.model.named_parameters():
            assert parameter.requires_grad == before[name][0]
            assert torch.equal(parameter, before[name][1]), name
            assert parameter.grad is None
        for module in adapted.model.modules():
            assert module.training
            assert not module._forward_hooks
            assert not module._forward_pre_hooks
            assert "_liit_call" not in module.__dict__
        assert all("forward" not in layer.__dict__ for layer in adapted.decoder_layers)
        assert len({id(m.config) for m in adapted.decoder_layers.modules() if hasattr(m, "config")}) == 1


def test_other_kinds_of_adapters_are_refused(load_tiny: Callable[..., VLM]) -> None:
    from peft import LoraConfig, get_peft_model

    for options in ({"use_dora": True}, {"lora_bias": True}):
        vlm = load_tiny()
        vlm.model = get_peft_model(vlm.base, LoraConfig(r=2, target_modules=["q_proj"], **options))
        with pytest.raises(InputError, match=r"expected (an adapter of )?one plain LoRA"):
            LoraGradients(vlm, [2])


def test_layers_without_an_adapter_are_refused(load_tiny: Callable[..., VLM]) -> None:
    vlm = load_tiny(lora=True, modules=r".*layers\.0\..*q_proj")
    with pytest.raises(InputError, match=r"features\.layers.*no LoRA"):
        LoraGradients(vlm, [2])
    with pytest.raises(InputError, match=r"features\.layers"):
        gradient_layers(FeatureSettings(layers=4), 4)
