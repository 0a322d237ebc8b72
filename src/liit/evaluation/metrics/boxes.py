"""Reading boxes from JSON and comparing them; shared by the two box metrics."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from liit.errors import InputError

IOU_THRESHOLD = 0.5
Box = tuple[float, float, float, float]
_FENCE = re.compile(r"\A```(?:json)?\s*(.*?)\s*```\Z", re.DOTALL)


def check_threshold(threshold: float) -> None:
    """Refuse an IoU threshold outside (0, 1]."""
    if not 0 < threshold <= 1:
        raise InputError(f"metric_options: threshold {threshold} given, expected a number above 0 and up to 1")


def parse_answer(answer: str, key: str) -> object:
    """The value under a key of a JSON object, or None when the answer is not such an object.

    A Markdown code fence around the object is allowed, for models answer so; text around it is not.
    """
    text = answer.strip()
    fenced = _FENCE.match(text)
    try:
        document = json.loads(fenced.group(1) if fenced else text)
    except (ValueError, RecursionError):  # RecursionError: a degenerate model can answer thousands of brackets
        return None
    return document.get(key) if isinstance(document, dict) else None


def parse_box(value: object) -> Box | None:
    """[x1, y1, x2, y2] with x1 < x2 and y1 < y2, all finite numbers; None for anything else."""
    if not isinstance(value, list) or len(value) != 4:
        return None
    if any(isinstance(number, bool) or not isinstance(number, int | float) for number in value):
        return None
    try:
        x1, y1, x2, y2 = (float(number) for number in value)
    except OverflowError:
        return None
    if not all(map(math.isfinite, (x1, y1, x2, y2))) or x1 >= x2 or y1 >= y2:
        return None
    return x1, y1, x2, y2


def pairwise_iou(left: Sequence[Box], right: Sequence[Box]) -> NDArray[np.float64]:
    """Intersection over union of every pair.

    Args:
        left: n boxes.
        right: m boxes.

    Returns:
        [n, m] values between 0 and 1.
    """
    a = np.asarray(left, dtype=np.float64).reshape(-1, 1, 4)
    b = np.asarray(right, dtype=np.float64).reshape(1, -1, 4)
    # Divided by the largest coordinate: the ratio is the same, and products of huge numbers do not overflow.
    unit = max(float(np.abs(a).max(initial=0.0)), float(np.abs(b).max(initial=0.0))) or 1.0
    a, b = a / unit, b / unit
    sides = np.clip(np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2]), 0.0, None)
    overlap = sides.prod(axis=-1)
    union = (a[..., 2:] - a[..., :2]).prod(axis=-1) + (b[..., 2:] - b[..., :2]).prod(axis=-1) - overlap
    iou: NDArray[np.float64] = np.divide(overlap, union, out=np.zeros_like(overlap), where=union > 0)
    return iou
