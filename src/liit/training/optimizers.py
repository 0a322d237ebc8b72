"""Optimizers by name."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Muon, Optimizer

from liit.errors import InputError

ADAM_FORMAT = "liit-adam-1"
PROJECTOR = re.compile(r"projector|connector|merger")
"""In names of parameters: the layers between vision tower and decoder."""

Group = dict[str, Any]


class MuonAdamW(Optimizer):
    """Muon for matrices, AdamW for everything else, as one optimizer.

    Muon (Jordan et al. 2024) orthogonalises the momentum of a weight matrix. Embeddings, heads, norms and biases keep
    AdamW, as its authors advise. Both use the learning rate that the schedule gives; Muon's update is scaled to the
    size of AdamW's ("match_rms_adamw"), so one learning rate fits both.

    Args:
        matrices: groups of two-dimensional parameters for Muon, as PyTorch's optimizers take them.
        rest: groups of the others.
        lr: learning rate of groups that have none of their own.
        weight_decay: decoupled weight decay of the matrices; the rest, as is usual, does not decay.
    """

    def __init__(self, matrices: Iterable[Group], rest: Iterable[Group], lr: float, weight_decay: float) -> None:
        self.parts: list[Optimizer] = []
        if matrices := list(matrices):
            self.parts.append(Muon(matrices, lr=lr, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw"))
        if rest := list(rest):
            self.parts.append(AdamW(rest, lr=lr, weight_decay=0.0))
        super().__init__([{"params": [p for group in (*matrices, *rest) for p in group["params"]]}], {"lr": lr})
        self.param_groups = [group for part in self.parts for group in part.param_groups]

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Take one step with both."""
        loss = closure() if closure is not None else None
        for part in self.parts:
            part.step()
        return loss

    def state_dict(self) -> dict[str, Any]:
        """Both parts' states."""
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore both parts; the groups stay the ones that a schedule already holds."""
        for part, state in zip(self.parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
        self.param_groups = [group for part in self.parts for group in part.param_groups]


def make_optimizer(
    model: nn.Module, name: str, lr: float, weight_decay: float, projector_lr: float | None = None
) -> Optimizer:
    """The optimizer for a model's trainable parameters.

    Args:
        model: parameters with ``requires_grad`` are optimised.
        name: ``adamw`` or ``muon``.
        lr: peak learning rate.
        weight_decay: decoupled weight decay.
        projector_lr: peak learning rate of the layers between vision tower and decoder; None: ``lr`` too.
    """
    trainable = {n: p for n, p in model.named_parameters() if p.requires_grad}
    if name == "adamw":
        return AdamW(_groups(trainable, projector_lr), lr=lr, weight_decay=weight_decay)
    words = ("embed_tokens", "lm_head")
    matrices = {n: p for n, p in trainable.items() if p.ndim == 2 and not any(word in n for word in words)}
    rest = {n: p for n, p in trainable.items() if n not in matrices}
    return MuonAdamW(_groups(matrices, projector_lr), _groups(rest, projector_lr), lr, weight_decay)


def _groups(parameters: dict[str, nn.Parameter], projector_lr: float | None) -> list[Group]:
    """One group, or a second for the projector with its own learning rate; none that is empty."""
    apart = {n for n in parameters if PROJECTOR.search(n)} if projector_lr is not None else set()
    groups: list[Group] = [
        {"params": [p for n, p in parameters.items() if n not in apart]},
        {"params": [p for n, p in parameters.items() if n in apart], "lr": projector_lr},
    ]
    return [group for group in groups if group["params"]]


def save_adam_state(model: nn.Module, optimizer: Optimizer, path: Path) -> None:
    """Write Adam's moments by parameter name, for features whose gradients are preconditioned (`liit.extract`).

    The file is safetensors: ``exp_avg/NAME``, ``exp_avg_sq/NAME`` and ``step/NAME`` for every trainable parameter, by
    its name in the model without an adapter's wrapper, and betas and eps as metadata. It is written beside and renamed.

    Args:
        model: the network that was trained.
        optimizer: after training; an Adam.
        path: the file.

    Raises:
        InputError: the optimizer keeps no such moments for a parameter, or groups differ in their betas or eps.
    """
    from safetensors.torch import save_file

    groups = [group for group in optimizer.param_groups if group["params"]]
    settings = {(*group.get("betas", ()), group.get("eps")) for group in groups}
    if len(settings) != 1 or len(next(iter(settings))) != 3:
        raise InputError("optimizer state: expected one Adam with the same betas and eps for all parameters")
    beta1, beta2, eps = next(iter(settings))
    tensors: dict[str, Tensor] = {}
    for full_name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        name = full_name.removeprefix("base_model.model.")
        state = optimizer.state.get(parameter, {})
        if not {"exp_avg", "exp_avg_sq", "step"} <= set(state):
            raise InputError(
                f"optimizer state: {type(optimizer).__name__} keeps no moments for {name}; expected adamw after at "
                "least one step"
            )
        for moment in ("exp_avg", "exp_avg_sq"):
            tensors[f"{moment}/{name}"] = state[moment].detach().float().cpu().contiguous()
        tensors[f"step/{name}"] = torch.as_tensor(float(state["step"]))
    metadata = {"format": ADAM_FORMAT, "beta1": repr(beta1), "beta2": repr(beta2), "eps": repr(eps)}
    part = path.with_name(path.name + ".part")
    save_file(tensors, part, metadata)
    part.replace(path)
