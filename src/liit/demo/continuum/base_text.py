"""Text without pictures for the base model: every word, name, fact and number form of the continuum, read once or more.

None is a question of the continuum: facts are statements to be repeated, names are translated without a picture.
"""

from __future__ import annotations

import json

import numpy as np

from liit.demo.continuum.concepts import (
    ANSWER_WORDS,
    BASE_CONCEPTS,
    BASE_WORDS,
    CONCEPTS,
    LANGUAGES,
    WORDS,
    category,
    countries,
    members,
    name_in,
    phrase,
)
from liit.demo.continuum.drawing import BACKGROUNDS
from liit.demo.continuum.rows import Row, pick, pick_some

REPEAT = ("Repeat: {}", "Copy: {}", "Say: {}")
COMPLETE = ("Complete: {}", "Go on: {}", "Continue: {}")
LANGUAGE_NAMES = {"es": "Spanish", "fr": "French", "de": "German", "it": "Italian", "ja": "Japanese"}
PLACES = ("top left", "top right", "bottom left", "bottom right")


def text_rows(rng: np.random.Generator, n: int) -> list[Row]:
    """Return `n` rows, a share of each kind: lists of names, words and names to repeat, facts, sums, JSON.

    Args:
        rng: Random generator.
        n: Number of rows; below about 2 000 not every word is covered.
    """
    makers = (_translations, _word, _phrase, _fact, _json, _names, _translation, _record, _sum)
    covered = [Row("general-text", pick(rng, REPEAT).format(word), word) for word in vocabulary()]
    return [*covered, *(makers[i % len(makers)](rng) for i in range(n - len(covered)))][:n]


def vocabulary() -> list[str]:
    """Return every word and name that an answer of the continuum can consist of, numbers and JSON aside."""
    concepts = [*members(CONCEPTS), *members(BASE_CONCEPTS)]
    names = [name_in(language, concept) for language in LANGUAGES for concept in concepts]
    facts = [word for country in countries() for word in (country.name, country.capital, country.continent)]
    numbers = [str(i) for i in range(100)]
    return list(
        dict.fromkeys([*ANSWER_WORDS, *PLACES, *CONCEPTS, *concepts, *names, *facts, *WORDS, *BASE_WORDS, *numbers])
    )


def _concept(rng: np.random.Generator) -> str:
    return pick(rng, [*members(CONCEPTS), *members(BASE_CONCEPTS)])


def _translations(rng: np.random.Generator) -> Row:
    concept = _concept(rng)
    others = [name_in(language, concept) for language in pick_some(rng, LANGUAGES, 3)]
    return Row("general-text", pick(rng, COMPLETE).format(f"{concept}, {others[0]},"), ", ".join(others[1:]))


def _translation(rng: np.random.Generator) -> Row:
    language = pick(rng, LANGUAGES)
    concept = _concept(rng)
    question = pick(rng, ("{} in {}:", "Translate {} into {}.")).format(concept, LANGUAGE_NAMES[language])
    return Row("general-text", question, name_in(language, concept))


def _record(rng: np.random.Generator) -> Row:
    values = [int(v) for v in rng.integers(0, 10, 4)]
    text = json.dumps({"box": values}, separators=(",", ":"))
    return Row("general-text", f"As JSON: box {' '.join(map(str, values))}", text)


def _word(rng: np.random.Generator) -> Row:
    word = pick(rng, vocabulary())
    return Row("general-text", pick(rng, REPEAT).format(word), word)


def _phrase(rng: np.random.Generator) -> Row:
    text = f"{phrase(_concept(rng))} on {pick(rng, list(BACKGROUNDS))}"
    return Row("general-text", pick(rng, REPEAT).format(text), text)


def _fact(rng: np.random.Generator) -> Row:
    country = pick(rng, countries())
    text = pick(
        rng,
        (
            f"{country.capital} is in {country.name}.",
            f"{country.name} is in {country.continent}.",
            f"We flew to {country.capital}, {country.name}.",
        ),
    )
    return Row("general-text", pick(rng, REPEAT).format(text), text)


def _json(rng: np.random.Generator) -> Row:
    boxes = [[int(v) for v in (*rng.integers(0, 6, 2), *rng.integers(4, 10, 2))] for _ in range(2)]
    record = pick(
        rng,
        (
            {"box": boxes[0]},
            {"boxes": boxes},
            {"corner": pick(rng, PLACES)},
            {"box": boxes[1]},
        ),
    )
    text = json.dumps(record, separators=(",", ":"))
    return Row("general-text", pick(rng, REPEAT).format(text), text)


def _sum(rng: np.random.Generator) -> Row:
    a, b = (int(v) for v in rng.integers(0, 10, 2))
    if rng.random() < 0.5:
        return Row("general-text", pick(rng, COMPLETE).format(f"{a} + {b} ="), str(a + b))
    text = f"{a} + {b} = {a + b}"
    return Row("general-text", pick(rng, REPEAT).format(text), text)


def _names(rng: np.random.Generator) -> Row:
    concepts = pick_some(rng, [*members(CONCEPTS), *members(BASE_CONCEPTS)], 3)
    if rng.random() < 0.5:
        return Row("general-text", pick(rng, REPEAT).format(", ".join(concepts)), ", ".join(concepts))
    return Row("general-text", pick(rng, COMPLETE).format(f"{concepts[0]} -"), category(concepts[0]))
