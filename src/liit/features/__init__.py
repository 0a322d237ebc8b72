"""Per-sample features of one checkpoint: the one-pass extraction engine and the store that keeps its columns."""

from __future__ import annotations

from liit.features.extraction import extract
from liit.features.plan import Plan, plan_passes
from liit.features.report import ExtractionReport
from liit.features.settings import FEATURES
from liit.features.store import FeatureStore

__all__ = ["FEATURES", "ExtractionReport", "FeatureStore", "Plan", "extract", "plan_passes"]
