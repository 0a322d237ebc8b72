"""What the settings mean for the Trainer: batches, lengths, learning rates, memory, trackers; and that images count."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from tiny_vlm import mixed_samples, talk

from liit.config import LoraSettings, TrainingSettings
from liit.errors import InputError
from liit.model.batch import collate
from liit.model.chat import ChatEncoder, Encoded
from liit.model.lora import attach_lora, lora_parameters
from liit.model.vision import Pixels
from liit.model.vlm import VLM
from liit.training import Place, arguments, fit
from liit.training.hooks import TrainingHook, Update
from liit.training.optimizers import make_optimizer

SETTINGS = TrainingSettings(batch_size=4, learning_rate=1e-2, warmup_ratio=0.0)


@pytest.fixture
def trainee(tiny: VLM) -> VLM:
    attach_lora(tiny, r=2, alpha=4)
    return tiny


def texts(vlm: VLM, count: int = 12) -> list[Encoded]:
    """Rows of many lengths, in no order."""
    encoder = ChatEncoder(vlm)
    words = [("Say " * (7 * n % count) + "it", "no " * (1 + n % 3)) for n in range(count)]
    return [encoder.encode(talk(f"row-{n}", *pair)) for n, pair in enumerate(words)]


class Rows(TrainingHook):
    """Which rows were trained on together, and with what gradient."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, ...]] = []
        self.gradients: list[torch.Tensor] = []

    def gradients_ready(self, update: Update) -> None:
        self.rows.append(update.rows)
        self.gradients.append(torch.cat([p.grad.flatten().clone() for p in update.parameters.values()]))


def test_defaults_are_the_llava_recipe() -> None:
    """LLaVA-1.5's finetune_lora.sh: batch 128, 2e-4, cosine, warm-up 0.03, no decay, r 128, alpha 256, dropout 0.05."""
    training, lora = TrainingSettings(), LoraSettings()
    assert (training.batch_size, training.learning_rate, training.schedule) == (128, 2e-4, "cosine")
    assert (training.warmup_ratio, training.weight_decay, training.epochs) == (0.03, 0.0, 1)
    assert (lora.r, lora.alpha, lora.dropout) == (128, 256.0, 0.05)


@pytest.mark.parametrize(
    ("size", "given", "batches"),
    [(128, None, 4), (32, None, 1), (33, None, 3), (37, None, 37), (40, None, 2), (128, 8, 8)],
)
def test_batches_are_equal_and_hold_at_most_32_samples_unless_told(size: int, given: int | None, batches: int) -> None:
    assert TrainingSettings(batch_size=size, gradient_accumulation=given).batches == batches


def test_accumulation_must_divide_the_batch() -> None:
    with pytest.raises(ValidationError, match="gradient_accumulation: got 3, expected a divisor of batch_size"):
        TrainingSettings(batch_size=4, gradient_accumulation=3)


def test_accumulated_batches_give_the_gradient_of_the_whole_batch(load_tiny: Callable[..., VLM]) -> None:
    """Per answer token of the whole batch, not a mean of the batches' means: answers differ in length."""
    found = []
    for batches in (1, 4):
        vlm = load_tiny(lora=True)
        rows, look = texts(vlm, 8), Rows()
        settings = SETTINGS.model_copy(update={"batch_size": 8, "gradient_accumulation": batches})
        fit(vlm, rows, settings, vision=Pixels(vlm), seed=0, hooks=[look])
        found += look.gradients
        assert [sorted(rows) for rows in look.rows] == [list(range(8))]
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], rtol=1e-3, atol=1e-5 * float(found[0].abs().max()))


def test_rows_of_like_length_are_trained_on_together(trainee: VLM) -> None:
    rows, look = texts(trainee, 24), Rows()
    settings = SETTINGS.model_copy(update={"epochs": 2, "batch_size": 2})
    fit(trainee, rows, settings, vision=Pixels(trainee), seed=0, hooks=[look])
    lengths = torch.tensor([float(len(row)) for row in rows])
    within = torch.stack([lengths[list(batch)].var() for batch in look.rows]).mean()
    assert within < 0.5 * lengths.var()  # of pairs at random it is the whole
    first, second = look.rows[:12], look.rows[12:]
    for epoch in (first, second):
        assert sorted(row for batch in epoch for row in batch) == list(range(24))
    assert set(map(frozenset, first)) != set(map(frozenset, second))  # drawn anew for each pass
    assert max(len(rows[row]) for row in first[0]) == max(len(row) for row in rows)  # the longest first: memory


