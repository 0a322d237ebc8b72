"""Several boxes as JSON."""

from __future__ import annotations

import numpy as np
from scipy.optimize import linear_sum_assignment

from liit.errors import InputError
from liit.evaluation.metrics.boxes import IOU_THRESHOLD, Box, check_threshold, pairwise_iou, parse_answer, parse_box
from liit.evaluation.metrics.registry import Score, metric


@metric("boxes-iou")
def boxes_iou(prediction: str, reference: str, *, threshold: float = IOU_THRESHOLD) -> Score:
    """The answer {"boxes": [[x1, y1, x2, y2], ...]} finds every reference box with IoU of at least 0.5, and no other.

    Boxes are assigned one to one so that as many pairs as possible reach the threshold; their order does not matter.
    Wrong format: not such a JSON object, or a box in it without area.

    Args:
        prediction: what the model said.
        reference: the expected boxes, in the same JSON form; an empty list is legal.
        threshold: IoU from which on a box is found, above 0 and up to 1.

    Returns:
        1 when all boxes are matched and their number is right, else 0, and whether the form was wrong.

    Raises:
        InputError: the reference is not a list of boxes, or the threshold not in its range.
    """
    check_threshold(threshold)
    expected = _parse(reference)
    if expected is None:
        raise InputError(
            f"reference: {reference[:80]!r} is not a list of boxes; the metric 'boxes-iou' needs "
            '{"boxes": [[x1, y1, x2, y2], ...]} with x1 < x2 and y1 < y2'
        )
    said = _parse(prediction)
    if said is None:
        return Score(0.0, wrong_format=True)
    if len(said) != len(expected):
        return Score(0.0)
    good = pairwise_iou(said, expected) >= threshold
    rows, columns = linear_sum_assignment(good, maximize=True)
    return Score(float(np.all(good[rows, columns])))


def _parse(answer: str) -> list[Box] | None:
    value = parse_answer(answer, "boxes")
    if not isinstance(value, list):
        return None
    boxes = [parse_box(item) for item in value]
    valid = [box for box in boxes if box is not None]
    return valid if len(valid) == len(boxes) else None
