"""Open answers: overlap of word n-grams."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from liit.errors import InputError
from liit.evaluation.metrics.form import not_text
from liit.evaluation.metrics.registry import Score, metric
from liit.evaluation.metrics.sacre import streams

TOKENIZERS = ("13a", "intl", "zh", "ja-mecab", "ko-mecab", "char", "none")
"""Those of sacrebleu that download nothing; the two with mecab need a package of their own."""


def corpus_bleu(
    predictions: Sequence[str], references: Sequence[Sequence[str]], *, tokenize: str = "13a", lowercase: bool = False
) -> dict[str, Any]:
    """BLEU of all rows together, 0 to 100, with sacrebleu's signature. It is no mean over the rows."""
    bleu = _bleu(tokenize, lowercase, effective_order=False)
    value = bleu.corpus_score(list(predictions), streams(references)).score
    return {"corpus_bleu": value, "signature": str(bleu.get_signature())}


@metric("bleu", several=True, corpus=corpus_bleu, package="sacrebleu", extra="bleu")
def sentence_bleu(
    prediction: str, references: Sequence[str], *, tokenize: str = "13a", lowercase: bool = False
) -> Score:
    """Open answers: sentence BLEU, overlap of word n-grams, 0 to 1; corpus BLEU in the facts.

    The skill's score is the mean of sentence BLEU (effective order, exponential smoothing) over its rows; papers report
    the corpus value, which pools the counts of all rows first and stands beside it as `corpus_bleu`. Wrong
    format: no visible text, or a JSON document where the reference is none.

    Source: Papineni et al., "BLEU: a Method for Automatic Evaluation of Machine Translation", ACL 2002; computed by
    sacrebleu (Post, "A Call for Clarity in Reporting BLEU Scores", WMT 2018).

    Args:
        prediction: what the model said.
        references: the answers that are right.
        tokenize: how words are told apart: 13a (Western languages), intl, zh, ja-mecab, ko-mecab, char or none.
        lowercase: compare without case.

    Returns:
        A value between 0 and 1, and whether the form was wrong.

    Raises:
        InputError: an unknown tokenizer, or one whose package is not installed.
    """
    score = _bleu(tokenize, lowercase, effective_order=True).sentence_score(prediction, list(references)).score
    return Score(min(1.0, score / 100), all(not_text(prediction, reference) for reference in references))


def _bleu(tokenize: str, lowercase: bool, effective_order: bool) -> Any:
    from sacrebleu.metrics.bleu import BLEU

    if tokenize not in TOKENIZERS:
        raise InputError(f"metric_options: tokenize {tokenize!r} is unknown; use one of {', '.join(TOKENIZERS)}")
    try:
        return BLEU(tokenize=tokenize, lowercase=lowercase, effective_order=effective_order)
    except (ImportError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"metric_options: tokenize {tokenize!r} cannot be used: {reason}") from error
