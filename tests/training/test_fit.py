"""Training lowers the loss, touches only what is trainable, and repeats to the byte."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_vlm import mixed_samples

from liit.config import TrainingSettings
from liit.errors import InputError
from liit.model.batch import IGNORE, collate
from liit.model.chat import ChatEncoder, Encoded
from liit.model.lora import attach_lora, lora_parameters, save_adapter
from liit.model.vision import Pixels, VisionCache
from liit.model.vlm import VLM
from liit.training import Place, fit
from liit.training.fit import answer_positions_only
from liit.training.hooks import TaskContext, TrainingHook, Update

SETTINGS = TrainingSettings(batch_size=4, epochs=4, learning_rate=2e-2)


def rows_of(vlm: VLM) -> list[Encoded]:
    encoder = ChatEncoder(vlm)
    return [encoder.encode(sample) for sample in mixed_samples()]


@torch.no_grad()
def loss(vlm: VLM, rows: list[Encoded]) -> float:
    return sum(float(vlm.model(**collate(vlm, [row], Pixels(vlm))).loss) for row in rows) / len(rows)


def weights(vlm: VLM) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in vlm.base.state_dict().items()}


@pytest.fixture
def trainee(tiny: VLM) -> VLM:
    attach_lora(tiny, r=4, alpha=8, dropout=0.05)
    return tiny


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_training_lowers_the_loss_and_changes_only_the_adapter(trainee: VLM, optimizer: str) -> None:
    rows = rows_of(trainee)
    before, untrained = weights(trainee), loss(trainee, rows)
    settings = SETTINGS.model_copy(update={"optimizer": optimizer})
    report = fit(trainee, rows, settings, vision=Pixels(trainee), seed=0)
    changed = {name for name, value in weights(trainee).items() if not torch.equal(value, before[name])}
    assert changed == set(lora_parameters(trainee))
    assert loss(trainee, rows) < 0.8 * untrained
    assert report.loss_last < report.loss_first
    assert (report.samples, report.epochs, report.samples_seen, report.optimizer_steps) == (9, 4, 36, 12)
    assert report.trainable_parameters == sum(p.numel() for p in lora_parameters(trainee).values())
    assert not any(module.training for module in trainee.model.modules())


def test_first_loss_reported_is_the_untrained_models_mean_per_answer_token(trainee: VLM) -> None:
    """One batch of all rows: the loss before any update, over the tokens of the whole batch."""
    for module in trainee.model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    rows = rows_of(trainee)
    with torch.no_grad():
        expected = float(trainee.model(**collate(trainee, rows, Pixels(trainee))).loss)
    settings = TrainingSettings(batch_size=9, learning_rate=1e-9)
    report = fit(trainee, rows, settings, vision=Pixels(trainee), seed=0)
    assert report.optimizer_steps == 1
    assert report.loss_first == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("dropout", [0.0, 0.1])  # without dropout, the seed still orders the rows
def test_same_seed_gives_the_same_bytes_and_another_seed_others(
    load_tiny: Callable[..., VLM], tmp_path: Path, dropout: float
) -> None:
    hashes = []
    for run, seed in enumerate((0, 0, 1)):
        vlm = load_tiny()
        attach_lora(vlm, r=2, alpha=4, dropout=dropout)
        torch.manual_seed(run)  # the global generator's state must not matter
        fit(vlm, rows_of(vlm), SETTINGS.model_copy(update={"epochs": 1}), vision=Pixels(vlm), seed=seed)
        hashes.append(save_adapter(vlm, tmp_path / str(run)))
    assert hashes[0] == hashes[1] != hashes[2]


def test_trained_model_is_another_checkpoint_before_it_is_saved(trainee: VLM) -> None:
    """Else features of the trained model would join the untrained model's matrix."""
    before = trainee.checkpoint_id
    short = SETTINGS.model_copy(update={"epochs": 1, "warmup_ratio": 0.0})  # a warm-up starts with a step of zero
    fit(trainee, rows_of(trainee)[:4], short, vision=Pixels(trainee), seed=0)
    after = trainee.checkpoint_id
    fit(trainee, rows_of(trainee)[:4], short, vision=Pixels(trainee), seed=0)
    assert len({before, after, trainee.checkpoint_id}) == 3


def test_kept_vision_states_train_like_pixels(load_tiny: Callable[..., VLM], tmp_path: Path) -> None:
    losses = []
    for cached in (False, True):
        vlm = load_tiny()
        attach_lora(vlm, r=2, alpha=4)
        vision = VisionCache(vlm, tmp_path) if cached else Pixels(vlm)
        losses.append(fit(vlm, rows_of(vlm), SETTINGS, vision=vision, seed=0).loss_last)
    assert losses[0] == pytest.approx(losses[1], rel=2e-2)


