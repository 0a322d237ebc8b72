"""The adapter: where it goes, that it changes nothing at first, and that it comes back bit by bit or not at all."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_vlm import mixed_samples, randomise_lora

from liit.errors import InputError
from liit.model.batch import collate
from liit.model.chat import ChatEncoder
from liit.model.lora import (
    WEIGHTS,
    attach_lora,
    load_adapter,
    lora_parameters,
    save_adapter,
    target_modules,
)
from liit.model.vision import Pixels
from liit.model.vlm import VLM


def logits(vlm: VLM) -> torch.Tensor:
    encoder = ChatEncoder(vlm)
    rows = [encoder.encode(sample) for sample in mixed_samples()[:3]]
    with torch.no_grad():
        return vlm.model(**collate(vlm, rows, Pixels(vlm))).logits


def test_fresh_adapter_changes_no_output_and_trains_nothing_else(tiny: VLM) -> None:
    before = logits(tiny)
    attach_lora(tiny, r=2, alpha=4)
    assert torch.equal(logits(tiny), before)
    trainable = {n for n, p in tiny.base.named_parameters() if p.requires_grad}
    assert trainable == set(lora_parameters(tiny))
    assert all(p.abs().max() > 0 for n, p in lora_parameters(tiny).items() if "lora_A" in n)


def test_same_seed_gives_the_same_adapter_and_leaves_the_global_seed_alone(load_tiny: Callable[..., VLM]) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    adapters = []
    for seed in (0, 0, 1):
        vlm = load_tiny()
        torch.manual_seed(5)
        attach_lora(vlm, r=2, alpha=4, seed=seed)
        assert torch.equal(torch.rand(3), expected)
        adapters.append((vlm.checkpoint_id, torch.cat([p.flatten() for p in lora_parameters(vlm).values()])))
    assert torch.equal(adapters[0][1], adapters[1][1])
    assert not torch.equal(adapters[0][1], adapters[2][1])
    assert adapters[0][0] == adapters[1][0] != adapters[2][0]


def test_checkpoint_id_tells_fresh_adapters_apart(load_tiny: Callable[..., VLM]) -> None:
    ids = set()
    for options in ({}, {"r": 4}, {"alpha": 8}, {"modules": ["q_proj"]}):
        vlm = load_tiny()
        ids.add(vlm.checkpoint_id)
        attach_lora(vlm, **{"r": 2, "alpha": 4, **options})
        ids.add(vlm.checkpoint_id)
    assert len(ids) == 5


@pytest.mark.parametrize(
    ("wanted", "count"),
    [
        ("language-linear", 28),
        ("language-and-projector-linear", 30),
        (["q_proj", "v_proj"], 8),
        (r".*layers\.[01]\.mlp\.down_proj", 2),
        (["layers.3.self_attn.q_proj"], 1),
    ],
)
def test_target_modules_are_the_ones_named(tiny: VLM, wanted: str | list[str], count: int) -> None:
    names = target_modules(tiny, wanted)
    assert len(names) == count
    assert not any("vision" in name or "lm_head" in name for name in names)
    attach_lora(tiny, r=2, alpha=4, modules=wanted)
    assert len(lora_parameters(tiny)) == 2 * count


def test_parameters_of_a_layer_are_that_layers_only(tiny: VLM) -> None:
    attach_lora(tiny, r=2, alpha=4)
    assert all(".layers.1." in name for name in lora_parameters(tiny, [1]))
    assert sum(len(lora_parameters(tiny, [i])) for i in range(4)) == len(lora_parameters(tiny)) == 56


@pytest.mark.parametrize("wanted", ["nothing", ["q_prj"], "(", []])
def test_modules_that_match_nothing_are_refused(tiny: VLM, wanted: object) -> None:
    with pytest.raises(InputError, match=r"lora\.target_modules"):
        target_modules(tiny, wanted)


def test_saved_adapter_comes_back_bit_by_bit(load_tiny: Callable[..., VLM], adapted: VLM, tmp_path: Path) -> None:
    written = save_adapter(adapted, tmp_path / "a")
    fresh = load_tiny()
    load_adapter(fresh, tmp_path / "a")
    assert fresh.checkpoint_id == adapted.checkpoint_id
    for name, parameter in lora_parameters(adapted).items():
        assert torch.equal(lora_parameters(fresh)[name], parameter), name
        assert lora_parameters(fresh)[name].requires_grad
    assert torch.equal(logits(fresh), logits(adapted))
    assert save_adapter(fresh, tmp_path / "b") == written
    for file in ("adapter_config.json", WEIGHTS):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_loading_replaces_the_adapter_that_is_there(adapted: VLM, tmp_path: Path) -> None:
    before = logits(adapted)
    save_adapter(adapted, tmp_path / "a")
    randomise_lora(adapted, 9)
    assert not torch.allclose(logits(adapted), before)
    load_adapter(adapted, tmp_path / "a")
    load_adapter(adapted, tmp_path / "a")
    assert torch.equal(logits(adapted), before)


def spoil(directory: Path, how: str) -> None:
    file = directory / WEIGHTS
    weights = load_file(file)
    first = next(iter(weights))
    if how == "missing-weight":
        del weights[first]
    elif how == "foreign-weight":
        weights["base_model.model.other.lora_A.weight"] = torch.zeros(2, 2)
    elif how == "renamed-weight":
        weights[first.replace("layers.0", "layers.9")] = weights.pop(first)
    elif how == "another-shape":
        weights[first] = torch.zeros(3, 5)
    if how == "not-safetensors":
        file.write_bytes(b"garbage")
    elif how == "no-weights":
        file.unlink()
    elif how == "no-config":
        (directory / "adapter_config.json").unlink()
    elif how == "config-garbage":
        (directory / "adapter_config.json").write_text("{")
    elif how == "config-of-another-model":
        config = json.loads((directory / "adapter_config.json").read_text())
        (directory / "adapter_config.json").write_text(json.dumps({**config, "target_modules": "nowhere"}))
    else:
        save_file(weights, file)


@pytest.mark.parametrize(
    "how",
    [
        "missing-weight",
        "foreign-weight",
        "renamed-weight",
        "another-shape",
        "not-safetensors",
        "no-weights",
        "no-config",
        "config-garbage",
        "config-of-another-model",
    ],
)
def test_adapter_that_does_not_fit_whole_is_refused_and_not_half_loaded(adapted: VLM, tmp_path: Path, how: str) -> None:
    save_adapter(adapted, tmp_path / "good")
    before = logits(adapted)
    save_adapter(adapted, tmp_path / "bad")
    spoil(tmp_path / "bad", how)
    with pytest.raises(InputError, match=r"adapter: .*bad") as error:
        load_adapter(adapted, tmp_path / "bad")
    assert "\n" not in str(error.value)
    load_adapter(adapted, tmp_path / "good")
    assert torch.equal(logits(adapted), before)
