"""Training the adapter of one step on a selection."""

from __future__ import annotations

from liit.training.fit import Place, TrainReport, fit, optimizer_steps
from liit.training.optimizers import save_adam_state

__all__ = ["Place", "TrainReport", "fit", "optimizer_steps", "save_adam_state"]
