"""Short answers: the same words after normalisation."""

from __future__ import annotations

from liit.evaluation.metrics.normalise import normalise
from liit.evaluation.metrics.registry import Score, metric

_YES_NO = frozenset({"yes", "no"})


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
    said, expected = normalise(prediction), normalise(reference)
    if said == expected:
        return Score(1.0)
    inside_a_sentence = f" {expected} " in f" {said} "
    return Score(0.0, wrong_format=_kind(prediction, said) != _kind(reference, expected) or inside_a_sentence)


def _kind(answer: str, normalised: str) -> str:
    if not normalised:
        return "empty"
    if answer.lstrip()[:1] in {"{", "["}:
        return "json"
    return "yes-no" if normalised in _YES_NO else "words"
