"""Training whatever parameters of a model are trainable on encoded rows, with the Hugging Face Trainer."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset

from liit.config import TrainingSettings
from liit.errors import InputError
from liit.model.batch import collate
from liit.model.chat import Encoded
from liit.model.memory import give_back, is_out_of_memory
from liit.model.vision import VisionInputs
from liit.model.vlm import VLM
from liit.training import checkpoint
from liit.training.arguments import check_trackers, tracker_callbacks, tracker_runs, training_arguments
from liit.training.gradients import RowGradients, answer_positions_only, takes_positions, trained_parameters
from liit.training.hooks.base import TaskContext, TrainingHook
from liit.training.optimizers import make_optimizer, save_adam_state

LOSS_WINDOW = 0.1  # the first and last losses reported are means over this share of the optimizer steps


@dataclass(frozen=True, slots=True)
class TrainReport:
    """What one training did.

    Attributes:
        samples: rows in the selection.
        epochs: passes over it.
        samples_seen: rows times epochs.
        optimizer_steps: parameter updates.
        trainable_parameters: number of trained values.
        loss_first: mean training loss (nats per answer token) over the first tenth of the steps.
        loss_last: the same over the last tenth.
    """

    samples: int
    epochs: int
    samples_seen: int
    optimizer_steps: int
    trainable_parameters: int
    loss_first: float
    loss_last: float


@dataclass(frozen=True, slots=True)
class Place:
    """Which training of a run this is, and where it may write.

    Attributes:
        step: number of the step, from 1.
        first: nothing was trained before this step.
        adapter: the rule by which its adapter came about.
        new: for each row, whether it came with this step; None: all of them did.
        checkpoints: folder for the states that a killed training goes on from, to be removed by the caller when it has
            saved what was trained; None: none are written.
        logs: folder for trackers that write files.
        name: of the training, for trackers.
    """

    step: int = 1
    first: bool = True
    adapter: str = "continue"
    new: tuple[bool, ...] | None = None
    checkpoints: Path | None = None
    logs: Path | None = None
    name: str = "liit"


class _Rows(Dataset[dict[str, Any]]):
    """The rows as the Trainer's length-grouping sampler wants to see them."""

    def __init__(self, rows: Sequence[Encoded]) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"input_ids": self.rows[index].input_ids, "row": self.rows[index], "number": index}


