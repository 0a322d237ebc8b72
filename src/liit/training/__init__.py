"""Training the adapter of one step on a selection."""

from __future__ import annotations

from liit.training.fit import TrainReport, fit

__all__ = ["TrainReport", "fit"]
