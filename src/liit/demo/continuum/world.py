"""Step 6: other languages, flags and what one knows about countries, and questions about two pictures.

The facts about countries come without a picture. Test rows ask the facts that were taught, in a wording that was not:
knowledge can be learnt but not guessed.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from liit.demo.continuum.concepts import GROUNDING_KINDS, JAPANESE, MULTILINGUAL, Country, countries, name_in, phrase
from liit.demo.continuum.drawing import background, flag_glyph, paste_anywhere
from liit.demo.continuum.pictures import single
from liit.demo.continuum.plan import quota
from liit.demo.continuum.rows import Row, Split, cycle, pick, pick_some, stream
from liit.demo.continuum.store import ImageStore

NAMES = {
    "es": ("¿Qué es esto?", "¿Qué se ve aquí?", "¿Cómo se llama esto?"),
    "fr": ("Qu'est-ce que c'est ?", "Que voit-on ici ?", "Comment ça s'appelle ?"),
    "de": ("Was ist das?", "Was sieht man hier?", "Wie heißt das?"),
    "it": ("Che cos'è?", "Che cosa si vede qui?", "Come si chiama?"),
    "ja": ("これは何ですか？", "何が見えますか？"),
}
COUNTRY = ("Which country has this flag?", "Whose flag is this?", "Name the country of the flag.")
CAPITAL = (
    "What is the capital of this country?",
    "Name this country's capital.",
    "Which capital belongs to this flag?",
)
CONTINENT = ("On which continent is this country?", "Name the continent of this flag.", "Which continent is it?")
PAIR = ("What do the two pictures show?", "Name what both pictures show.", "What are the two things?")
ORDINAL = ("What does the {} picture show?", "What is in the {} picture?", "Name the thing in the {} picture.")
FACTS = {
    "train": (
        ("What is the capital of {}?", "capital"),
        ("Name the capital of {}.", "capital"),
        ("{} has which capital?", "capital"),
        ("The capital of {}?", "capital"),
        ("Tell me the capital city of {}.", "capital"),
        ("On which continent is {}?", "continent"),
        ("{} lies on which continent?", "continent"),
        ("Name the continent of {}.", "continent"),
        ("{}: which capital?", "capital"),
        ("{}: which continent?", "continent"),
    ),
    "eval": (("Which city is the capital of {}?", "capital"), ("What continent is {} in?", "continent")),
    "dev": (("Which town is the capital of {}?", "capital"), ("To which continent belongs {}?", "continent")),
}
PICTURES = {
    "train": {"name": 240, "flag": 260, "single": 144},
    "eval": {"name": 30, "flag": 24, "single": 36},
    "dev": {"name": 30, "flag": 24, "single": 36},
}


def rows(store: ImageStore, seed: int, split: Split) -> list[Row]:
    """Return the rows of this step; a picture is asked in several languages, a flag for several facts.

    Args:
        store: Where the pictures go.
        seed: Seed of the continuum.
        split: Which rows to make.
    """
    rng = stream(seed, split, "world")
    return [*_names(store, rng, split), *_flags(store, rng, split), *_pairs(store, rng, split), *_facts(rng, split)]


def _names(store: ImageStore, rng: np.random.Generator, split: Split) -> list[Row]:
    want = quota(split)
    shown = _singles(store, rng, split, MULTILINGUAL, PICTURES[split]["name"])
    out: list[Row] = []
    for language in ("es", "fr", "de", "it"):
        skill = f"name-{language}"
        for concept, image in pick_some(rng, shown, min(len(shown), want[skill])):
            out.append(Row(skill, pick(rng, NAMES[language]), name_in(language, concept), (image,)))
    for concept, image in _singles(store, rng, split, JAPANESE, want["name-ja"]):
        out.append(Row("name-ja", pick(rng, NAMES["ja"]), name_in("ja", concept), (image,)))
    return out


def _flags(store: ImageStore, rng: np.random.Generator, split: Split) -> list[Row]:
    want = quota(split)
    drawn = cycle(rng, countries(), PICTURES[split]["flag"])
    shown = [(country, store.draw(split, _flag, rng, country)) for country in drawn]
    out = [Row("country", pick(rng, COUNTRY), c.name, (i,)) for c, i in pick_some(rng, shown, want["country"])]
    out += [Row("capital", pick(rng, CAPITAL), c.capital, (i,)) for c, i in pick_some(rng, shown, want["capital"])]
    out += [
        Row("continent", pick(rng, CONTINENT), c.continent, (i,)) for c, i in pick_some(rng, shown, want["continent"])
    ]
    return out


def _pairs(store: ImageStore, rng: np.random.Generator, split: Split) -> list[Row]:
    want = quota(split)
    shown: dict[str, list[str]] = {kind: [] for kind in GROUNDING_KINDS}
    for kind, image in _singles(store, rng, split, GROUNDING_KINDS, PICTURES[split]["single"]):
        shown[kind].append(image)
    out: list[Row] = []
    asked: set[tuple[str, ...]] = set()
    for skill in ("pair", "ordinal"):
        for kind, at in zip(cycle(rng, GROUNDING_KINDS, want[skill]), cycle(rng, (0, 1), want[skill]), strict=True):
            while True:
                other = pick(rng, [k for k in GROUNDING_KINDS if k != kind])
                kinds = (kind, other) if at == 0 else (other, kind)
                images = (pick(rng, shown[kinds[0]]), pick(rng, shown[kinds[1]]))
                if (skill, *images) not in asked:
                    break
            asked.add((skill, *images))
            if skill == "pair":
                out.append(Row(skill, pick(rng, PAIR), " and ".join(map(phrase, kinds)), images))
            else:
                out.append(Row(skill, pick(rng, ORDINAL).format(("first", "second")[at]), kind, images))
    return out


def _facts(rng: np.random.Generator, split: Split) -> list[Row]:
    n = quota(split)["facts"]
    if split == "train":
        every = [(country, *wording) for country in countries() for wording in FACTS["train"]]
        chosen = pick_some(rng, every, n)
    else:
        capital, continent = FACTS[split]
        picked = pick_some(rng, countries(), n)
        chosen = [(c, *(continent if i < n // 4 else capital)) for i, c in enumerate(picked)]
    return [Row("facts", question.format(c.name), getattr(c, fact)) for c, question, fact in chosen]


def _singles(
    store: ImageStore, rng: np.random.Generator, split: Split, concepts: tuple[str, ...], n: int
) -> list[tuple[str, str]]:
    return [(concept, store.draw(split, single, rng, concept)) for concept in cycle(rng, concepts, n)]


def _flag(rng: np.random.Generator, country: Country) -> Image.Image:
    canvas = background(rng)
    paste_anywhere(rng, canvas, flag_glyph(country.code), 76, 120)
    return canvas