def fit(
    vlm: VLM,
    rows: Sequence[Encoded],
    settings: TrainingSettings,
    *,
    vision: VisionInputs,
    seed: int,
    epochs: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    optimizer_state: Path | None = None,
    hooks: Sequence[TrainingHook] = (),
    place: Place | None = None,
) -> TrainReport:
    """Train the model's trainable parameters on some rows.

    The same rows in the same order, seed and thread count give the same weights, whether or not the training was killed
    on its way and called again.

    Args:
        vlm: the model; which parameters train is decided by their ``requires_grad``. Its ``adapter_id`` becomes a hash
            of what was trained, until the adapter is saved.
        rows: encoded samples, each with at least one answer token.
        settings: optimizer, schedule and batch size.
        vision: where vision inputs come from.
        seed: of the order of the rows and of dropout.
        epochs: instead of the settings' number.
        progress: called with the optimizer steps done and their total.
        optimizer_state: file that gets Adam's moments; see `save_adam_state`.
        hooks: see `liit.training.hooks`; with the state of the step before, if there was one.
        place: which training of a run this is, and where it may write; None: one of its own, in memory.

    Raises:
        InputError: no rows, a tracker that is not installed, moments asked of another optimizer than AdamW, a batch
            that does not fit into memory; or a loss or a trained weight that is not finite: then what was trained is of
            no use, and its checkpoints are gone.
    """
    if not rows:
        raise InputError("train: got an empty selection, expected at least one sample")
    check_trackers(settings)
    if optimizer_state is not None and settings.optimizer != "adamw":  # now, not when hours of training are done
        raise InputError(
            f"optimizer state: {settings.optimizer} keeps no moments of Adam; set training.optimizer to adamw"
        )
    place = place or Place()
    epochs = settings.epochs if epochs is None else epochs
    steps = optimizer_steps(len(rows), settings, epochs)
    parameters = trained_parameters(vlm)
    context = TaskContext(
        number=place.step,
        first=place.first,
        seed=seed,
        adapter=place.adapter,
        parameters=parameters,
        optimizer_steps=steps,
        new=place.new or (True,) * len(rows),
        gradients=RowGradients(vlm, rows, vision, parameters, settings.autocast),
    )
    for hook in hooks:
        hook.task_start(context)
    identity = _identity(vlm, rows, settings, epochs, context, hooks)
    too_large = False
    with _folder(place, settings) as folder:
        try:
            with tracker_runs(settings):
                trainer = _trainer(
                    vlm, rows, settings, vision, context, epochs, hooks, folder, identity, progress, place
                )
                trainer.train(resume_from_checkpoint=_str(checkpoint.latest(folder, identity)))
            _check_weights(context, settings)
        except SpoiledError:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            too_large = True  # raised when the error, and with it all that the failed step held, is gone
        finally:
            if settings.gradient_checkpointing:
                vlm.base.activation_checkpointing_disable()
            vlm.model.eval()
        if too_large:
            give_back()
            raise _too_large(settings)
        losses = [float(entry["loss"]) for entry in trainer.state.log_history if "loss" in entry]
        for hook in hooks:
            hook.task_end(context)
        if optimizer_state is not None and trainer.optimizer is not None:
            save_adam_state(vlm.model, trainer.optimizer, optimizer_state)
    vlm.adapter_id = _trained_id(vlm)
    window = max(1, round(LOSS_WINDOW * len(losses)))
    return TrainReport(
        samples=len(rows),
        epochs=epochs,
        samples_seen=len(rows) * epochs,
        optimizer_steps=steps,
        trainable_parameters=sum(p.numel() for p in parameters.values()),
        loss_first=sum(losses[:window]) / window,
        loss_last=sum(losses[-window:]) / window,
    )


