"""Hooks are called at the right place of the Trainer's loop, by name, with what they need and nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_vlm import mixed_samples

from liit import plugins
from liit.config import TrainingSettings
from liit.errors import InputError
from liit.model.chat import ChatEncoder, Encoded
from liit.model.lora import attach_lora, lora_parameters, save_adapter
from liit.model.vision import Pixels
from liit.model.vlm import VLM
from liit.training import Place, fit
from liit.training.hooks import (
    HookState,
    TaskContext,
    TrainingHook,
    Update,
    find_hook,
    hooks,
    load_states,
    make_hook,
    make_hooks,
    register_hook,
    registry,
    save_states,
)
from liit.training.trainer import AdapterTrainer

SETTINGS = TrainingSettings(batch_size=4, learning_rate=1e-2, warmup_ratio=0.0)


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hooks that a test registers are gone afterwards."""
    monkeypatch.setattr(registry, "_hooks", dict(registry._hooks))


@pytest.fixture
def trainee(tiny: VLM) -> VLM:
    attach_lora(tiny, r=4, alpha=8)
    return tiny


def rows_of(vlm: VLM) -> list[Encoded]:
    encoder = ChatEncoder(vlm)
    return [encoder.encode(sample) for sample in mixed_samples()]


class Spy(TrainingHook):
    """Writes down what it is called with."""

    def __init__(self, place: str = "before-clipping") -> None:
        self.place = place
        self.calls: list[str] = []
        self.updates: list[Update] = []
        self.gradients: list[dict[str, torch.Tensor]] = []
        self.context: TaskContext | None = None

    def task_start(self, context: TaskContext) -> None:
        self.calls.append("start")
        self.context = context

    def gradients_ready(self, update: Update) -> None:
        self.calls.append("gradients")
        self.updates.append(update)
        self.gradients.append({name: p.grad.clone() for name, p in update.parameters.items()})

    def task_end(self, context: TaskContext) -> None:
        self.calls.append("end")


def norm(gradients: dict[str, torch.Tensor]) -> float:
    return float(torch.stack([value.norm() for value in gradients.values()]).norm())


def test_calls_come_once_per_optimizer_step_between_start_and_end(trainee: VLM) -> None:
    rows, spy = rows_of(trainee), Spy()
    report = fit(trainee, rows, SETTINGS.model_copy(update={"epochs": 2}), vision=Pixels(trainee), seed=0, hooks=[spy])
    assert spy.calls == ["start", *["gradients"] * report.optimizer_steps, "end"]
    assert [update.number for update in spy.updates] == list(range(6))
    assert set(spy.context.parameters) == set(lora_parameters(trainee))
    for epoch in (spy.updates[:3], spy.updates[3:]):
        assert sorted(row for update in epoch for row in update.rows) == list(range(len(rows)))
        assert [len(update.rows) for update in epoch] == [4, 4, 1]


def test_a_hook_that_only_looks_changes_nothing(load_tiny: Callable[..., VLM], tmp_path: Path) -> None:
    written = set()
    for number, looking in enumerate(([], [Spy(), Spy("after-clipping")])):
        vlm = load_tiny()
        attach_lora(vlm, r=4, alpha=8, dropout=0.1)
        fit(vlm, rows_of(vlm), SETTINGS, vision=Pixels(vlm), seed=0, hooks=looking)
        written.add(save_adapter(vlm, tmp_path / str(number)))
    assert len(written) == 1


def test_gradients_are_whole_at_the_call_clipped_after_it_and_then_adam_sees_them(trainee: VLM, tmp_path: Path) -> None:
    """Two batches make up the one optimizer step; Adam's first moment is a tenth of the gradient that it was given."""
    before, after = Spy(), Spy("after-clipping")
    rows, limit = rows_of(trainee)[:8], 1e-3
    settings = SETTINGS.model_copy(update={"batch_size": 8, "gradient_accumulation": 2, "max_grad_norm": limit})

    class Compare(Spy):
        def gradients_ready(self, update: Update) -> None:
            super().gradients_ready(update)
            whole = self.context.gradients.of_loss(update.rows)
            assert all(p.grad is not None for p in update.parameters.values())
            for name, p in update.parameters.items():
                torch.testing.assert_close(p.grad, whole[name], rtol=1e-4, atol=1e-6)

    class Double(TrainingHook):
        def gradients_ready(self, update: Update) -> None:
            for p in update.parameters.values():
                p.grad.mul_(2)

    compare = Compare()
    fit(
        trainee, rows, settings, vision=Pixels(trainee), seed=0, hooks=[compare, Double(), before, after],
        optimizer_state=tmp_path / "adam",
    )  # fmt: skip
    assert len(before.updates) == len(compare.updates) == 1
    assert sorted(before.updates[0].rows) == list(range(8))
    assert norm(compare.gradients[0]) > 10 * limit
    assert norm(before.gradients[0]) == pytest.approx(2 * norm(compare.gradients[0]))
    assert norm(after.gradients[0]) == pytest.approx(limit, rel=1e-3)
    moments = load_file(tmp_path / "adam")
    for name, gradient in after.gradients[0].items():
        torch.testing.assert_close(moments[f"exp_avg/{name}"], gradient * 0.1, rtol=1e-4, atol=1e-10)


