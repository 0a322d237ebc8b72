"""Metrics: one small file each, found by name.

A metric compares one prediction with one reference and says how right it is and, apart from that, whether it had the
expected form. To add one, write a file with a decorated function and import it below; a third party uses the decorator
from its own package.
"""

from __future__ import annotations

from liit.evaluation.metrics import box_iou, boxes_iou, exact_match, numeric
from liit.evaluation.metrics.normalise import normalise
from liit.evaluation.metrics.registry import (
    Metric,
    Score,
    SkillResult,
    get_metric,
    metric,
    metrics,
    score_skill,
)

__all__ = [
    "Metric",
    "Score",
    "SkillResult",
    "box_iou",
    "boxes_iou",
    "exact_match",
    "get_metric",
    "metric",
    "metrics",
    "normalise",
    "numeric",
    "score_skill",
]
