"""Telling an answer of the wrong form from a wrong answer, for answers in words."""

from __future__ import annotations

from liit.evaluation.metrics.normalise import normalise

_YES_NO = frozenset({"yes", "no"})


def wrong_form(prediction: str, reference: str) -> bool:
    """Whether a wrong answer is of another kind than the reference.

    That is: nothing at all, a JSON document instead of words, yes or no where something else was asked (and the
    reverse), or the right words inside a longer sentence.

    Args:
        prediction: what the model said, not equal to the reference.
        reference: the expected words.
    """
    said, expected = normalise(prediction), normalise(reference)
    return kind(prediction) != kind(reference) or f" {expected} " in f" {said} "


def kind(answer: str) -> str:
    """What an answer is by its form: "empty", "json", "yes-no" or "words"."""
    normalised = normalise(answer)
    if not normalised:
        return "empty"
    if answer.lstrip()[:1] in {"{", "["}:
        return "json"
    return "yes-no" if normalised in _YES_NO else "words"


def not_text(prediction: str, reference: str) -> bool:
    """Whether an open answer is no text at all: nothing visible, or a JSON document where the reference is none."""
    return kind(prediction) in {"empty", "json"} and kind(prediction) != kind(reference)
