"""Short answers: the same words after normalisation."""

from __future__ import annotations

from liit.evaluation.metrics.form import wrong_form
from liit.evaluation.metrics.normalise import normalise
from liit.evaluation.metrics.registry import Score, metric


@metric("exact-match")
def exact_match(prediction: str, reference: str) -> Score:
    """The answer equals the reference after VQA-style normalisation.

    Wrong format is counted for an answer of another kind than the reference: nothing at all, a JSON document instead of
    words, yes or no where something else was asked (and the reverse), or the right words inside a longer sentence.
    It never changes the score.

    Args:
        prediction: what the model said.
        reference: the expected answer.

    Returns:
        1 or 0, and whether the form was wrong.
    """
    if normalise(prediction) == normalise(reference):
        return Score(1.0)
    return Score(0.0, wrong_form(prediction, reference))