def test_checkpointed_activations_give_the_same_gradients(load_tiny: Callable[..., VLM]) -> None:
    found = []
    for checkpointing in (False, True):
        vlm, look = load_tiny(lora=True), Rows()
        settings = SETTINGS.model_copy(update={"batch_size": 12, "gradient_checkpointing": checkpointing})
        fit(vlm, texts(vlm), settings, vision=Pixels(vlm), seed=0, hooks=[look])
        found.append(look.gradients[0])
        assert not any(getattr(module, "gradient_checkpointing", False) for module in vlm.base.modules())
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-6 * float(found[0].abs().max()))


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_projector_has_its_own_learning_rate_when_it_trains(tiny: VLM, optimizer: str) -> None:
    attach_lora(tiny, r=2, alpha=4, modules="language-and-projector-linear")
    names = {id(parameter): name for name, parameter in tiny.model.named_parameters()}
    made = make_optimizer(tiny.model, optimizer, 1e-2, 0.0, 1e-5)
    rates = {names[id(p)]: group["lr"] for group in made.param_groups for p in group["params"]}
    assert len(rates) == len(lora_parameters(tiny))
    assert {name for name, rate in rates.items() if rate == 1e-5} == {name for name in rates if "projector" in name}
    assert set(rates.values()) == {1e-2, 1e-5}
    alone = make_optimizer(tiny.model, optimizer, 1e-2, 0.0)
    assert {group["lr"] for group in alone.param_groups} == {1e-2}


def test_images_change_the_loss_that_is_trained_on(trainee: VLM) -> None:
    """The same questions and answers with other pictures, in the Trainer's own batches: images reach the model."""
    losses = []
    for shift in (0, 0, 10):
        samples = [talk(f"row-{n}", "<image>\nWhat is it?", "A cat.", images=[n + shift]) for n in range(4)]
        rows = [ChatEncoder(trainee).encode(sample) for sample in samples]
        settings = SETTINGS.model_copy(update={"learning_rate": 1e-12})
        losses.append(fit(trainee, rows, settings, vision=Pixels(trainee), seed=0).loss_first)
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    assert abs(losses[2] - losses[0]) > 1e-3 * losses[0]


def test_every_adapter_weight_acts_on_the_answer(adapted: VLM) -> None:
    """Each factor by itself: a loaded weight that no forward pass used would leave it alone."""
    row = ChatEncoder(adapted).encode(mixed_samples()[0])
    batch = collate(adapted, [row], Pixels(adapted))
    with torch.no_grad():
        before = adapted.model(**batch).logits
        for name, parameter in lora_parameters(adapted).items():
            kept = parameter.detach().clone()
            parameter.mul_(1.5)
            assert not torch.equal(adapted.model(**batch).logits, before), name
            parameter.copy_(kept)


@pytest.mark.parametrize("tracker", ["tensorboard", "wandb", "trackio"])
def test_a_tracker_that_is_not_installed_is_named_before_training_begins(
    trainee: VLM, monkeypatch: pytest.MonkeyPatch, tracker: str
) -> None:
    monkeypatch.setattr(arguments, "find_spec", lambda package: None)
    settings = SETTINGS.model_copy(update={"report_to": (tracker,)})
    with pytest.raises(InputError, match=f"report_to: {tracker} is not installed; pip install {tracker}"):
        fit(trainee, texts(trainee), settings, vision=Pixels(trainee), seed=0)


