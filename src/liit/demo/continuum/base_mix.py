"""The general mix on which the built-in base model is trained before the first step.

It makes a competent start, not a finished one: other concepts, other words and other wordings than the continuum's, and
text without pictures in which every answer of the continuum has been read once, as a pretrained language model has read
it. It is built only when the base model is made again.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from liit.demo.continuum.base_tasks import TASKS
from liit.demo.continuum.base_text import text_rows
from liit.demo.continuum.concepts import BASE_CONCEPTS, BASE_SCENE_KINDS, BASE_WORDS, category, members, phrase
from liit.demo.continuum.directory import fresh_directory
from liit.demo.continuum.drawing import (
    BACKGROUNDS,
    background,
    colour_glyph,
    paste,
    paste_in_corner,
    text_image,
    tinted,
)
from liit.demo.continuum.outline import CELLS, single_outline
from liit.demo.continuum.packages import package_versions
from liit.demo.continuum.pictures import single
from liit.demo.continuum.rows import Row, Split, cycle, pick, pick_some, spread, stream, write_llava
from liit.demo.continuum.store import ImageStore

NAMING = ("Label:", "Object?", "Give the label.", "Word for the drawing?", "One word:")
CAPTION = ("Caption:", "Give a short caption.")
COLOUR = ("Background?", "Colour of the background?", "Give the background colour.")
KIND = ("Kind?", "Give the kind.", "Group?")
READ = ("Text?", "Transcribe.", "Give the text.")
COUNT = ("Count:", "Number of objects?", "Give the count.")
PLACE = ("Place?", "Where on the canvas?")
PLACE_OF = ("Place of the {}?", "The {}: where on the canvas?")
BASE_NUMBERS = (*range(10), *range(60, 100))
# Skill: rows, pictures.
QUOTA = {
    "general-naming": (5000, 3000),
    "general-caption": (2400, 2000),
    "general-colour": (1500, 1500),
    "general-kind": (1500, 1500),
    "general-outline": (2000, 1500),
    "general-reading": (3600, 2400),
    "general-count": (3000, 2400),
    "general-place": (2400, 2400),
}
TEXT_ROWS = 7000
UNRELATED_ROWS = 1400


def build_base_mix(out: Path, seed: int = 0) -> Path:
    """Build the mix: `train.json` (LLaVA JSON) and `images/`.

    Args:
        out: Directory to make; it appears when it is complete.
        seed: Seed of everything random.

    Returns:
        The path of `train.json`.

    Raises:
        InputError: If `out` exists already and is not empty, or if a package is missing.
    """
    package_versions()
    with fresh_directory(Path(out)) as part:
        store = ImageStore(part / "images")
        rng = stream(seed, "base", "mix")
        rows: list[Row] = []
        for skill, maker in MAKERS.items():
            rows += maker(store, rng, "base", *QUOTA[skill])
        for task, count in TASKS:
            rows += task(store, rng, "base", count)
        rows += text_rows(rng, TEXT_ROWS)
        rows = [rows[int(at)] for at in rng.permutation(len(rows))]
        rows += _beside_the_point(rng, rows, UNRELATED_ROWS)
        write_llava(part / "train.json", ((f"base-{i:05d}", row) for i, row in enumerate(rows)))
    return Path(out) / "train.json"


def naming(store: ImageStore, rng: np.random.Generator, split: Split, n: int, pictures: int) -> list[Row]:
    """Name a base concept in colour."""
    out: list[Row] = []
    shown = _singles(store, rng, split, pictures)
    for (concept, _, image), k in zip(shown, spread(n, pictures), strict=True):
        out += [Row("general-naming", question, concept, (image,)) for question in pick_some(rng, NAMING, k)]
    return out


def caption(store: ImageStore, rng: np.random.Generator, split: Split, n: int, pictures: int) -> list[Row]:
    """Name a base concept and the colour behind it."""
    out: list[Row] = []
    for (concept, colour, image), k in zip(_singles(store, rng, split, pictures), spread(n, pictures), strict=True):
        answer = f"{phrase(concept)}, {colour} background"
        out += [Row("general-caption", question, answer, (image,)) for question in pick_some(rng, CAPTION, k)]
    return out


def colour(store: ImageStore, rng: np.random.Generator, split: Split, n: int, pictures: int) -> list[Row]:
    """Name the colour behind a base concept."""
    shown = _singles(store, rng, split, pictures)
    return [Row("general-colour", pick(rng, COLOUR), colour, (image,)) for _, colour, image in shown[:n]]


def kind(store: ImageStore, rng: np.random.Generator, split: Split, n: int, pictures: int) -> list[Row]:
    """Name the category of a base concept."""
    shown = _singles(store, rng, split, pictures)
    return [Row("general-kind", pick(rng, KIND), category(concept), (image,)) for concept, _, image in shown[:n]]


def outline(store: ImageStore, rng: np.random.Generator, split: Split, n: int, pictures: int) -> list[Row]:
    """Name a base concept in the other vendor's outline."""
    out: list[Row] = []
    for concept, k in zip(cycle(rng, members(BASE_CONCEPTS), pictures), spread(n, pictures), strict=True):
        image = store.draw(split, single_outline, rng, concept)
        out += [Row("general-outline", question, concept, (image,)) for question in pick_some(rng, NAMING, k)]
    return out