@pytest.mark.parametrize("chosen", [slice(0, 9), slice(1, 2), slice(0, 1), slice(3, 6)], ids=str)
def test_loss_over_answer_positions_only_equals_the_plain_full_loss(adapted: VLM, chosen: slice) -> None:
    rows = rows_of(adapted)[chosen]
    left = answer_positions_only(dict(collate(adapted, rows, Pixels(adapted), side="left")))
    assert (left["labels"] != IGNORE).sum() == sum(row.n_answer_tokens for row in rows)
    with torch.no_grad():
        out = adapted.model(**left)
        plain = adapted.model(**collate(adapted, rows, Pixels(adapted), side="right"))
    assert out.logits.shape[1] == left["logits_to_keep"] == left["labels"].shape[1]
    torch.testing.assert_close(out.loss, plain.loss, rtol=1e-5, atol=1e-6)


def test_row_that_is_all_answer_keeps_every_position() -> None:
    labels = torch.tensor([[5, 6, 7], [IGNORE, IGNORE, 8]])
    out = answer_positions_only({"labels": labels})
    assert out["logits_to_keep"] >= 3
    assert torch.equal(out["labels"], labels)


def test_progress_ends_at_the_last_step_however_seldom_losses_are_logged(
    trainee: VLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = sys.modules["liit.training.fit"]
    arguments = module.training_arguments

    def seldom(*given: Any, **options: Any) -> Any:
        made = arguments(*given, **options)
        made.logging_steps = 2  # as in long trainings, where the last steps are not logged
        return made

    monkeypatch.setattr(module, "training_arguments", seldom)
    seen: list[tuple[int, int]] = []
    fit(
        trainee,
        rows_of(trainee),
        SETTINGS,
        vision=Pixels(trainee),
        seed=0,
        epochs=1,
        progress=lambda *x: seen.append(x),
    )
    assert seen == [(1, 3), (2, 3), (3, 3)]


class Spoil(TrainingHook):
    """Gives one update a gradient that is not finite."""

    place = "after-clipping"

    def __init__(self, number: int, value: float) -> None:
        self.number, self.value, self.ended = number, value, False

    def gradients_ready(self, update: Update) -> None:
        if update.number == self.number:
            next(iter(update.parameters.values())).grad[0] = self.value

    def task_end(self, context: TaskContext) -> None:
        self.ended = True


@pytest.mark.parametrize(
    ("update", "message"),
    [
        (
            0,
            r"^train: the loss is not finite \(nan\) by optimizer step 2 of 3; try a training.*_rate below 0.02$",
        ),
        (
            2,
            r"^train: the weights are not finite \(1 of \d+ tensors, first .*lora.*\) after optimizer step 3 of 3; try",
        ),
    ],
)
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_spoiled_training_is_an_error_not_a_result(
    trainee: VLM, tmp_path: Path, update: int, value: float, message: str
) -> None:
    """In the middle the next loss shows it; after the last update only the weights do."""
    hook, settings = Spoil(update, value), SETTINGS.model_copy(update={"epochs": 1, "save_steps": 1, "warmup_ratio": 0})
    place = Place(checkpoints=tmp_path / "training")
    with pytest.raises(InputError, match=message):
        fit(
            trainee, rows_of(trainee), settings, vision=Pixels(trainee), seed=0, hooks=[hook], place=place,
            optimizer_state=tmp_path / "moments.safetensors",
        )  # fmt: skip
    assert list(tmp_path.iterdir()) == []
    assert not hook.ended
    assert not any(module.training for module in trainee.model.modules())


def test_advice_for_a_spoiled_training_in_less_than_float32_names_autocast(trainee: VLM) -> None:
    settings = SETTINGS.model_copy(update={"autocast": "bfloat16"})
    with pytest.raises(InputError, match=r"a training.learning_rate below 0.02, or training.autocast null$"):
        fit(trainee, rows_of(trainee), settings, vision=Pixels(trainee), seed=0, hooks=[Spoil(0, math.nan)])


def test_moments_of_another_optimizer_are_refused_before_training(trainee: VLM, tmp_path: Path) -> None:
    settings = SETTINGS.model_copy(update={"optimizer": "muon"})
    seen: list[tuple[int, int]] = []
    with pytest.raises(InputError, match=r"^optimizer state: muon keeps no moments of Adam; set training.optimizer"):
        fit(
            trainee, rows_of(trainee), settings, vision=Pixels(trainee), seed=0,
            optimizer_state=tmp_path / "s", progress=lambda *step: seen.append(step),
        )  # fmt: skip
    assert seen == []


def test_empty_selection_is_refused(trainee: VLM) -> None:
    with pytest.raises(InputError, match="empty selection"):
        fit(trainee, [], SETTINGS, vision=Pixels(trainee), seed=0)
