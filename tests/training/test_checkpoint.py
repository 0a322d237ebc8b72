"""A training that stops anywhere goes on from its last checkpoint and ends with the same bits as an undisturbed one."""

from __future__ import annotations

import os
import random
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_vlm import talk

from liit.config import TrainingSettings
from liit.model.chat import ChatEncoder
from liit.model.lora import attach_lora
from liit.model.vision import Pixels
from liit.model.vlm import VLM
from liit.training import Place, TrainReport, checkpoint, fit
from liit.training.gradients import trained_parameters
from liit.training.hooks import HookState, TrainingHook, Update, make_hook
from liit.training.trainer import AdapterTrainer

SETTINGS = TrainingSettings(batch_size=2, epochs=3, learning_rate=2e-2, warmup_ratio=0.2, save_steps=2)  # 5 a pass


class PowerCut(BaseException):
    """Not an Exception, so that nothing but `finally` runs."""


class Cut(TrainingHook):
    """Stops the training before an update; draws from every generator, and keeps how often it was called."""

    name = "cut"

    def __init__(self, before: int | None) -> None:
        self.before, self.count, self.numbers = before, 0, [0.0]

    def gradients_ready(self, update: Update) -> None:
        if update.number == self.before:
            raise PowerCut
        self.count += 1
        self.numbers = [float(torch.rand(1)), random.random(), float(np.random.rand())]  # noqa: NPY002

    def state(self) -> HookState:
        return HookState({"numbers": torch.tensor(self.numbers)}, {"count": self.count})

    def load_state(self, state: HookState) -> None:
        self.count = state.facts["count"]