def test_gradients_asked_for_leave_the_training_alone(trainee: VLM) -> None:
    class Ask(Spy):
        def gradients_ready(self, update: Update) -> None:
            before = {name: p.grad.clone() for name, p in update.parameters.items()}
            state, modes = torch.get_rng_state(), [module.training for module in trainee.model.modules()]
            (each,) = self.context.gradients.of_log_likelihood([3])
            mean = self.context.gradients.of_loss([3])
            count = rows[3].n_answer_tokens
            for name, value in each.items():
                torch.testing.assert_close(value, -count * mean[name])
            assert torch.equal(torch.get_rng_state(), state)
            assert [module.training for module in trainee.model.modules()] == modes
            assert all(torch.equal(p.grad, before[name]) for name, p in update.parameters.items())
            self.calls.append("asked")

    rows, ask = rows_of(trainee), Ask()
    fit(trainee, rows, SETTINGS, vision=Pixels(trainee), seed=0, hooks=[ask])
    assert ask.calls.count("asked") == 3


def test_context_says_which_step_it_is_and_which_rows_are_new(trainee: VLM) -> None:
    rows, spy = rows_of(trainee)[:4], Spy()
    place = Place(step=3, first=False, adapter="merge", new=(True, False, False, True))
    fit(trainee, rows, SETTINGS, vision=Pixels(trainee), seed=7, hooks=[spy], place=place)
    context = spy.context
    assert (context.number, context.first, context.adapter, context.seed) == (3, False, "merge", 7)
    assert (context.new, context.optimizer_steps) == ((True, False, False, True), 1)


def test_unknown_names_and_options_are_answered_with_the_nearest_and_the_list() -> None:
    with pytest.raises(
        InputError, match=r"unknown hook 'gradient-guidence'; did you mean 'gradient-guidance'\? \(known: .*ewc"
    ):
        make_hook("gradient-guidence", {})
    with pytest.raises(InputError, match=r"ewc: unknown option 'strenght'; did you mean 'strength'\? \(known: .*gamma"):
        make_hook("ewc", {"strenght": 1.0})
    with pytest.raises(InputError, match=r"ewc: strength must be a number above 0"):
        make_hook("ewc", {"strength": -1})
    with pytest.raises(InputError, match="hook must be a name"):
        make_hook(3, {})  # type: ignore[arg-type]
    with pytest.raises(InputError, match="ewc is named twice"):
        make_hooks([("ewc", {}), ("ewc", {})], "continue")
    with pytest.raises(InputError, match=r"ewc cannot be used with lora\.adapter: new, only with continue"):
        make_hooks([("ewc", {})], "new")


def test_a_class_of_ones_own_becomes_a_hook(registered: None) -> None:
    @register_hook("mine")
    class Mine(TrainingHook):
        """Does something.

        And more.
        """

        def __init__(self, *, size: int = 3) -> None:
            self.size = size

    assert {"ewc", "gradient-guidance", "mine"} == set(hooks())
    info = find_hook("mine")
    assert (info.description, info.options) == ("Does something.", {"size": 3})
    made = make_hook("mine", {"size": 4})
    assert (made.name, dict(made.options), made.size) == ("mine", {"size": 4}, 4)
    with pytest.raises(InputError, match="'mine' is taken"):
        register_hook("mine")(type("Other", (TrainingHook,), {}))


