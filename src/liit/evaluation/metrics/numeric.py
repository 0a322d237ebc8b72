"""Answers that are one number."""

from __future__ import annotations

import math
import re

from liit.errors import InputError
from liit.evaluation.metrics.normalise import normalise
from liit.evaluation.metrics.registry import Score, metric

_NUMBER = re.compile(r"[+-]?(\d+(\.\d+)?|\.\d+)(e[+-]?\d+)?", re.ASCII)
_RELATIVE_TOLERANCE = 1e-6


@metric("numeric")
def numeric(prediction: str, reference: str) -> Score:
    """The answer is one number equal to the reference; digits, number words and full-width digits all count.

    Equal means within one part in a million, so that 0.5 and 0.50 agree. Anything else than one number, for instance a
    sentence around it, is wrong format.

    Args:
        prediction: what the model said.
        reference: the expected number.

    Returns:
        1 or 0, and whether the form was wrong.

    Raises:
        InputError: the reference is not a number.
    """
    expected = parse_number(reference)
    if expected is None:
        raise InputError(
            f"reference: {reference[:80]!r} is not a number; the metric 'numeric' needs one number per row"
        )
    said = parse_number(prediction)
    if said is None:
        return Score(0.0, wrong_format=True)
    return Score(float(math.isclose(said, expected, rel_tol=_RELATIVE_TOLERANCE, abs_tol=1e-12)))


def parse_number(answer: str) -> float | None:
    """The one finite number that an answer is, in digits or words; None for anything else."""
    # The plain text first: normalising would take the sign out of an exponent.
    for text in (answer.strip().lower(), normalise(answer)):
        if _NUMBER.fullmatch(text):
            value = float(text)
            return value if math.isfinite(value) else None
    return None