def reading(store: ImageStore, rng: np.random.Generator, split: Split, n: int, pictures: int) -> list[Row]:
    """Read a base word or a base number."""
    out: list[Row] = []
    texts = cycle(rng, [*BASE_WORDS, *(str(number) for number in BASE_NUMBERS)], pictures)
    for text, k in zip(texts, spread(n, pictures), strict=True):
        low = 24 if len(text) == 1 else 60 if len(text) == 2 else 92
        span = (low, 48 if len(text) == 1 else 100 if len(text) == 2 else 118)
        image = store.draw(split, text_image, rng, text, span)
        out += [Row("general-reading", question, text, (image,)) for question in pick_some(rng, READ, k)]
    return out


def counting(store: ImageStore, rng: np.random.Generator, split: Split, n: int, pictures: int) -> list[Row]:
    """Count one to five things of one or two kinds, of one vendor."""
    out: list[Row] = []
    for total, k in zip(cycle(rng, (1, 2, 3, 4, 5), pictures), spread(n, pictures), strict=True):
        image = store.draw(split, _scatter, rng, total)
        out += [Row("general-count", question, str(total), (image,)) for question in pick_some(rng, COUNT, k)]
    return out


def place(store: ImageStore, rng: np.random.Generator, split: Split, n: int, pictures: int) -> list[Row]:
    """Say in which quarter of the picture a base concept is, alone or beside another, in words."""
    out: list[Row] = []
    for i, concept in enumerate(cycle(rng, members(BASE_CONCEPTS), pictures)):
        corner, free = pick_some(rng, range(4), 2)
        things = {corner: concept}
        if i % 2:
            things[free] = pick(rng, [other for other in members(BASE_CONCEPTS) if other != concept])
        image = store.draw(split, _quarters, rng, things)
        answer = f"{('top', 'bottom')[corner // 2]} {('left', 'right')[corner % 2]}"
        question = pick(rng, PLACE_OF if i % 2 else PLACE).format(concept)
        out.append(Row("general-place", question, answer, (image,)))
    return out[:n]


MAKERS = {
    "general-naming": naming,
    "general-caption": caption,
    "general-colour": colour,
    "general-kind": kind,
    "general-outline": outline,
    "general-reading": reading,
    "general-count": counting,
    "general-place": place,
}


def _beside_the_point(rng: np.random.Generator, rows: list[Row], n: int) -> list[Row]:
    """Text rows once more, each beside a picture that has nothing to do with them: the answer is in the words."""
    pictures = [row.images[0] for row in rows if row.images]
    texts = [row for row in rows if not row.images]
    return [replace(row, images=(pick(rng, pictures),)) for row in pick_some(rng, texts, n)]


def _singles(store: ImageStore, rng: np.random.Generator, split: Split, n: int) -> list[tuple[str, str, str]]:
    out: list[tuple[str, str, str]] = []
    for concept in cycle(rng, members(BASE_CONCEPTS), n):
        colour = pick(rng, list(BACKGROUNDS))
        image = store.draw(split, single, rng, concept, colour)
        out.append((concept, colour, image))
    return out


def _scatter(rng: np.random.Generator, total: int) -> Image.Image:
    canvas = background(rng)
    outline = rng.random() < 0.5
    kinds = pick_some(rng, BASE_SCENE_KINDS, 2)
    glyphs = [tinted(rng, kind, canvas) if outline else colour_glyph(kind) for kind in kinds]
    for x, y in pick_some(rng, CELLS, total):
        side = int(rng.integers(35, 41))
        glyph = pick(rng, glyphs)
        left, top = (43 * cell + int(rng.integers(0, 42 - side)) for cell in (x, y))
        paste(canvas, glyph, side, left, top)
    return canvas


def _quarters(rng: np.random.Generator, things: dict[int, str]) -> Image.Image:
    canvas = background(rng)
    for corner, concept in things.items():
        paste_in_corner(rng, canvas, colour_glyph(concept), corner)
    return canvas
