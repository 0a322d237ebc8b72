"""The continuum file: what it may say, and clear words about what is wrong with it."""

from __future__ import annotations

from liit.config.load import config_sha256, dump_config, load_config
from liit.config.schema import (
    Continuum,
    EvaluationSet,
    EvaluationSettings,
    FeatureSettings,
    LoraSettings,
    MethodSettings,
    ModelSettings,
    PruningSettings,
    RescoreSettings,
    SelectionSettings,
    Step,
    TrainingSettings,
    TrainSet,
)

__all__ = [
    "Continuum",
    "EvaluationSet",
    "EvaluationSettings",
    "FeatureSettings",
    "LoraSettings",
    "MethodSettings",
    "ModelSettings",
    "PruningSettings",
    "RescoreSettings",
    "SelectionSettings",
    "Step",
    "TrainSet",
    "TrainingSettings",
    "config_sha256",
    "dump_config",
    "load_config",
]
