"""Training on a GPU, as far as it shows without one: tensors are where they have to be, weights are the CPU's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pretend_card import CARD, Card, OnCard, put_on_card, train_on_card
from test_checkpoint import Cut, PowerCut
from tiny_vlm import mixed_samples

from liit.config import FeatureSettings, TrainingSettings
from liit.errors import InputError
from liit.features.engine import Extractor, Twin
from liit.model.chat import ChatEncoder
from liit.model.lora import lora_parameters
from liit.model.vision import Pixels
from liit.model.vlm import VLM
from liit.training import Place, checkpoint, fit
from liit.training.hooks import load_states, make_hooks, save_states

SETTINGS = {"batch_size": 4, "learning_rate": 1e-3, "warmup_ratio": 0.0}


def two_steps(vlm: VLM, settings: TrainingSettings, hooks: tuple[str, ...], folder: Path) -> dict[str, torch.Tensor]:
    """What two trainings in a row end with; hooks take their state from the first to the second."""
    rows = [ChatEncoder(vlm).encode(sample) for sample in mixed_samples()]
    states = folder / "hooks"
    states.mkdir(parents=True)
    adam = folder / "adam" if settings.optimizer == "adamw" else None
    for step in (1, 2):
        made = make_hooks([(name, {}) for name in hooks], "continue")
        if step == 2:
            load_states(made, states)
        place = Place(step=step, first=step == 1, checkpoints=folder / f"checkpoints-{step}")
        fit(vlm, rows, settings, vision=Pixels(vlm), seed=0, hooks=made, place=place, optimizer_state=adam)
        save_states(made, states)
    return {name: parameter.detach().cpu() for name, parameter in lora_parameters(vlm).items()}


@pytest.mark.parametrize(
    ("options", "hooks"),
    [
        ({"gradient_checkpointing": True, "save_steps": 1}, ()),
        ({"optimizer": "muon"}, ()),
        ({}, ("gradient-guidance",)),
        ({}, ("ewc",)),
    ],
)
def test_weights_trained_on_a_card_are_those_of_the_cpu(
    load_tiny: Callable[..., VLM], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any],
    hooks: tuple[str, ...],
) -> None:  # fmt: skip
    settings = TrainingSettings(**{**SETTINGS, **options})
    expected = two_steps(load_tiny(lora=True), settings, hooks, tmp_path / "cpu")
    with Card(), train_on_card(monkeypatch):
        moved = load_tiny(lora=True)
        put_on_card(moved.model)
        got = two_steps(moved, settings, hooks, tmp_path / "card")
        assert moved.device == CARD
    for name, values in expected.items():
        torch.testing.assert_close(got[name], values, rtol=1e-3, atol=1e-4, msg=name)


def test_a_training_on_a_card_goes_on_from_its_checkpoint(
    load_tiny: Callable[..., VLM], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = TrainingSettings(**SETTINGS, save_steps=1)

    def train(name: str, cut: int | None) -> dict[str, torch.Tensor]:
        vlm = load_tiny(lora=True)
        put_on_card(vlm.model)
        rows = [ChatEncoder(vlm).encode(sample) for sample in mixed_samples()]
        place = Place(checkpoints=tmp_path / name)
        fit(vlm, rows, settings, vision=Pixels(vlm), seed=0, hooks=[Cut(cut)], place=place)
        return {name: parameter.detach().cpu() for name, parameter in lora_parameters(vlm).items()}

    with Card(), train_on_card(monkeypatch) as generator:
        whole, before = train("whole", None), generator[0].clone()
        with pytest.raises(PowerCut):
            train("cut", 2)
        generator[:] = [torch.zeros_like(before)]
        again = train("cut", None)
    assert all(torch.equal(again[name], values) for name, values in whole.items())
    assert torch.equal(generator[0], before)


def test_a_checkpoint_of_another_kind_of_device_is_not_taken_up(
    load_tiny: Callable[..., VLM], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    identities = list[str]()
    monkeypatch.setattr(checkpoint, "latest", lambda folder, identity: identities.append(identity))

    def train(vlm: VLM) -> None:
        rows = [ChatEncoder(vlm).encode(sample) for sample in mixed_samples()[:2]]
        fit(vlm, rows, TrainingSettings(**SETTINGS), vision=Pixels(vlm), seed=0)

    for _ in range(2):
        train(load_tiny(lora=True))
    with Card(), train_on_card(monkeypatch):
        moved = load_tiny(lora=True)
        put_on_card(moved.model)
        train(moved)
    assert identities[0] == identities[1] != identities[2]


def test_a_model_on_another_card_than_the_trainers_is_refused(
    load_tiny: Callable[..., VLM], monkeypatch: pytest.MonkeyPatch
) -> None:
    with Card(), train_on_card(monkeypatch):
        vlm = load_tiny(lora=True)
        put_on_card(vlm.model)
        monkeypatch.setattr(OnCard, "device", torch.device("cuda", 1))
        rows = [ChatEncoder(vlm).encode(sample) for sample in mixed_samples()]
        with pytest.raises(
            InputError, match="the model is on cuda:1, but the Trainer trains on cuda:0; choose the card"
        ):
            fit(vlm, rows, TrainingSettings(**SETTINGS), vision=Pixels(vlm), seed=0)


def test_gradients_along_adams_step_on_a_card_are_those_of_the_cpu(
    load_tiny: Callable[..., VLM], tmp_path: Path
) -> None:
    two_steps(load_tiny(lora=True), TrainingSettings(**SETTINGS), (), tmp_path)
    settings = FeatureSettings(dim=64, dtype="float32", batch_tokens=500)

    def gradient(vlm: VLM) -> np.ndarray:
        rows = [Twin(ChatEncoder(vlm).encode(sample), None) for sample in mixed_samples()]
        return Extractor(vlm, ["gradient"], settings, optimizer_state=tmp_path / "adam")(rows)["gradient"]

    expected = gradient(load_tiny(lora=True))
    with Card():
        moved = load_tiny(lora=True)
        put_on_card(moved.model)
        np.testing.assert_allclose(gradient(moved), expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
