"""Metrics: one small file each, found by name.

A metric compares one prediction with one reference and says how right it is and, apart from that, whether it had the
expected form. To add one, write a file with a decorated function and import it below; a third party uses the decorator
in its own package and names the module under the entry point group "liit.metrics".
"""

from __future__ import annotations

from liit.evaluation.metrics import (
    anls,
    bleu,
    box_iou,
    boxes_iou,
    chrf,
    exact_match,
    numeric,
    relaxed_accuracy,
    vqa_accuracy,
)
from liit.evaluation.metrics.normalise import normalise
from liit.evaluation.metrics.registry import (
    Metric,
    MetricInfo,
    References,
    Score,
    SkillResult,
    get_metric,
    metric,
    metric_info,
    metric_problem,
    metrics,
    score_skill,
)

__all__ = [
    "Metric",
    "MetricInfo",
    "References",
    "Score",
    "SkillResult",
    "anls",
    "bleu",
    "box_iou",
    "boxes_iou",
    "chrf",
    "exact_match",
    "get_metric",
    "metric",
    "metric_info",
    "metric_problem",
    "metrics",
    "normalise",
    "numeric",
    "relaxed_accuracy",
    "score_skill",
    "vqa_accuracy",
]
