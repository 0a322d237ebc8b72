"""The state in the middle of a training on disk: tensors as safetensors, the rest as JSON; nothing is pickled.

A checkpoint is a folder that is written beside its place and renamed, so that one with its name is whole. Whatever
cannot be gone on with (half-written, damaged, of another training) is passed over: the training then begins anew and
ends with the same bytes, only later.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from liit.data import checksums
from liit.data.lance_files import sync_file
from liit.errors import InputError

TENSORS, STATE, TRAINER = "tensors.safetensors", "state.json", "trainer_state.json"
PREFIX = "checkpoint-"


def write(directory: Path, number: int, tree: dict[str, Any], trainer_state: str) -> None:
    """Write a checkpoint and remove the older ones.

    Args:
        directory: of all checkpoints of this training.
        number: optimizer steps done.
        tree: nested dictionaries, lists and tuples of tensors, numbers, texts and None.
        trainer_state: the Trainer's own state, as JSON.
    """
    target = directory / f"{PREFIX}{number:08d}"
    part = target.with_name(target.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    tensors: dict[str, Tensor] = {}
    skeleton = _take_apart(tree, tensors)
    save_file(tensors, part / TENSORS)
    (part / STATE).write_text(json.dumps(skeleton), encoding="utf-8")
    (part / TRAINER).write_text(trainer_state, encoding="utf-8")
    checksums.record(part, [part / TENSORS, part / STATE, part / TRAINER])
    for file in part.iterdir():
        sync_file(file)
    shutil.rmtree(target, ignore_errors=True)
    part.rename(target)
    for other in directory.iterdir():
        if other != target:
            shutil.rmtree(other, ignore_errors=True)


def latest(directory: Path, identity: str) -> Path | None:
    """The newest whole checkpoint of a training, or None.

    Args:
        directory: of all checkpoints of this training.
        identity: what the tree's ``identity`` must be.
    """
    if not directory.is_dir():
        return None
    for folder in sorted(directory.glob(f"{PREFIX}*"), reverse=True):
        if folder.suffix == ".part":
            continue
        try:
            checksums.compare(folder, [folder / TENSORS, folder / STATE, folder / TRAINER], None)
            if read(folder)["identity"] == identity:
                return folder
        except (InputError, OSError, ValueError, KeyError, SafetensorError):
            continue
    return None


def read(folder: Path) -> dict[str, Any]:
    """The tree that `write` was given."""
    tensors = load_file(folder / TENSORS)
    tree: dict[str, Any] = _put_together(json.loads((folder / STATE).read_text(encoding="utf-8")), tensors)
    return tree


def _take_apart(value: Any, tensors: dict[str, Tensor]) -> Any:
    """The tree as JSON; tensors go into `tensors` and leave their name, and keys may be numbers."""
    if isinstance(value, Tensor):
        name = f"{len(tensors):06d}"
        tensors[name] = value.detach().cpu().clone(memory_format=torch.contiguous_format)
        return {"tensor": name}
    if isinstance(value, dict):
        return {"items": [[key, _take_apart(item, tensors)] for key, item in value.items()]}
    if isinstance(value, list | tuple):
        return {type(value).__name__: [_take_apart(item, tensors) for item in value]}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"cannot keep a {type(value).__name__} in a checkpoint")


def _put_together(value: Any, tensors: dict[str, Tensor]) -> Any:
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "items":
        return {key: _put_together(item, tensors) for key, item in content}
    items = [_put_together(item, tensors) for item in content]
    return tuple(items) if kind == "tuple" else items
