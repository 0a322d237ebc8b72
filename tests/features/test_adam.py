"""Gradients as Adam would step along them: LESS's formula, moments found by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from reference import row_gradient
from safetensors.torch import load_file, save_file
from tiny_vlm import mixed_samples

from liit.config import FeatureSettings, TrainingSettings
from liit.errors import InputError
from liit.features import FeatureStore, extract
from liit.features.adam import AdamState
from liit.features.engine import Extractor, Twin
from liit.features.sketch import SignedFold
from liit.model.chat import ChatEncoder
from liit.model.lora import lora_parameters
from liit.model.vision import Pixels
from liit.model.vlm import VLM
from liit.training import fit, save_adam_state

SETTINGS = FeatureSettings(dim=64, dtype="float32", layers=(1, 2), batch_tokens=500)
SHAPES = {"b": torch.Size([2, 3]), "a": torch.Size([4])}


def trained(vlm: VLM, path: Path, steps: int = 3) -> torch.optim.Adam:
    """Let an Adam with odd settings take some steps, over parameters in an order of its own, and write its state."""
    parameters = {name: p for name, p in vlm.model.named_parameters() if p.requires_grad}
    adam = torch.optim.Adam(list(parameters.values())[::-1], lr=1e-3, betas=(0.8, 0.95), eps=1e-6)
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        for parameter in parameters.values():
            parameter.grad = torch.randn(parameter.shape, generator=generator) * 1e-3
        adam.step()
    save_adam_state(vlm.model, adam, path)
    return adam


def test_sketch_is_of_the_directions_that_adam_would_step_along(adapted: VLM, tmp_path: Path) -> None:
    adam = trained(adapted, tmp_path / "adam.safetensors")
    encoder = ChatEncoder(adapted)
    rows = [encoder.encode(sample) for sample in mixed_samples()]
    extractor = Extractor(
        adapted, ["gradient", "grad_norm"], SETTINGS, seed=3, optimizer_state=tmp_path / "adam.safetensors"
    )
    out = extractor([Twin(row, None) for row in rows])
    parameters = list(lora_parameters(adapted, [1, 2]).values())
    states = [adam.state[p] for p in parameters]
    m = torch.cat([s["exp_avg"].flatten() for s in states]).double().numpy()
    v = torch.cat([s["exp_avg_sq"].flatten() for s in states]).double().numpy()
    for i, row in enumerate(rows):
        g = row_gradient(adapted, row, [1, 2])
        first = (0.8 * m + 0.2 * g) / (1 - 0.8**4)
        second = (0.95 * v + 0.05 * g * g) / (1 - 0.95**4)
        direction = torch.from_numpy(first / (np.sqrt(second) + 1e-6))[None]
        expected = SignedFold(len(g), 64, 3)([direction])[0].numpy()
        np.testing.assert_allclose(out["gradient"][i], expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())
        np.testing.assert_allclose(out["grad_norm"][i], np.linalg.norm(g), rtol=1e-4)  # GraNd stays the gradient's


def test_adams_own_next_step_is_along_the_direction(tmp_path: Path) -> None:
    """One more step of torch's Adam on a single sample's gradient moves the weights by -lr times its direction."""
    layer = torch.nn.Linear(5, 2, bias=False)
    adam = torch.optim.Adam(layer.parameters(), lr=0.1)
    for _ in range(2):
        layer.weight.grad = torch.randn(2, 5)
        adam.step()
    save_adam_state(layer, adam, tmp_path / "s")
    gradient = torch.randn(2, 5)
    state = AdamState(tmp_path / "s", {"weight": layer.weight.shape}, torch.device("cpu"))
    direction = state("weight", gradient.flatten()[None]).reshape(2, 5)
    before = layer.weight.detach().clone()
    layer.weight.grad = gradient
    adam.step()
    torch.testing.assert_close(layer.weight.detach() - before, -0.1 * direction)


def test_moments_are_found_by_name_and_a_missing_one_is_an_error(adapted: VLM, tmp_path: Path) -> None:
    trained(adapted, tmp_path / "s")
    tensors = load_file(tmp_path / "s")
    names = list(lora_parameters(adapted))
    assert sorted(tensors) == sorted(f"{kind}/{name}" for kind in ("exp_avg", "exp_avg_sq", "step") for name in names)
    metadata = {"format": "liit-adam-1", "beta1": "0.9", "beta2": "0.999", "eps": "1e-08"}
    lost = lora_parameters(adapted, [2])
    gone = next(iter(lost))
    save_file({n: t for n, t in tensors.items() if n != f"exp_avg/{gone}"}, tmp_path / "lacking", metadata)
    with pytest.raises(InputError, match=rf"lacks 1 of {len(names) // 2} parameters, first {gone}"):
        Extractor(adapted, ["gradient"], SETTINGS, optimizer_state=tmp_path / "lacking")
    save_file({**tensors, f"exp_avg/{gone}": torch.zeros(3)}, tmp_path / "shape", metadata)
    with pytest.raises(InputError, match=rf"{gone} has shape \(3,\) in"):
        Extractor(adapted, ["gradient"], SETTINGS, optimizer_state=tmp_path / "shape")
    save_file(tensors, tmp_path / "other")
    (tmp_path / "broken").write_bytes(b"no tensors")
    for name, words in (("other", "says nothing of an Adam state"), ("broken", "cannot be read")):
        with pytest.raises(InputError, match=words):
            Extractor(adapted, ["gradient"], SETTINGS, optimizer_state=tmp_path / name)
    with pytest.raises(InputError, match="there is no file"):
        extract(adapted, mixed_samples(), ["gradient"], tmp_path / "f", optimizer_state=tmp_path / "nothing")


def test_training_writes_the_state_and_features_of_another_state_are_refused(
    load_tiny: Callable[..., VLM], tmp_path: Path
) -> None:
    vlm = load_tiny(lora=True)
    rows = [ChatEncoder(vlm).encode(sample) for sample in mixed_samples()[:4]]
    settings = TrainingSettings(batch_size=2, warmup_ratio=0.0)
    fit(vlm, rows, settings, vision=Pixels(vlm), seed=0, optimizer_state=tmp_path / "s")
    assert float(next(t for n, t in load_file(tmp_path / "s").items() if n.startswith("step/"))) == 2
    samples = mixed_samples()[:3]
    stepped = extract(vlm, samples, ["gradient"], tmp_path / "f", SETTINGS, optimizer_state=tmp_path / "s")
    plain = extract(vlm, samples, ["gradient"], tmp_path / "g", SETTINGS)
    assert np.abs(stepped["gradient"] - plain["gradient"]).max() > 0.1
    with pytest.raises(InputError, match="another optimizer of gradient"):
        extract(vlm, samples, ["gradient"], tmp_path / "f", SETTINGS)
    trained(vlm, tmp_path / "t")
    with pytest.raises(InputError, match="another optimizer of gradient"):
        extract(vlm, samples, ["gradient"], tmp_path / "f", SETTINGS, optimizer_state=tmp_path / "t")
    assert len(FeatureStore(tmp_path / "f").stored_ids()) == 3


def test_optimizers_without_adams_moments_are_refused(tmp_path: Path) -> None:
    layer = torch.nn.Linear(3, 2)
    with pytest.raises(InputError, match="keeps no moments for weight"):
        save_adam_state(layer, torch.optim.Adam(layer.parameters()), tmp_path / "s")
    with pytest.raises(InputError, match="expected one Adam"):
        save_adam_state(layer, torch.optim.SGD(layer.parameters(), lr=0.1), tmp_path / "s")
    groups = [{"params": [layer.weight]}, {"params": [layer.bias], "betas": (0.5, 0.9)}]
    with pytest.raises(InputError, match="same betas and eps"):
        save_adam_state(layer, torch.optim.Adam(groups), tmp_path / "s")
    assert not list(tmp_path.iterdir())
