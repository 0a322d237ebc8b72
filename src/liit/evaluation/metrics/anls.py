"""Answers read from pictures and documents, where a letter may be misread."""

from __future__ import annotations

import unicodedata

from liit.errors import InputError
from liit.evaluation.metrics.form import wrong_form
from liit.evaluation.metrics.registry import Score, metric


@metric("anls")
def anls(prediction: str, reference: str, *, threshold: float = 0.5) -> Score:
    """Average normalised Levenshtein similarity: 1 - distance / length of the longer, 0 below the threshold.

    Compared without case and surrounding spaces, runs of spaces as one, full-width letters as plain ones. Of several
    references the best counts. Wrong format as for `exact-match`, for answers whose value is 0.

    Source: Biten et al., "Scene Text Visual Question Answering", ICCV 2019, equation 1: the value is 1 - NL for
    NL < 0.5, else 0, with NL the distance over the longer length.

    Args:
        prediction: what the model said.
        reference: the expected answer.
        threshold: NL from which on an answer is worth nothing; between 0 (exclusive) and 1.

    Returns:
        A value between 0 and 1, and whether the form was wrong.

    Raises:
        InputError: the threshold is not in its range.
    """
    if not 0 < threshold <= 1:
        raise InputError(f"metric_options: threshold {threshold} given, expected a number above 0 and up to 1")
    said, expected = (
        " ".join(unicodedata.normalize("NFKC", text).casefold().split()) for text in (prediction, reference)
    )
    longer = max(len(said), len(expected))
    distance = levenshtein(said, expected) / longer if longer else 0.0
    value = 1.0 - distance if distance < threshold else 0.0
    return Score(value, value == 0 and wrong_form(prediction, reference))


def levenshtein(left: str, right: str) -> int:
    """Fewest insertions, deletions and substitutions of a character that turn one text into the other."""
    if len(left) < len(right):
        left, right = right, left
    row = list(range(len(right) + 1))
    for i, character in enumerate(left, start=1):
        diagonal, row[0] = row[0], i
        for j, other in enumerate(right, start=1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (character != other))
    return row[-1]
