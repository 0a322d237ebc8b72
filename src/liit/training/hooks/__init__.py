"""Training hooks: rules that act on the gradients of a step's training, by name."""

from __future__ import annotations

from liit.training.hooks import ewc, gradient_guidance  # noqa: F401  (they register themselves)
from liit.training.hooks.base import Gradients, HookState, TaskContext, TrainingHook, Update
from liit.training.hooks.registry import HookInfo, find_hook, hooks, make_hook, make_hooks, register_hook
from liit.training.hooks.state import load_states, save_states

__all__ = [
    "Gradients",
    "HookInfo",
    "HookState",
    "TaskContext",
    "TrainingHook",
    "Update",
    "find_hook",
    "hooks",
    "load_states",
    "make_hook",
    "make_hooks",
    "register_hook",
    "save_states",
]
