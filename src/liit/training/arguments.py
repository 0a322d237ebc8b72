"""What the settings mean for the Hugging Face Trainer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from liit.config import TrainingSettings
from liit.errors import InputError


def training_arguments(
    settings: TrainingSettings,
    folder: Path,
    *,
    epochs: int,
    steps: int,
    seed: int,
    device: str,
    save: bool,
    name: str,
) -> Any:
    """The Trainer's arguments.

    Args:
        settings: optimizer, schedule and batch size.
        folder: gets checkpoints.
        epochs: passes over the rows.
        steps: optimizer steps in all.
        seed: of the order of the rows and of dropout.
        device: ``cpu`` or another.
        save: whether checkpoints are written, every ``settings.save_steps``.
        name: of the training, for trackers.
    """
    from transformers import TrainingArguments

    every = settings.save_steps if save else None
    arguments = TrainingArguments(
        output_dir=str(folder),
        run_name=name,
        num_train_epochs=epochs,
        per_device_train_batch_size=settings.batch_size // settings.batches,
        gradient_accumulation_steps=settings.batches,
        activation_checkpointing=settings.gradient_checkpointing,
        activation_checkpointing_kwargs={"use_reentrant": False} if settings.gradient_checkpointing else None,
        lr_scheduler_type=settings.schedule if settings.schedule != "constant" else "constant_with_warmup",
        learning_rate=settings.learning_rate,
        warmup_steps=int(settings.warmup_ratio * steps),  # rounded down: the first of them trains nothing
        max_grad_norm=settings.max_grad_norm,
        bf16=settings.autocast == "bfloat16",
        fp16=settings.autocast == "float16",
        use_cpu=device == "cpu",
        seed=seed,
        data_seed=seed,
        save_strategy="no" if every is None else "steps",
        save_steps=every or 1,
        report_to="none",  # trackers come as callbacks, which can be told where to write
        disable_tqdm=True,
        logging_steps=max(1, steps // 50),
        logging_nan_inf_filter=False,  # by default it hides a loss that is not finite from the logs
        remove_unused_columns=False,
        dataloader_pin_memory=False,
        train_sampling_strategy="group_by_length",
        label_names=["labels"],
    )
    # With several GPUs in sight the Trainer would split each batch over them with DataParallel: steps of several times
    # the batch size, no autocast, and images that end up beside other rows. Before the Trainer reads the batch size.
    arguments._n_gpu = min(1, arguments.n_gpu)
    return arguments


def check_trackers(settings: TrainingSettings) -> None:
    """Make sure that the trackers asked for are installed.

    Raises:
        InputError: one is not.
    """
    for tracker in _trackers(settings):
        if not any(find_spec(package) for package in _PACKAGES[tracker]):
            raise InputError(
                f"training.report_to: {tracker} is not installed; pip install {_PACKAGES[tracker][0]}, "
                "or set training.report_to to none"
            )


def tracker_callbacks(settings: TrainingSettings, logs: Path | None) -> list[Any]:
    """The Trainer's callbacks for the trackers asked for.

    Args:
        settings: names them.
        logs: folder for those that write files; None: where they write by themselves.
    """
    if not _trackers(settings):
        return []
    from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

    callbacks = [INTEGRATION_TO_CALLBACK[tracker]() for tracker in _trackers(settings)]
    for tracker, callback in zip(_trackers(settings), callbacks, strict=True):
        if tracker == "tensorboard" and logs is not None:
            callback.logging_dir = str(logs)
    return callbacks


@contextmanager
def tracker_runs(settings: TrainingSettings) -> Iterator[None]:
    """Surround a training, so that a tracker's run ends with it.

    The Trainer's callback for W&B begins a run where none is open and leaves it open, so that the next step's training
    would go on in it. A run that was open before belongs to whoever opened it: it is used and stays open.

    Args:
        settings: names the trackers.
    """
    wandb = import_module("wandb") if "wandb" in _trackers(settings) else None
    if wandb is None or wandb.run is not None:
        yield
        return
    try:
        yield
    except BaseException:
        wandb.finish(exit_code=1)
        raise
    wandb.finish()


def _trackers(settings: TrainingSettings) -> tuple[str, ...]:
    return () if settings.report_to == "none" else settings.report_to


_PACKAGES = {"tensorboard": ("tensorboard", "tensorboardX"), "wandb": ("wandb",), "trackio": ("trackio",)}
