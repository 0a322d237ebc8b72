"""Open answers in any language: overlap of character n-grams."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from liit.errors import InputError
from liit.evaluation.metrics.form import not_text
from liit.evaluation.metrics.registry import Score, metric
from liit.evaluation.metrics.sacre import streams


def corpus_chrf(
    predictions: Sequence[str],
    references: Sequence[Sequence[str]],
    *,
    char_order: int = 6,
    word_order: int = 0,
    beta: int = 2,
) -> dict[str, Any]:
    """ChrF of all rows together, 0 to 100, with sacrebleu's signature. It is no mean over the rows."""
    chrf = _chrf(char_order, word_order, beta)
    value = chrf.corpus_score(list(predictions), streams(references)).score
    return {"corpus_chrf": value, "signature": str(chrf.get_signature())}


@metric("chrf", several=True, corpus=corpus_chrf, package="sacrebleu", extra="bleu")
def sentence_chrf(
    prediction: str, references: Sequence[str], *, char_order: int = 6, word_order: int = 0, beta: int = 2
) -> Score:
    """Open answers: sentence chrF, overlap of character n-grams, 0 to 1; corpus chrF in the facts.

    The skill's score is the mean of sentence chrF over its rows; the corpus value, which pools the counts of all rows
    first, stands beside it as `corpus_chrf`. Wrong format: no visible text, or a JSON document where the reference is
    none.

    Source: Popović, "chrF: character n-gram F-score for automatic MT evaluation", WMT 2015; computed by sacrebleu
    (Post, "A Call for Clarity in Reporting BLEU Scores", WMT 2018). `word_order: 2` is chrF++.

    Args:
        prediction: what the model said.
        references: the answers that are right; the one most like the prediction counts.
        char_order: longest character n-gram.
        word_order: longest word n-gram; 0 for none.
        beta: how many times recall weighs more than precision.

    Returns:
        A value between 0 and 1, and whether the form was wrong.

    Raises:
        InputError: an option out of its range.
    """
    score = _chrf(char_order, word_order, beta).sentence_score(prediction, list(references)).score
    return Score(min(1.0, score / 100), all(not_text(prediction, reference) for reference in references))


def _chrf(char_order: int, word_order: int, beta: int) -> Any:
    from sacrebleu.metrics.chrf import CHRF

    given = {"char_order": char_order, "word_order": word_order, "beta": beta}
    for name, least in (("char_order", 1), ("word_order", 0), ("beta", 1)):
        if not isinstance(given[name], int) or isinstance(given[name], bool) or given[name] < least:
            raise InputError(f"metric_options: {name} {given[name]!r} given, expected a whole number from {least} on")
    return CHRF(char_order=char_order, word_order=word_order, beta=beta)