class Training:
    """Trains the tiny model, each time from the same start, and says what it ended with."""

    def __init__(self, load: Callable[..., VLM], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.load, self.folder = load, folder
        self.trainer: Any = None
        inner = AdapterTrainer.train

        def train(trainer: AdapterTrainer, **options: Any) -> Any:
            self.trainer = trainer
            self.began = 0 if options["resume_from_checkpoint"] is None else None
            result = inner(trainer, **options)
            return result

        monkeypatch.setattr(AdapterTrainer, "train", train)
        module = sys.modules["liit.training.fit"]
        arguments = module.training_arguments

        def seldom(*given: Any, **options: Any) -> Any:
            made = arguments(*given, **options)
            made.logging_steps = 3  # as in long trainings: losses are summed from one log to the next
            return made

        monkeypatch.setattr(module, "training_arguments", seldom)

    def run(self, cut: int | None = None, *, guided: bool = False, seed: int = 0, **changes: Any) -> dict[str, Any]:
        vlm = self.load()
        attach_lora(vlm, r=2, alpha=4, dropout=0.1)
        encoder = ChatEncoder(vlm)
        rows = [encoder.encode(talk(f"row-{n}", "Say " * n + "something", "no " * (1 + n % 4))) for n in range(9)]
        hooks: list[TrainingHook] = [Cut(cut)]
        if guided:
            hooks.append(make_hook("gradient-guidance", {"alpha": 0.5}))
            start = {name: parameter.detach() * 0.5 for name, parameter in trained_parameters(vlm).items()}
            facts = {"updates": 0, "injections": 0, "measured": 0, "ratio_sum": 0.0}
            hooks[1].load_state(HookState(start, facts))
        settings = SETTINGS.model_copy(update=changes)
        place = Place(step=2, first=not guided, checkpoints=self.folder)
        report = fit(vlm, rows, settings, vision=Pixels(vlm), seed=seed, hooks=hooks, place=place)
        shutil.rmtree(self.folder, ignore_errors=True)  # as the caller does when it has saved what was trained
        return self.outcome(vlm, report, hooks)

    def outcome(self, vlm: VLM, report: TrainReport, hooks: list[TrainingHook]) -> dict[str, Any]:
        """Weights, optimizer, schedule, generators and the order of rows, and what is reported."""
        trainer = self.trainer
        return {
            "weights": {name: parameter.detach().clone() for name, parameter in trained_parameters(vlm).items()},
            "optimizer": trainer.optimizer.state_dict(),
            "schedule": trainer.lr_scheduler.state_dict(),
            "torch": torch.get_rng_state(),
            "order": trainer._sampler.drawn_from,
            "others": (random.getstate(), np.random.get_state()[1].tolist(), np.random.get_state()[2]),  # noqa: NPY002
            "losses": [entry["loss"] for entry in trainer.state.log_history if "loss" in entry],
            "report": report,
            "hooks": [(hook.facts(), dict(hook.state().facts), dict(hook.state().tensors)) for hook in hooks],
        }


@pytest.fixture
def training(load_tiny: Callable[..., VLM], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Training:
    return Training(load_tiny, tmp_path / "training", monkeypatch)


def same(one: Any, other: Any) -> bool:
    """Whether two nested values have the same bits."""
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def differing(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    return [key for key in one if not same(one[key], other[key])]


@pytest.mark.parametrize(
    ("optimizer", "changes"),
    [
        ("adamw", {"guided": True, "batch_size": 4, "gradient_accumulation": 2, "save_steps": 1}),  # 3 a pass
        ("muon", {"projector_learning_rate": 1e-3}),
    ],
)
def test_stopped_in_every_pass_it_ends_as_undisturbed(
    training: Training, optimizer: str, changes: dict[str, Any]
) -> None:
    """Before the first checkpoint, within passes, and right after a pass has ended."""
    undisturbed = training.run(optimizer=optimizer, **changes)
    (training.folder / "checkpoint-00000099.part").mkdir(parents=True)  # what a kill while writing leaves
    cuts = (0, 3, 7) if changes.get("guided") else (3, 10, 13)
    for cut in cuts:
        with pytest.raises(PowerCut):
            training.run(cut, optimizer=optimizer, **changes)
        torch.manual_seed(cut)  # what happened since must not matter
        random.seed(cut)
    resumed = training.run(optimizer=optimizer, **changes)
    assert training.began is None  # it did go on from a checkpoint
    assert differing(resumed, undisturbed) == []


def test_checkpoints_hold_no_pickle_and_only_the_newest_stays(training: Training) -> None:
    with pytest.raises(PowerCut):
        training.run(9)
    assert [path.name for path in training.folder.iterdir()] == ["checkpoint-00000008"]
    (folder,) = training.folder.iterdir()
    names = {path.name for path in folder.iterdir()}
    assert names == {"tensors.safetensors", "state.json", "trainer_state.json", "checksums.sha256"}


def test_what_cannot_be_gone_on_with_is_passed_over(training: Training) -> None:
    """Half-written, damaged, or of another training: it begins anew, with the same end."""
    plain = training.run(epochs=1)
    with pytest.raises(PowerCut):
        training.run(3, epochs=1)
    (folder,) = training.folder.iterdir()
    tensors = folder / "tensors.safetensors"
    good = tensors.read_bytes()
    tensors.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    os.utime(tensors, (1, 1))
    again = training.run(epochs=1)
    assert training.began == 0
    assert differing(again, plain) == []
    with pytest.raises(PowerCut):
        training.run(3, epochs=1)
    other = training.run(epochs=1, seed=1)
    assert training.began == 0
    assert "weights" in differing(other, plain)


def test_none_are_written_when_not_wanted(training: Training) -> None:
    with pytest.raises(PowerCut):
        training.run(4, save_steps=None)
    assert not training.folder.exists()


def test_how_often_states_are_saved_changes_nothing(training: Training) -> None:
    often, never = training.run(save_steps=1, epochs=1), training.run(save_steps=None, epochs=1)
    assert differing(often, never) == []


def test_trees_come_back_as_they_were(tmp_path: Path) -> None:
    tree = {
        "identity": "x",
        "nested": {0: {"step": torch.tensor(3.0), "m": torch.ones(2, 3).t()}, "none": None, 1.5: (1, "a", [True])},
        "shared": [torch.zeros(2)] * 2,
        "half": torch.ones(2, dtype=torch.bfloat16),
    }
    checkpoint.write(tmp_path, 7, tree, "{}")
    found = checkpoint.latest(tmp_path, "x")
    assert found == tmp_path / "checkpoint-00000007"
    assert same(checkpoint.read(found), tree)
    assert isinstance(checkpoint.read(found)["nested"][1.5], tuple)
    with pytest.raises(TypeError, match="cannot keep a set"):
        checkpoint.write(tmp_path, 8, {"identity": {1}}, "{}")
    assert checkpoint.latest(tmp_path, "x") == found
    assert checkpoint.latest(tmp_path, "y") is None
    assert checkpoint.latest(tmp_path / "nowhere", "x") is None
