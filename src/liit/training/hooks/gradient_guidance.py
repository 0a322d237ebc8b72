"""Dynamic Gradient Guidance: the missing gradient of old tasks, approximated by how far the parameters have moved."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from liit.errors import InputError
from liit.selection.options import as_flag, as_share, one_of
from liit.training.hooks.base import HookState, TaskContext, TrainingHook, Update
from liit.training.hooks.registry import register_hook


@register_hook("gradient-guidance", adapters=("continue", "merge"))
class GradientGuidance(TrainingHook):
    """DGG: on a random share of the optimizer steps, add the clipped displacement since the last task to the gradient.

    Li et al. 2025, arXiv 2511.15164. With θ* the parameters at the end of the task before and g the gradient of the
    batch, at each optimizer step after the first task, with probability α:

        Δ = θ − θ*,   ĝ = Δ · min(1, |g_ref| / |Δ|),   g ← g + ĝ

    A step along −Δ leads back to θ*, so in expectation this is an L2 anchor of strength α whose force never exceeds
    that of the data. Only the formulas are published where they could be read; what they leave open is an option. The
    replay buffer of the paper is not part of the hook: it is what the method's selector takes from old data.

    With ``lora.adapter: merge`` the factors of each step start afresh at the merged point, so θ* is where they start.

    Args:
        alpha: probability of an injection; a number, or a list with one for each step (the first step's is not used).
        inject: ``random`` with probability alpha; ``always`` and ``never`` are the ablations "no Bernoulli" and
            replay alone.
        scaling: whether |ĝ| is kept to |g_ref|; off is the ablation "no norm scaling", ĝ = Δ.
        norm_scope: norms per parameter ``tensor`` (default), or ``global``, over all of them.
        reference: g_ref is the gradient that is there, of the whole ``batch`` (default), or that of its ``new`` rows
            alone, which costs a second pass; a batch without new rows has g_ref = 0.
        draw: one random draw per optimizer ``step`` (default), or per ``tensor``.
        place: ``before-clipping`` (default) or ``after-clipping`` of the gradients.
        parameters: a regular expression on names of trained parameters; only those are guided. None: all.
    """

    def __init__(
        self,
        *,
        alpha: float | list[float] = 0.2,
        inject: str = "random",
        scaling: bool = True,
        norm_scope: str = "tensor",
        reference: str = "batch",
        draw: str = "step",
        place: str = "before-clipping",
        parameters: str | None = None,
    ) -> None:
        given = alpha if isinstance(alpha, list | tuple) else [alpha]
        self.alphas = [as_share(value, "alpha", zero=True) for value in given]
        if not self.alphas:
            raise InputError("alpha must be a number, or a list with one for each step, got an empty list")
        self.per_step = given is alpha
        self.inject = one_of(inject, "inject", ("random", "always", "never"))
        self.scaling = as_flag(scaling, "scaling")
        self.norm_scope = one_of(norm_scope, "norm_scope", ("tensor", "global"))
        self.reference = one_of(reference, "reference", ("batch", "new"))
        self.draw = one_of(draw, "draw", ("step", "tensor"))
        late = one_of(place, "place", ("before-clipping", "after-clipping")) == "after-clipping"
        self.place = "after-clipping" if late else "before-clipping"
        self.pattern = _pattern(parameters)
        self.anchor: dict[str, Tensor] = {}
        self.context: TaskContext | None = None
        self._reset()

    def _reset(self) -> None:
        self.updates = self.injections = self.measured = 0
        self.ratio_sum = 0.0

    def task_start(self, context: TaskContext) -> None:
        """Check the state against the parameters and set the counts to zero."""
        self.context = context
        self._reset()
        trained = self._guided(context)
        if not trained:
            raise InputError(f"parameters: {self.pattern and self.pattern.pattern!r} matches no trained parameter")
        if context.first:
            self.anchor = {}
        elif context.adapter == "merge":
            self.anchor = {name: parameter.detach().clone() for name, parameter in trained.items()}
        elif {n: a.shape for n, a in self.anchor.items()} != {n: p.shape for n, p in trained.items()}:
            raise InputError("gradient-guidance: what was kept of the step before does not fit the trained parameters")
        else:
            self.anchor = {n: a.to(trained[n].device, trained[n].dtype) for n, a in self.anchor.items()}
        if not context.first:
            self._alpha(context.number)

    @torch.no_grad()
    def gradients_ready(self, update: Update) -> None:
        """Add the surrogate of the old tasks' gradient, if this step's draw says so."""
        assert self.context is not None
        if not self.anchor:  # the first task
            return
        self.updates += 1
        present = {name: update.parameters[name] for name in self.anchor if name in update.parameters}
        chosen = self._draw(update.number, list(present))
        if not any(chosen.values()):
            return
        self.injections += 1
        surrogate, reference = self.surrogate(update, present)
        squares = [(surrogate[name].double().norm(), reference[name].double().norm()) for name in surrogate]
        ours, theirs = (float(torch.stack(norms).norm()) for norms in zip(*squares, strict=True))
        if theirs > 0:
            self.measured += 1
            self.ratio_sum += ours / theirs
        for name, parameter in present.items():
            if chosen[name] and parameter.grad is not None:
                parameter.grad.add_(surrogate[name].to(parameter.grad.dtype))

    def surrogate(
        self, update: Update, present: Mapping[str, nn.Parameter]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """ĝ and g_ref by name."""
        reference = self._reference(update, present)
        moved = {name: parameter.detach() - self.anchor[name] for name, parameter in present.items()}
        if not self.scaling:
            return moved, reference
        if self.norm_scope == "global":
            scale = dict.fromkeys(moved, _shrink(_norm(moved.values()), _norm(reference.values())))
        else:
            scale = {name: _shrink(moved[name].float().norm(), reference[name].float().norm()) for name in moved}
        return {name: moved[name] * scale[name].to(moved[name].dtype) for name in moved}, reference

    def _reference(self, update: Update, present: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
        if self.reference == "batch":
            return {name: parameter.grad for name, parameter in present.items() if parameter.grad is not None}
        assert self.context is not None
        rows = [row for row in update.rows if self.context.new[row]]
        if not rows:
            return {name: torch.zeros_like(parameter) for name, parameter in present.items()}
        with torch.enable_grad():
            found = self.context.gradients.of_loss(rows)
        return {name: found[name] for name in present}

    def _draw(self, number: int, tensors: list[str]) -> dict[str, bool]:
        """Whether to inject, from the seed and the number of the update alone: every process draws the same."""
        assert self.context is not None
        if self.inject != "random":
            return dict.fromkeys(tensors, self.inject == "always")
        alpha = self._alpha(self.context.number)
        generator = np.random.default_rng([self.context.seed, number])
        if self.draw == "step":
            return dict.fromkeys(tensors, bool(generator.random() < alpha))
        return dict(zip(tensors, (generator.random(len(tensors)) < alpha).tolist(), strict=True))

    def _alpha(self, step: int) -> float:
        if not self.per_step:
            return self.alphas[0]
        if step > len(self.alphas):
            raise InputError(f"gradient-guidance: alpha has {len(self.alphas)} numbers, and none for step {step}")
        return self.alphas[step - 1]

    def task_end(self, context: TaskContext) -> None:
        """The parameters reached are the next task's θ*."""
        kept = {} if context.adapter == "merge" else self._guided(context)  # the next factors start at the merged point
        self.anchor = {name: parameter.detach().clone() for name, parameter in kept.items()}

    def _guided(self, context: TaskContext) -> dict[str, nn.Parameter]:
        return {n: p for n, p in context.parameters.items() if self.pattern is None or self.pattern.search(n)}

    def facts(self) -> dict[str, Any]:
        """Updates that could be guided, those that were, and the mean of |ĝ| / |g_ref| over these."""
        ratio = self.ratio_sum / self.measured if self.measured else None
        return {"updates": self.updates, "injections": self.injections, "mean_norm_ratio": ratio}

    def state(self) -> HookState:
        """θ* and the counts."""
        return HookState(
            dict(self.anchor),
            {
                "updates": self.updates,
                "injections": self.injections,
                "measured": self.measured,
                "ratio_sum": self.ratio_sum,
            },
        )

    def load_state(self, state: HookState) -> None:
        """Take θ* and the counts up."""
        where = None if self.context is None else next(iter(self.context.parameters.values())).device
        self.anchor = {name: tensor.to(where) for name, tensor in state.tensors.items()}
        self.updates, self.injections = int(state.facts["updates"]), int(state.facts["injections"])
        self.measured, self.ratio_sum = int(state.facts["measured"]), float(state.facts["ratio_sum"])


def _pattern(text: str | None) -> re.Pattern[str] | None:
    if text is None:
        return None
    if not isinstance(text, str):
        raise InputError(f"parameters must be a regular expression on names, got {text!r}")
    try:
        return re.compile(text)
    except re.error as error:
        raise InputError(f"parameters: {text!r} is not a regular expression ({error})") from error


def _norm(tensors: Iterable[Tensor]) -> Tensor:
    total: Tensor = torch.stack([tensor.float().norm() for tensor in tensors]).norm()
    return total


def _shrink(moved: Tensor, reference: Tensor) -> Tensor:
    """min(1, |g_ref| / |Δ|), and 1 where nothing has moved."""
    return torch.where(moved > reference, reference / moved, torch.ones_like(moved))