def _trainer(
    vlm: VLM,
    rows: Sequence[Encoded],
    settings: TrainingSettings,
    vision: VisionInputs,
    context: TaskContext,
    epochs: int,
    hooks: Sequence[TrainingHook],
    folder: Path,
    identity: str,
    progress: Callable[[int, int], None] | None,
    place: Place,
) -> Any:
    from transformers import TrainerCallback
    from transformers.trainer_callback import PrinterCallback

    from liit.training.trainer import AdapterTrainer, collator_with_rows

    class Watch(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if progress is not None:
                progress(state.global_step, context.optimizer_steps)

        def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
            for name in ("loss", "train_loss"):  # the second is that of the whole training, when it ends
                if logs and not math.isfinite(logs.get(name, 0.0)):
                    raise _spoiled(f"the loss is not finite ({logs[name]}) by", state.global_step, context, settings)

    keeps = takes_positions(vlm)

    def collator(chosen: list[dict[str, Any]]) -> dict[str, Any]:
        batch: dict[str, Any] = collate(vlm, [item["row"] for item in chosen], vision, side="left")
        return answer_positions_only(batch) if keeps else batch

    arguments = training_arguments(
        settings, folder, epochs=epochs, steps=context.optimizer_steps, seed=context.seed, device=vlm.device.type,
        save=place.checkpoints is not None, name=place.name,
    )  # fmt: skip
    if vlm.device.type == "cuda" and arguments.world_size == 1 and vlm.device != arguments.device:
        raise InputError(
            f"train: the model is on {vlm.device}, but the Trainer trains on {arguments.device}; choose the card with "
            "CUDA_VISIBLE_DEVICES"
        )
    optimizer = make_optimizer(
        vlm.model, settings.optimizer, settings.learning_rate, settings.weight_decay, settings.projector_learning_rate
    )
    trainer = AdapterTrainer(
        arguments,
        parameters=context.parameters,
        hooks=hooks,
        identity=identity,
        model=vlm.model,
        train_dataset=_Rows(rows),
        data_collator=collator_with_rows(collator) if hooks else collator,
        optimizers=(optimizer, None),
        callbacks=[Watch(), *tracker_callbacks(settings, place.logs)],
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def optimizer_steps(rows: int, settings: TrainingSettings, epochs: int | None = None) -> int:
    """Parameter updates of a training.

    Args:
        rows: in the selection.
        settings: batch size, and epochs where they are not given.
        epochs: passes over the rows, instead of the settings' number.
    """
    return math.ceil(rows / settings.batch_size) * (settings.epochs if epochs is None else epochs)


class SpoiledError(InputError):
    """A training whose loss or weights are no longer finite."""


def _check_weights(context: TaskContext, settings: TrainingSettings) -> None:
    """Refuse weights that are not finite: the last update can spoil them after the last loss was."""
    bad = [name for name, parameter in context.parameters.items() if not bool(parameter.detach().isfinite().all())]
    if bad:
        what = f"the weights are not finite ({len(bad)} of {len(context.parameters)} tensors, first {bad[0]}) after"
        raise _spoiled(what, context.optimizer_steps, context, settings)


def _spoiled(what: str, number: int, context: TaskContext, settings: TrainingSettings) -> SpoiledError:
    rate = f"a training.learning_rate below {settings.learning_rate:g}"
    advice = rate if settings.autocast is None else f"{rate}, or training.autocast null"
    return SpoiledError(f"train: {what} optimizer step {number} of {context.optimizer_steps}; try {advice}")


def _too_large(settings: TrainingSettings) -> InputError:
    at_once = settings.batch_size // settings.batches
    rows = "1 row" if at_once == 1 else f"{at_once} rows"
    finer = [n for n in range(2 * settings.batches, settings.batch_size + 1) if not settings.batch_size % n]
    advice = [f"training.gradient_accumulation: {finer[0]}"] if finer else []
    advice += [] if settings.gradient_checkpointing else ["training.gradient_checkpointing: true"]
    advice += [] if settings.autocast else ["training.autocast: bfloat16"]
    return InputError(f"train: {rows} at once do not fit into memory; try {' or '.join(advice or ['a smaller model'])}")


@contextmanager
def _folder(place: Place, settings: TrainingSettings) -> Iterator[Path]:
    """The folder of checkpoints, or a passing one when none are wanted."""
    if place.checkpoints is not None and settings.save_steps is not None:
        yield place.checkpoints
    else:
        with tempfile.TemporaryDirectory(prefix="liit-train-") as scratch:
            yield Path(scratch)


def _identity(
    vlm: VLM,
    rows: Sequence[Encoded],
    settings: TrainingSettings,
    epochs: int,
    context: TaskContext,
    hooks: Sequence[TrainingHook],
) -> str:
    """Names a training by everything that its result depends on, so that no other one's checkpoint is taken up."""
    import transformers

    told = {
        "settings": settings.model_dump(mode="json", exclude={"save_steps", "report_to"}),
        "model": [vlm.base_id, vlm.merged_id, _trained_id(vlm), vlm.device.type],
        "training": [epochs, context.number, context.first, context.adapter, context.seed, context.new],
        "hooks": [(hook.name, hook.options) for hook in hooks],
        "versions": [torch.__version__, transformers.__version__],
    }
    digest = hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode())
    for row in rows:
        digest.update(row.id.encode() + row.input_ids.tobytes() + row.answer_mask.tobytes())
        digest.update("".join(image.sha256 for image in row.images).encode())
    return digest.hexdigest()


def _trained_id(vlm: VLM) -> str:
    """Names what was just trained by its values, so that features of other weights are never taken for its own."""
    digest = hashlib.sha256()
    for name, parameter in vlm.model.named_parameters():
        if parameter.requires_grad:
            digest.update(name.encode() + parameter.detach().float().cpu().numpy().tobytes())
    return digest.hexdigest()


def _str(path: Path | None) -> str | None:
    return None if path is None else str(path)