def test_trackers_get_loss_and_learning_rate(trainee: VLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a stand-in for the tracker's own package, which may not be installed."""
    from transformers import TrainerCallback
    from transformers.integrations import integration_utils

    class Tracker(TrainerCallback):
        logging_dir = ""

        def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **_: Any) -> None:
            folder = Path(self.logging_dir)
            folder.mkdir(exist_ok=True)
            with (folder / f"{args.run_name}.jsonl").open("a") as stream:
                stream.write(json.dumps({"step": state.global_step, **logs}) + "\n")

    monkeypatch.setattr(arguments, "find_spec", lambda package: object())
    monkeypatch.setitem(integration_utils.INTEGRATION_TO_CALLBACK, "tensorboard", Tracker)
    settings = SETTINGS.model_copy(update={"report_to": ("tensorboard",)})
    place = Place(logs=tmp_path / "logs", name="tiny-01")
    fit(trainee, texts(trainee), settings, vision=Pixels(trainee), seed=0, place=place)
    logs = [json.loads(line) for line in (tmp_path / "logs/tiny-01.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in logs if "loss" in entry] == [1, 2, 3]
    assert all({"loss", "learning_rate", "grad_norm"} <= set(entry) for entry in logs if "loss" in entry)
    assert "torch.utils.tensorboard" not in sys.modules


class FakeWandb(ModuleType):
    """As much of W&B as the Trainer's callback uses: at most one run is open."""

    def __init__(self) -> None:
        super().__init__("wandb")
        self.run: Any = None
        self.config: Any = type("Config", (dict,), {"update": lambda self, values, **_: None})()
        self.ended: list[tuple[str, list[int], int | None]] = []

    def init(self, name: str, **_: Any) -> None:
        self.run = SimpleNamespace(name=name, steps=[], summary={}, _label=lambda **_: None)

    def log(self, values: dict[str, Any]) -> None:
        if "train/loss" in values:
            self.run.steps.append(values["train/global_step"])

    def finish(self, exit_code: int | None = None) -> None:
        self.ended.append((self.run.name, self.run.steps, exit_code))
        self.run = None


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> FakeWandb:
    from transformers.integrations import integration_utils

    fake, problems = FakeWandb(), ModuleType("wandb.sdk.lib.config_util")
    problems.ConfigError = type("ConfigError", (Exception,), {})  # type: ignore[attr-defined]
    modules = {"wandb.sdk": ModuleType("wandb.sdk"), "wandb.sdk.lib": ModuleType("wandb.sdk.lib")}
    for name, module in {"wandb": fake, **modules, "wandb.sdk.lib.config_util": problems}.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(arguments, "find_spec", lambda package: object())
    monkeypatch.setattr(integration_utils, "is_wandb_available", lambda: True)
    return fake


def test_every_step_is_a_wandb_run_of_its_own(trainee: VLM, wandb: FakeWandb) -> None:
    """The Trainer's callback alone goes on in the run of the step before."""
    settings = SETTINGS.model_copy(update={"report_to": ("wandb",)})
    for name in ("tiny-01", "tiny-02"):
        fit(trainee, texts(trainee), settings, vision=Pixels(trainee), seed=0, place=Place(name=name))
    assert wandb.ended == [("tiny-01", [1, 2, 3], None), ("tiny-02", [1, 2, 3], None)]


def test_a_training_that_fails_ends_its_wandb_run_as_failed(trainee: VLM, wandb: FakeWandb) -> None:
    settings = SETTINGS.model_copy(update={"report_to": ("wandb",), "learning_rate": 1e30})
    with pytest.raises(InputError, match="not finite"):
        fit(trainee, texts(trainee), settings, vision=Pixels(trainee), seed=0, place=Place(name="tiny-01"))
    ((name, _, code),) = wandb.ended
    assert (name, code) == ("tiny-01", 1)


def test_a_wandb_run_of_the_users_stays_open(trainee: VLM, wandb: FakeWandb) -> None:
    wandb.init("mine")
    settings = SETTINGS.model_copy(update={"report_to": ("wandb",)})
    fit(trainee, texts(trainee), settings, vision=Pixels(trainee), seed=0, place=Place(name="tiny-01"))
    assert wandb.ended == []
    assert (wandb.run.name, wandb.run.steps) == ("mine", [1, 2, 3])


def test_several_gpus_in_sight_do_not_multiply_the_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import transformers

    class FourCards(transformers.TrainingArguments):
        def __post_init__(self) -> None:
            super().__post_init__()
            self._n_gpu = 4

    assert FourCards(str(tmp_path), per_device_train_batch_size=8, report_to="none").train_batch_size == 32
    monkeypatch.setattr(transformers, "TrainingArguments", FourCards)
    made = arguments.training_arguments(
        SETTINGS, tmp_path, epochs=1, steps=3, seed=0, device="cuda", save=False, name="one"
    )
    assert (made.n_gpu, made.train_batch_size) == (1, 4)


@pytest.mark.parametrize(
    ("options", "advice"),
    [
        ({}, "4 rows at once do not fit into memory; try training.gradient_accumulation: 2 or "
             "training.gradient_checkpointing: true or training.autocast: bfloat16"),
        ({"gradient_accumulation": 4, "gradient_checkpointing": True, "autocast": "bfloat16"},
         "1 row at once do not fit into memory; try a smaller model"),
    ],
)  # fmt: skip
def test_a_batch_that_does_not_fit_is_one_line_with_what_to_set(
    trainee: VLM, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], advice: str
) -> None:
    from liit.training.trainer import AdapterTrainer

    def full(*_: Any, **__: Any) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(AdapterTrainer, "training_step", full)
    settings = SETTINGS.model_copy(update=options)
    with pytest.raises(InputError) as met:
        fit(trainee, texts(trainee), settings, vision=Pixels(trainee), seed=0)
    assert str(met.value) == f"train: {advice}"
