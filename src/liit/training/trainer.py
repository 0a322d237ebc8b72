"""The Hugging Face Trainer with two things added: training hooks, and checkpoints without pickle."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import Trainer
from transformers.trainer_pt_utils import LengthGroupedSampler

from liit.errors import InputError
from liit.training import checkpoint
from liit.training.hooks.base import HookState, TrainingHook, Update

ROWS = "liit_rows"
"""Key of a batch that says which rows of the selection it holds; it is taken out before the model sees the batch."""
ONE_PROCESS = ("NO", "MULTI_GPU", "MULTI_CPU")


class AdapterTrainer(Trainer):
    """Trains, calls hooks when gradients are ready, and can be killed.

    Hooks are called where the Trainer clips gradients: after the last batch of an optimizer step has been accumulated
    and, with float16, the loss scale divided out; those that come before clipping, then the clipping, then those that
    come after it, then the optimizer. The Trainer's callbacks come too late: ``on_pre_optimizer_step`` follows the
    clipping.

    Args:
        arguments: the Trainer's own.
        parameters: what trains, by name.
        hooks: called in this order.
        identity: says which training this is; a checkpoint of another one is not taken up.
        options: of the Trainer.
    """

    def __init__(
        self,
        arguments: Any,
        *,
        parameters: Mapping[str, nn.Parameter],
        hooks: Sequence[TrainingHook] = (),
        identity: str = "",
        **options: Any,
    ) -> None:
        super().__init__(args=arguments, **options)
        self.parameters, self.hooks, self.identity = parameters, tuple(hooks), identity
        self._rows: list[int] = []
        self._sampler: RepeatableGrouping | None = None
        self._resumed: dict[str, Any] = {}
        kind = self.accelerator.distributed_type.value
        if self.hooks and kind not in ONE_PROCESS:
            raise InputError(f"hooks: {self.hooks[0].name} needs whole gradients, which {kind} does not keep; use DDP")

    # Hooks

    def training_step(self, model: nn.Module, inputs: dict[str, Any], *rest: Any, **more: Any) -> Tensor:
        """As the Trainer's, and notes which rows the batch holds."""
        if ROWS in inputs:
            self._rows += inputs.pop(ROWS).tolist()
        loss: Tensor = super().training_step(model, inputs, *rest, **more)
        return loss

    def _clip_grad_norm(self, model: nn.Module) -> Any:
        """Call the hooks around the clipping, which is the Trainer's own."""
        if not self.hooks:
            return super()._clip_grad_norm(model)  # type: ignore[no-untyped-call]
        with_gradient = {name: p for name, p in self.parameters.items() if p.grad is not None}
        update = Update(self.state.global_step, tuple(self._rows), with_gradient)
        self._rows.clear()
        if self.accelerator.scaler is None:
            self._call("before-clipping", update)
            norm = super()._clip_grad_norm(model)  # type: ignore[no-untyped-call]
            self._call("after-clipping", update)
            return norm
        self.accelerator.unscale_gradients()
        if not all(bool(p.grad.isfinite().all()) for p in with_gradient.values() if p.grad is not None):
            return torch.tensor(float("inf"))  # float16 overflowed: the scaler is about to skip this update
        self._call("before-clipping", update)
        # Not the Trainer's, which would unscale once more; on one process, or DDP, it does this.
        norm = nn.utils.clip_grad_norm_(model.parameters(), self.args.max_grad_norm)
        self._call("after-clipping", update)
        return norm

    def _call(self, place: str, update: Update) -> None:
        for hook in self.hooks:
            if hook.place == place:
                hook.gradients_ready(update)

    # The order of rows

    def _get_train_sampler(self, train_dataset: Any = None) -> LengthGroupedSampler:
        """Group rows by length, as the Trainer does, and know from which state of the generator."""
        size = self.args.train_batch_size * self.args.gradient_accumulation_steps
        self._sampler = RepeatableGrouping(size, dataset=train_dataset or self.train_dataset)
        return self._sampler

    # Checkpoints

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Write everything that the rest of the training depends on; not after the last step, which needs none."""
        del model, trial
        if self.state.global_step >= self.state.max_steps or not self.args.should_save:
            return
        scaler = self.accelerator.scaler
        assert self.optimizer is not None
        assert self.lr_scheduler is not None
        assert self.args.output_dir is not None
        tree = {
            "identity": self.identity,
            "weights": {name: parameter.data for name, parameter in self.parameters.items()},
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.lr_scheduler.state_dict(),
            "scaler": None if scaler is None else scaler.state_dict(),
            "hooks": {hook.name: _plain(hook.state()) for hook in self.hooks},
            "random": _random_state(self.args.device),
            "order": self._sampler.drawn_from if self._sampler and self._within_epoch() else None,
            "loss": (self._tr_loss, self._total_loss_scalar, self._globalstep_last_logged),
        }
        # Not TrainerState.save_to_json: it writes floats of numpy and times as they come, and in place.
        state = {key: value for key, value in asdict(self.state).items() if key != "stateful_callbacks"}
        checkpoint.write(Path(self.args.output_dir), self.state.global_step, tree, json.dumps(state, sort_keys=True))

    def _within_epoch(self) -> bool:
        """Whether rows of this pass are left; all passes have as many updates."""
        return self.state.global_step % (self.state.max_steps // self.state.num_train_epochs) != 0

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        self._resumed = checkpoint.read(Path(resume_from_checkpoint))
        with torch.no_grad():
            for name, saved in self._resumed["weights"].items():
                self.parameters[name].copy_(saved)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None:
            return
        assert self.optimizer is not None
        assert self.lr_scheduler is not None
        self.optimizer.load_state_dict(self._resumed["optimizer"])
        self.lr_scheduler.load_state_dict(self._resumed["schedule"])
        for hook in self.hooks:
            hook.load_state(HookState(**self._resumed["hooks"][hook.name]))
        if self._sampler is not None:
            self._sampler.draw_from = self._resumed["order"]

    def _load_scaler(self, checkpoint: str | None) -> None:
        if checkpoint is not None and self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(self._resumed["scaler"])

    def _load_rng_state(self, checkpoint: str | None) -> None:
        """Restore the generators, and the sums of losses, which the Trainer has set to zero by now."""
        if checkpoint is None:
            return
        _restore_random(self._resumed["random"], self.args.device)
        loss, self._total_loss_scalar, self._globalstep_last_logged = self._resumed["loss"]
        self._tr_loss = loss.to(self._tr_loss.device)
        self._resumed = {}


class RepeatableGrouping(LengthGroupedSampler):
    """The Trainer's length-grouped order, which can be drawn again in the middle of a pass.

    Attributes:
        drawn_from: state of PyTorch's generator from which the order at hand was drawn.
        draw_from: the state to draw the next order from; None: as it is.
    """

    drawn_from: Tensor | None = None
    draw_from: Tensor | None = None

    def __iter__(self) -> Iterator[int]:
        if self.draw_from is not None:
            torch.set_rng_state(self.draw_from)
            self.draw_from = None
        self.drawn_from = torch.get_rng_state()
        order: Iterator[int] = super().__iter__()  # type: ignore[no-untyped-call]
        return order


def collator_with_rows(collate: Callable[[list[dict[str, Any]]], dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    """A collator that also says which rows a batch holds."""

    def call(chosen: list[dict[str, Any]]) -> dict[str, Any]:
        return {**collate(chosen), ROWS: torch.tensor([item["number"] for item in chosen])}

    return call


def _plain(state: HookState) -> dict[str, Any]:
    return {"tensors": dict(state.tensors), "facts": dict(state.facts)}


def _random_state(device: torch.device) -> dict[str, Any]:
    legacy: Any = np.random.get_state()  # noqa: NPY002  (whatever a library may draw from)
    name, keys, *rest = legacy
    return {
        "python": random.getstate(),
        "numpy": [name, keys.tolist(), *rest],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,  # other cards have no part in it
    }


def _restore_random(state: dict[str, Any], device: torch.device) -> None:
    random.setstate(state["python"])
    np.random.set_state(tuple(state["numpy"]))  # noqa: NPY002
    torch.set_rng_state(state["torch"])
    if device.type == "cuda":
        torch.cuda.set_rng_state(state["cuda"], device)
