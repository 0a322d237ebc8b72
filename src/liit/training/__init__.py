"""Training the adapter of one step on a selection."""

from __future__ import annotations

from liit.training.fit import Place, TrainReport, fit
from liit.training.optimizers import save_adam_state

__all__ = ["Place", "TrainReport", "fit", "save_adam_state"]
