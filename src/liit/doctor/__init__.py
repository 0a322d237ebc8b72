"""What this machine has and what a model and its data will need of it, said before anything starts."""

from __future__ import annotations

from liit.doctor.calibration import Watch, calibrate_extraction, watched
from liit.doctor.continuum import ContinuumPrediction, predict_continuum
from liit.doctor.machine import Machine, inspect_machine
from liit.doctor.prediction import Prediction, compare, predict_extraction

__all__ = [
    "ContinuumPrediction",
    "Machine",
    "Prediction",
    "Watch",
    "calibrate_extraction",
    "compare",
    "inspect_machine",
    "predict_continuum",
    "predict_extraction",
    "watched",
]
