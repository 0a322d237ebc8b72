"""Gradients as Adam would step along them, for the optimizer state of a training (LESS, arXiv 2402.04333, section 3.1).

With the state's moments m and v after t steps and a sample's gradient g:
m' = b1 m + (1 - b1) g, v' = b2 v + (1 - b2) g^2, and the sample's direction is
(m' / (1 - b1^(t+1))) / (sqrt(v' / (1 - b2^(t+1))) + eps).
The official code leaves the bias corrections out, has eps under the root, takes b1 = 0.9, b2 = 0.999 and eps = 1e-8
whatever the training had, and finds a moment by its parameter's number, so that an adapter whose parameters are counted
otherwise gets other parameters' moments. Here every moment is found by its parameter's name.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from liit.errors import InputError
from liit.model.fingerprint import hash_file

FORMAT = "liit-adam-1"


class AdamState:
    """First and second moments by parameter name, from a file that `liit.training.save_adam_state` wrote.

    Args:
        path: the safetensors file.
        shapes: shape of every parameter that is needed, by its name inside ``VLM.base``.
        device: where the gradients are.

    Raises:
        InputError: not such a file, or a parameter of it is missing or has another shape.
    """

    def __init__(self, path: Path, shapes: Mapping[str, torch.Size], device: torch.device) -> None:
        self.path = Path(path)
        self._moments: dict[str, tuple[Tensor, Tensor, float]] = {}
        try:
            with safe_open(str(self.path), "pt") as file:
                metadata = file.metadata() or {}
                if metadata.get("format") != FORMAT:
                    raise InputError(
                        f"optimizer_state: {self.path} says nothing of an Adam state; expected a file of "
                        "liit.training.save_adam_state"
                    )
                self._read(file, shapes, device)
        except (OSError, SafetensorError) as error:
            raise InputError(f"optimizer_state: {self.path} cannot be read ({error})") from error
        self.beta1, self.beta2 = float(metadata["beta1"]), float(metadata["beta2"])
        self.eps = float(metadata["eps"])
        self.id = hash_file(self.path)

    def _read(self, file: Any, shapes: Mapping[str, torch.Size], device: torch.device) -> None:
        there = set(file.keys())
        missing = [name for name in shapes if f"exp_avg/{name}" not in there]
        if missing:
            raise InputError(
                f"optimizer_state: {self.path} lacks {len(missing)} of {len(shapes)} parameters, first {missing[0]}; "
                "expected the state of the training that made this adapter"
            )
        for name, shape in shapes.items():
            mean, square = file.get_tensor(f"exp_avg/{name}"), file.get_tensor(f"exp_avg_sq/{name}")
            if mean.shape != shape or square.shape != shape:
                raise InputError(
                    f"optimizer_state: {name} has shape {tuple(mean.shape)} in {self.path}, {tuple(shape)} in the model"
                )
            step = float(file.get_tensor(f"step/{name}"))
            self._moments[name] = mean.flatten().float().to(device), square.flatten().float().to(device), step

    def __call__(self, name: str, gradients: Tensor) -> Tensor:
        """(N, p) directions from (N, p) gradients of one parameter."""
        mean, square, step = self._moments[name]
        first = (self.beta1 * mean + (1 - self.beta1) * gradients) / (1 - self.beta1 ** (step + 1))
        second = (self.beta2 * square + (1 - self.beta2) * gradients.square()) / (1 - self.beta2 ** (step + 1))
        direction: Tensor = first / (second.sqrt_() + self.eps)
        return direction
