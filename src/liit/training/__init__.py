"""Training the adapter of one step on a selection."""

from __future__ import annotations

from liit.training.fit import TrainReport, fit
from liit.training.optimizers import save_adam_state

__all__ = ["TrainReport", "fit", "save_adam_state"]
