"""What the pictures show: concepts with categories and names in six languages, words to read, countries."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import NamedTuple

import yaml

KIND_PHRASES = {
    "animal": "an animal",
    "food": "food",
    "vehicle": "a vehicle",
    "instrument": "an instrument",
    "clothing": "clothing",
    "tool": "a tool",
    "plant": "a plant",
}
LANGUAGES = ("es", "fr", "de", "it", "ja")

_LISTS = yaml.safe_load(files("liit.demo.continuum").joinpath("vocabulary.yaml").read_text(encoding="utf-8"))


def _tables(name: str) -> dict[str, tuple[str, ...]]:
    return {kind: tuple(names.split()) for kind, names in _LISTS[name].items()}


def _words(name: str) -> tuple[str, ...]:
    return tuple(_LISTS[name].split())


CONCEPTS, BASE_CONCEPTS = _tables("concepts"), _tables("base_concepts")
SCENE_KINDS, GROUNDING_KINDS, BASE_SCENE_KINDS = (
    _words("scene_kinds"),
    _words("grounding_kinds"),
    _words("base_scene_kinds"),
)
MULTILINGUAL, JAPANESE = _words("multilingual"), _words("japanese")
WORDS, BASE_WORDS, ANSWER_WORDS = _words("words"), _words("base_words"), _words("answer_words")
COUNTRIES = _words("countries")


class Country(NamedTuple):
    """A country with the facts that are asked about it; `code` is its two-letter ISO code."""

    name: str
    code: str
    capital: str
    continent: str


def members(table: dict[str, tuple[str, ...]]) -> list[str]:
    """Return the names of all concepts of a table, in its order."""
    return [name for names in table.values() for name in names]


@cache
def category(concept: str) -> str:
    """Return the category of a concept of either table."""
    for table in (CONCEPTS, BASE_CONCEPTS):
        for kind, names in table.items():
            if concept in names:
                return kind
    raise KeyError(concept)


def phrase(concept: str) -> str:
    """Return the concept with its article, if it takes one: `a cat`, `an owl`, `socks`."""
    if concept in _words("plural") or concept in _words("mass"):
        return concept
    return f"{'an' if concept[0] in 'aeiou' else 'a'} {concept}"


@cache
def character(concept: str) -> str:
    """Return the emoji character (without variation selector) that the `emoji` package calls by this name."""
    return _characters()[concept]


@cache
def name_in(language: str, concept: str) -> str:
    """Return the name of a concept in one of `LANGUAGES`, written as that language writes it."""
    table = _emoji_json(f"emoji_{language}.json")
    char = character(concept)
    name: str = (table.get(char) or table[char + "\ufe0f"]).strip(":").replace("_", " ")
    # The package has lower case throughout; German nouns are capitalised.
    return name[0].upper() + name[1:] if language == "de" else name


@cache
def countries() -> list[Country]:
    """Return the countries with the facts of the `countryinfo` package."""
    from countryinfo import CountryInfo

    out = []
    for name in COUNTRIES:
        info = CountryInfo(name)
        capital, region = info.capital(), info.region()
        if capital is None or region is None:
            raise RuntimeError(f"countryinfo does not know the capital or the region of {name}")
        # The package calls the continent "Americas".
        out.append(Country(name, info.iso(2), capital, region.removesuffix("s")))
    return out


@cache
def _emoji_json(name: str) -> dict[str, str]:
    table: dict[str, str] = json.loads(files("emoji").joinpath("unicode_codes", name).read_text(encoding="utf-8"))
    return table


@cache
def _characters() -> dict[str, str]:
    table = json.loads(files("emoji").joinpath("unicode_codes", "emoji.json").read_text(encoding="utf-8"))
    found: dict[str, str] = {}
    for char, entry in table.items():
        found.setdefault(entry["en"].strip(":"), char.replace("\ufe0f", ""))
    return found
