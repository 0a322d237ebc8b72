"""Short answers judged by what several people said."""

from __future__ import annotations

from collections.abc import Sequence

from liit.errors import InputError
from liit.evaluation.metrics.form import wrong_form
from liit.evaluation.metrics.normalise import normalise
from liit.evaluation.metrics.registry import Score, metric

_AGREE = 3


@metric("vqa-accuracy", several=True)
def vqa_accuracy(prediction: str, references: Sequence[str]) -> Score:
    """The answer agrees with at least three of the people who were asked, after VQA-style normalisation.

    The mean, over all choices that leave one person out, of min(n / 3, 1), where n of the others gave the answer; with
    ten people 1, 2, 3 and 4 that agree give 0.3, 0.6, 0.9 and 1. Wrong format as for `exact-match`, judged against the
    most frequent reference.

    Source: Antol et al., "VQA: Visual Question Answering", ICCV 2015; the official evaluation averages as here, the
    paper's own min(n / 3, 1) leaves nobody out. The official code normalises numbers and articles of the prediction
    alone, here both sides are normalised alike.

    Args:
        prediction: what the model said.
        references: what the people said, one string each, usually ten.

    Returns:
        A value between 0 and 1, and whether the form was wrong.

    Raises:
        InputError: fewer than four references, with which no answer could reach 1.
    """
    if len(references) <= _AGREE:
        raise InputError(
            f"references: {len(references)} given, {list(references)!r:.80}; the metric 'vqa-accuracy' needs the "
            f"answers of at least {_AGREE + 1} people per row, under the key that answers_key names"
        )
    said, people = normalise(prediction), [normalise(reference) for reference in references]
    agree, asked = people.count(said), len(people)
    without_one_who_agrees = min((agree - 1) / _AGREE, 1.0) if agree else 0.0
    without_another = min(agree / _AGREE, 1.0)
    value = (agree * without_one_who_agrees + (asked - agree) * without_another) / asked
    usual = max(references, key=lambda reference: people.count(normalise(reference)))
    return Score(value, not agree and wrong_form(prediction, usual))