def test_hooks_of_other_packages_come_by_entry_point(registered: None, monkeypatch: pytest.MonkeyPatch) -> None:
    class Entry:
        name, value = "theirs", "theirs.module"

        def load(self) -> None:
            register_hook("theirs")(type("Theirs", (TrainingHook,), {"__doc__": "Of another package."}))

    monkeypatch.setattr(plugins, "entry_points", lambda group: [Entry()] if group == "liit.hooks" else [])
    monkeypatch.setattr(plugins, "_loaded", set())
    assert find_hook("theirs").description == "Of another package."

    class Broken(Entry):
        value = "broken.module"

        def load(self) -> None:
            raise ImportError("no module named broken")

    monkeypatch.setattr(plugins, "entry_points", lambda group: [Broken()])
    with pytest.raises(InputError, match=r"hook 'theirs' \(broken.module\) cannot be imported: no module"):
        hooks()


class Keeper(TrainingHook):
    """Keeps a tensor and a fact."""

    name = "keeper"
    kept = HookState({"a/b": torch.arange(3.0), "c": torch.ones(2, 2, dtype=torch.bfloat16)}, {"count": 3})

    def state(self) -> HookState:
        return self.kept

    def load_state(self, state: HookState) -> None:
        self.kept = state


def test_states_come_back_as_they_were(tmp_path: Path) -> None:
    save_states([Keeper()], tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"keeper.safetensors", "checksums.sha256"}
    first = (tmp_path / "keeper.safetensors").read_bytes()
    for _ in range(5):
        save_states([Keeper()], tmp_path)
        assert (tmp_path / "keeper.safetensors").read_bytes() == first
    again = Keeper()
    again.kept = HookState()
    load_states([again], tmp_path)
    assert again.kept.facts == {"count": 3}
    assert set(again.kept.tensors) == {"a/b", "c"}
    assert all(torch.equal(again.kept.tensors[name], tensor) for name, tensor in Keeper.kept.tensors.items())


def spoil(file: Path, how: str) -> None:
    if how == "missing":
        file.unlink()
    elif how == "changed":
        file.write_bytes(file.read_bytes()[:-1] + b"\xff")
    else:
        file.with_name("checksums.sha256").unlink()
        if how == "garbage":
            file.write_bytes(b"garbage")
        else:
            save_file({}, file, {"liit": json.dumps({"format": "another", "facts": {}})})


@pytest.mark.parametrize(
    ("how", "message"),
    [("missing", "holds no keeper.safetensors"), ("changed", "is damaged"), ("garbage", "cannot be read"),
     ("foreign", "is not a hook's state")],
)  # fmt: skip
def test_a_state_that_cannot_be_trusted_is_refused(tmp_path: Path, how: str, message: str) -> None:
    save_states([Keeper()], tmp_path)
    spoil(tmp_path / "keeper.safetensors", how)
    with pytest.raises(InputError, match=message):
        load_states([Keeper()], tmp_path)


def test_options_do_not_reach_the_base_class() -> None:
    """A hook without options has none, and says nothing of its own."""
    hook: Any = TrainingHook()
    assert (hook.name, dict(hook.options), hook.facts(), hook.state()) == ("", {}, {}, HookState())


def test_with_float16_the_loss_scale_is_divided_out_before_hooks_and_an_overflow_calls_none(
    trainee: VLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The scaler that a GPU would get, on this machine's processor; the first scale is too large for float16."""
    make = AdapterTrainer.create_accelerator_and_postprocess

    def scaled(trainer: AdapterTrainer) -> None:
        make(trainer)
        trainer.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**120, backoff_factor=2.0**-110)
        trainer.accelerator.native_amp = True

    monkeypatch.setattr(AdapterTrainer, "create_accelerator_and_postprocess", scaled)
    spy, after = Spy(), Spy("after-clipping")
    settings = TrainingSettings(
        batch_size=3, learning_rate=1e-9, warmup_ratio=0.0, autocast="float16", max_grad_norm=0.5
    )
    fit(trainee, rows_of(trainee), settings, vision=Pixels(trainee), seed=0, hooks=[spy, after])
    assert [update.number for update in spy.updates] == [1, 2]
    whole = trainee_gradients(trainee, spy.updates[0].rows)
    assert norm(spy.gradients[0]) == pytest.approx(whole, rel=0.1)
    assert [norm(gradient) for gradient in after.gradients] == pytest.approx([0.5, 0.5], rel=1e-3)


def trainee_gradients(vlm: VLM, rows: tuple[int, ...]) -> float:
    """Norm of the gradient of some rows in float32, of a model whose weights have hardly moved."""
    from liit.training.gradients import RowGradients, trained_parameters

    gradients = RowGradients(vlm, rows_of(vlm), Pixels(vlm), trained_parameters(vlm), None)
    return norm(gradients.of_loss(rows))
