"""One box as JSON."""

from __future__ import annotations

from liit.errors import InputError
from liit.evaluation.metrics.boxes import IOU_THRESHOLD, check_threshold, pairwise_iou, parse_answer, parse_box
from liit.evaluation.metrics.registry import Score, metric


@metric("box-iou")
def box_iou(prediction: str, reference: str, *, threshold: float = IOU_THRESHOLD) -> Score:
    """The answer {"box": [x1, y1, x2, y2]} overlaps the reference box with IoU of at least 0.5.

    Both are in the same unit, whatever it is. Wrong format: not such a JSON object, or a box without area.

    Args:
        prediction: what the model said.
        reference: the expected box, in the same JSON form.
        threshold: IoU from which on a box is found, above 0 and up to 1.

    Returns:
        1 or 0, and whether the form was wrong.

    Raises:
        InputError: the reference is not a box, or the threshold not in its range.
    """
    check_threshold(threshold)
    expected = parse_box(parse_answer(reference, "box"))
    if expected is None:
        raise InputError(
            f"reference: {reference[:80]!r} is not a box; the metric 'box-iou' needs "
            '{"box": [x1, y1, x2, y2]} with x1 < x2 and y1 < y2'
        )
    said = parse_box(parse_answer(prediction, "box"))
    if said is None:
        return Score(0.0, wrong_format=True)
    return Score(float(pairwise_iou([said], [expected])[0, 0] >= threshold))
