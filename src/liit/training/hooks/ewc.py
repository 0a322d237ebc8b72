"""Elastic weight consolidation: parameters that mattered to old tasks are held where they were."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from liit.errors import InputError
from liit.selection.options import as_count, as_positive, as_share, one_of
from liit.training.hooks.base import HookState, TaskContext, TrainingHook, Update
from liit.training.hooks.registry import register_hook


@register_hook("ewc", adapters=("continue",))
class ElasticWeightConsolidation(TrainingHook):
    """EWC: a quadratic penalty on every parameter, as strong as the Fisher information that old tasks gave it.

    Kirkpatrick et al. 2017 (eq. 3): the loss gets Σ_k λ/2 · Σ_i F_k,i (θ_i − θ*_k,i)² over the tasks k before, with
    F_k the diagonal of the Fisher information at θ*_k, the parameters at the end of task k. Online EWC (Schwarz et al.
    2018, section 3.2 and eq. 9) keeps one sum, F ← γ F + F_k, around the last θ* only. Both are constant in memory
    here: a sum of parabolas is a parabola, whose gradient λ (Σ F_k θ − Σ F_k θ*_k) needs two sums.

    F_k is the mean over rows of the square of each row's own gradient of log p(answer | image, question), summed over
    the answer's tokens: per-sample squares, not the square of a batch's mean gradient, which would vanish at an
    optimum. The answers are the data's own (the "empirical" Fisher), and dropout is off.

    Args:
        strength: λ. It has the unit of a loss per log-likelihood squared, and wants tuning for each kind of answer; the
            default is that of the built-in continuum, from development rows (``benchmarks/ewc_strength.py``).
        anchors: ``last`` holds around the last task's parameters (online EWC), ``each`` around every task's own
            (Kirkpatrick et al.).
        gamma: γ, how much of the older Fisher information is kept at each task; 1 forgets nothing.
        samples: rows that the Fisher information is estimated on, drawn from the seed; all, if there are fewer.
        rows: ``new`` draws from the rows that came with the step (old ones have had their turn), ``all`` from all that
            were trained on.
    """

    def __init__(
        self,
        *,
        strength: float = 1000.0,
        anchors: str = "last",
        gamma: float = 1.0,
        samples: int = 200,
        rows: str = "new",
    ) -> None:
        self.strength = as_positive(strength, "strength")
        self.anchors = one_of(anchors, "anchors", ("last", "each"))
        self.gamma = as_share(gamma, "gamma", zero=True)
        self.samples = as_count(samples, "samples", 1)
        self.rows = one_of(rows, "rows", ("new", "all"))
        self.fisher: dict[str, Tensor] = {}
        self.centre: dict[str, Tensor] = {}  # Σ F_k θ*_k, the point that the penalty pulls to times its strength
        self.estimated = 0
        self.penalty = 0.0

    def task_start(self, context: TaskContext) -> None:
        """Check the state against the parameters."""
        self.estimated, self.penalty = 0, 0.0
        if context.first:
            self.fisher, self.centre = {}, {}
            return
        expected = {name: parameter.shape for name, parameter in context.parameters.items()}
        if {name: tensor.shape for name, tensor in self.fisher.items()} != expected:
            raise InputError("ewc: what was kept of the step before does not fit the trained parameters")
        for kept in (self.fisher, self.centre):
            kept.update({name: tensor.to(context.parameters[name].device) for name, tensor in kept.items()})

    @torch.no_grad()
    def gradients_ready(self, update: Update) -> None:
        """Add the gradient of the penalty, λ (F θ − Σ F_k θ*_k)."""
        if not self.fisher:  # the first task
            return
        for name, parameter in update.parameters.items():
            if parameter.grad is not None:
                pull = self.fisher[name] * parameter.float() - self.centre[name]
                parameter.grad.add_(pull.to(parameter.grad.dtype), alpha=self.strength)

    def task_end(self, context: TaskContext) -> None:
        """Estimate this task's Fisher information and add it."""
        wanted = [row for row, new in enumerate(context.new) if new or self.rows == "all"]
        generator = np.random.default_rng([context.seed, *b"ewc"])
        chosen = np.sort(generator.permutation(len(wanted))[: self.samples])
        here = {name: parameter.detach().float() for name, parameter in context.parameters.items()}
        self.penalty = self._penalty(here)
        self.estimated = len(chosen)
        squares = {name: torch.zeros_like(value) for name, value in here.items()}
        for gradient in context.gradients.of_log_likelihood(wanted[i] for i in chosen):
            for name, value in gradient.items():
                squares[name].addcmul_(value, value)
        for name, value in here.items():
            own = squares[name] / max(1, self.estimated)
            before = self.fisher.get(name, torch.zeros_like(value))
            point = self.centre.get(name, torch.zeros_like(value))
            self.fisher[name] = self.gamma * before + own
            self.centre[name] = (
                self.gamma * point + own * value if self.anchors == "each" else self.fisher[name] * value
            )

    def _penalty(self, here: dict[str, Tensor]) -> float:
        """The penalty above its least value, at some parameters: λ/2 Σ F (θ − centre/F)²."""
        total = 0.0
        for name, fisher in self.fisher.items():
            held = fisher > 0
            distance = here[name][held].double() - self.centre[name][held].double() / fisher[held].double()
            total += float((fisher[held].double() * distance.square()).sum())
        return 0.5 * self.strength * total

    def facts(self) -> dict[str, Any]:
        """Rows of the estimate, the mean of the Fisher information, and the penalty that training ended with."""
        count = sum(tensor.numel() for tensor in self.fisher.values())
        mean = sum(float(tensor.double().sum()) for tensor in self.fisher.values()) / count if count else 0.0
        return {"fisher_rows": self.estimated, "fisher_mean": mean, "penalty": self.penalty}

    def state(self) -> HookState:
        """The two sums."""
        tensors = {f"fisher/{name}": tensor for name, tensor in self.fisher.items()}
        tensors |= {f"centre/{name}": tensor for name, tensor in self.centre.items()}
        return HookState(tensors)

    def load_state(self, state: HookState) -> None:
        """Take the two sums up; where to, they are told at the start of the task."""
        where = {name: tensor.device for name, tensor in self.fisher.items()}
        for kept, prefix in ((self.fisher, "fisher/"), (self.centre, "centre/")):
            kept.clear()
            for name, tensor in state.tensors.items():
                if name.startswith(prefix):
                    own = name.removeprefix(prefix)
                    kept[own] = tensor.to(where.get(own))
