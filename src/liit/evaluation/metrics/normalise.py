"""Make answers that mean the same look the same, in any script."""

from __future__ import annotations

import re
import unicodedata

_ARTICLES = frozenset({"a", "an", "the"})
_UP_TO_TWENTY = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty"
)
_NUMBER_WORDS = {word: str(number) for number, word in enumerate(_UP_TO_TWENTY.split())} | {"none": "0"}
_MATHS = frozenset("+=<>`^|~")  # symbols by Unicode, but punctuation to the VQA evaluation
_GROUPED_DIGITS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")


def normalise(answer: str) -> str:
    """Normalise an answer as the VQA evaluation does, but safe for every script.

    Compatibility form (full-width letters and digits become plain ones), lower case, punctuation out, English number
    words to digits, English articles out, single spaces. Accents and Japanese long-vowel marks are letters and stay.
    A decimal point, a sign before a number and a thousands separator are read as part of the number.

    Source: Antol et al., "VQA: Visual Question Answering", ICCV 2015, the evaluation's processing: lower case, number
    words, articles, full stops that no digit follows out, other punctuation to spaces. The official code

    - restores apostrophes from a table of contractions; here they are dropped on both sides, so "dont" is "don't" too;
    - erases an answer that is an article or punctuation alone (the letter "A", the sign "?"); here it is kept;
    - reads number words up to ten; here up to twenty;
    - removes ASCII punctuation only, and leaves : % & # * as they are; here all of Unicode's punctuation counts;
    - drops a mark without leaving a space when a space stands beside it; here it always leaves one (spaces are joined).

    Args:
        answer: any text.

    Returns:
        The normalised text; empty only for an answer without any visible character.
    """
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", answer).casefold()).strip()
    bare = _GROUPED_DIGITS.sub("", text)
    bare = "".join(_kept(bare, position) for position in range(len(bare)))
    words = [_NUMBER_WORDS.get(word, word) for word in bare.split()]
    content = [word for word in words if word not in _ARTICLES]
    return " ".join(content or words) or " ".join(text.split())


def _kept(text: str, position: int) -> str:
    """The character at this position as the normalised text has it: itself, a space, or nothing."""
    character = text[position]
    if character in "'\u2019\u02bc":
        return ""
    if not (unicodedata.category(character).startswith("P") or character in _MATHS):
        return character
    digit_follows = text[position + 1 : position + 2].isdecimal()
    after_digit = position > 0 and text[position - 1].isdecimal()
    if character == "." and digit_follows and (after_digit or position == 0 or text[position - 1].isspace()):
        return character
    if character == "-" and digit_follows and (position == 0 or text[position - 1].isspace()):
        return character
    # "p.m." is "pm" and "U.S." is "us"; a full stop before a digit, as in "no.5", stands between two words.
    return "" if character == "." and not digit_follows else " "
