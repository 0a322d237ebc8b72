"""What hooks keep from one step to the next, on disk: one safetensors file per hook, facts as JSON inside it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from liit.data import checksums
from liit.errors import InputError
from liit.training.hooks.base import HookState, TrainingHook

FORMAT, KEY = "liit-hook-1", "liit"


def save_states(hooks: Sequence[TrainingHook], directory: Path) -> None:
    """Write every hook's state into a directory that exists, with checksums."""
    files = []
    for hook in hooks:
        state = hook.state()
        tensors = {name: value.detach().cpu().contiguous() for name, value in state.tensors.items()}
        about = json.dumps({"format": FORMAT, "facts": dict(state.facts)}, sort_keys=True)
        files.append(directory / f"{hook.name}.safetensors")
        save_file(tensors, files[-1], {KEY: about})  # one key: safetensors writes several in no fixed order
    checksums.record(directory, files)


def load_states(hooks: Sequence[TrainingHook], directory: Path) -> None:
    """Give every hook the state that `save_states` wrote.

    Raises:
        InputError: a file is missing, damaged, or something else.
    """
    for hook in hooks:
        file = directory / f"{hook.name}.safetensors"
        if not file.is_file():
            raise InputError(f"hooks: {directory} holds no {file.name}; expected the hooks folder of the step before")
        checksums.compare(directory, [file])
        try:
            with safe_open(file, "pt") as opened:
                about = json.loads((opened.metadata() or {}).get(KEY, "{}"))
                if about.get("format") != FORMAT:
                    raise InputError(f"hooks: {file} is not a hook's state in format {FORMAT}")
                tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        except SafetensorError as error:
            raise InputError(f"hooks: {file} cannot be read ({error}); expected what liit wrote") from error
        hook.load_state(HookState(tensors, about["facts"]))
