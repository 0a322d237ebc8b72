"""Answers read from charts: numbers within a tolerance, anything else by its words."""

from __future__ import annotations

import math

from liit.errors import InputError
from liit.evaluation.metrics.form import wrong_form
from liit.evaluation.metrics.normalise import normalise
from liit.evaluation.metrics.numeric import parse_number
from liit.evaluation.metrics.registry import Score, metric


@metric("relaxed-accuracy")
def relaxed_accuracy(prediction: str, reference: str, *, tolerance: float = 0.05) -> Score:
    """A number within 5 % of the reference number; another answer equals it after VQA-style normalisation.

    A percent sign divides by 100 on either side. A reference of 0 has no 5 % and must be met exactly. Wrong format: no
    number where the reference is one; for other references as for `exact-match`.

    Source: Methani et al., "PlotQA: Reasoning over Scientific Plots", WACV 2020, section 5; Masry et al., "ChartQA",
    Findings of ACL 2022, section 5.1. Their code compares other answers without case only.

    Args:
        prediction: what the model said.
        reference: the expected number or words.
        tolerance: largest relative error of a right number.

    Returns:
        1 or 0, and whether the form was wrong.

    Raises:
        InputError: the tolerance is negative or not a number.
    """
    if not tolerance >= 0:
        raise InputError(f"metric_options: tolerance {tolerance} given, expected 0 or more, such as 0.05")
    expected = _number(reference)
    if expected is None:
        right = normalise(prediction) == normalise(reference)
        return Score(float(right), not right and wrong_form(prediction, reference))
    said = _number(prediction)
    if said is None:
        return Score(0.0, wrong_format=True)
    # The product rather than the ratio, which a reference of 0 does not have; a little room for its rounding.
    limit = tolerance * abs(expected)
    error = abs(said - expected)
    return Score(float(error <= limit or math.isclose(error, limit, rel_tol=1e-9)))


def _number(answer: str) -> float | None:
    bare = answer.strip()
    percent = bare.endswith("%")
    value = parse_number(bare[:-1] if percent else bare)
    return value / 100 if percent and value is not None else value
