"""Training whatever parameters of a model are trainable on encoded rows, with the Hugging Face Trainer."""

from __future__ import annotations

import hashlib
import inspect
import math
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from liit.config import TrainingSettings
from liit.errors import InputError
from liit.model.batch import IGNORE, collate
from liit.model.chat import Encoded
from liit.model.vision import VisionInputs
from liit.model.vlm import VLM
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


class _Rows(Dataset[dict[str, Any]]):
    """The rows as the Trainer's length-grouping sampler wants to see them."""

    def __init__(self, rows: Sequence[Encoded]) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"input_ids": self.rows[index].input_ids, "row": self.rows[index]}


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
) -> TrainReport:
    """Train the model's trainable parameters on some rows.

    The same rows in the same order, seed and thread count give the same weights.

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

    Raises:
        InputError: no rows, or a loss that is not finite.
    """
    from transformers import Trainer, TrainerCallback, TrainingArguments

    if not rows:
        raise InputError("train: got an empty selection, expected at least one sample")
    epochs = settings.epochs if epochs is None else epochs
    steps = math.ceil(len(rows) / settings.batch_size) * epochs
    losses: list[float] = []

    class Watch(TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
            if logs and "loss" in logs:
                losses.append(float(logs["loss"]))
                if progress is not None:
                    progress(state.global_step, steps)

    keeps = "logits_to_keep" in inspect.signature(vlm.base.forward).parameters

    def collator(chosen: list[dict[str, Any]]) -> dict[str, Any]:
        batch: dict[str, Any] = collate(vlm, [item["row"] for item in chosen], vision, side="left")
        return answer_positions_only(batch) if keeps else batch

    with tempfile.TemporaryDirectory(prefix="liit-train-") as scratch:
        arguments = TrainingArguments(
            output_dir=scratch,
            num_train_epochs=epochs,
            per_device_train_batch_size=settings.batch_size,
            lr_scheduler_type=settings.schedule if settings.schedule != "constant" else "constant_with_warmup",
            learning_rate=settings.learning_rate,
            warmup_steps=int(settings.warmup_ratio * steps),  # rounded down: the first of them trains nothing
            max_grad_norm=settings.max_grad_norm,
            bf16=settings.autocast == "bfloat16",
            fp16=settings.autocast == "float16",
            use_cpu=vlm.device.type == "cpu",
            seed=seed,
            data_seed=seed,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            logging_steps=max(1, steps // 50),
            logging_nan_inf_filter=False,  # by default it hides a loss that is not finite from the logs
            remove_unused_columns=False,
            dataloader_pin_memory=False,
            train_sampling_strategy="group_by_length",
            label_names=["labels"],
        )
        trainer = Trainer(
            model=vlm.model,
            args=arguments,
            train_dataset=_Rows(rows),
            data_collator=collator,
            optimizers=(
                make_optimizer(vlm.model, settings.optimizer, settings.learning_rate, settings.weight_decay),
                None,
            ),
            callbacks=[Watch()],
        )
        from transformers.trainer_callback import PrinterCallback

        trainer.remove_callback(PrinterCallback)
        trainer.train()
        if optimizer_state is not None and trainer.optimizer is not None:
            save_adam_state(vlm.model, trainer.optimizer, optimizer_state)
    vlm.model.eval()
    vlm.adapter_id = _trained_id(vlm)
    if not losses or not all(math.isfinite(loss) for loss in losses):
        raise InputError("train: the loss is not finite; lower training.learning_rate or set training.autocast to null")
    window = max(1, round(LOSS_WINDOW * len(losses)))
    return TrainReport(
        samples=len(rows),
        epochs=epochs,
        samples_seen=len(rows) * epochs,
        optimizer_steps=steps,
        trainable_parameters=sum(p.numel() for p in vlm.model.parameters() if p.requires_grad),
        loss_first=sum(losses[:window]) / window,
        loss_last=sum(losses[-window:]) / window,
    )


def answer_positions_only(batch: dict[str, Any]) -> dict[str, Any]:
    """Ask the model for logits from the position before the batch's first label on; the loss stays the same.

    Rows are padded on the left, so answers, which come last, lie side by side, and few positions meet the vocabulary.
    """
    labels: Tensor = batch["labels"]
    first = int((labels != IGNORE).any(0).nonzero()[0])
    keep = labels.shape[1] - first + 1
    return {**batch, "labels": labels[:, -keep:], "logits_to_keep": keep}


def _trained_id(vlm: VLM) -> str:
    """Names what was just trained by its values, so that features of other weights are never taken for its own."""
    digest = hashlib.sha256()
    for name, parameter in vlm.model.named_parameters():
        if parameter.requires_grad:
            digest.update(name.encode() + parameter.detach().float().cpu().numpy().tobytes())
    return digest.hexdigest()


def set_threads(threads: int) -> None:
    """Use this many CPU threads for the arithmetic; part of what makes a run repeatable."""
    torch.set_num_threads(threads)
