"""Step 2: name, sort, check and describe OpenMoji's colour pictures of sixty concepts."""

from __future__ import annotations

import numpy as np
from PIL import Image

from liit.demo.continuum.concepts import CONCEPTS, KIND_PHRASES, category, members, phrase
from liit.demo.continuum.drawing import BACKGROUNDS, background, colour_glyph, paste_anywhere
from liit.demo.continuum.plan import quota
from liit.demo.continuum.rows import Row, Split, cycle, pick, pick_some, spread, stream
from liit.demo.continuum.store import ImageStore

PICTURES = {"train": 1150, "eval": 20}
NAMING = (
    "What is this?",
    "What is in the picture?",
    "Name the thing in the picture.",
    "What do you see?",
    "Name this.",
    "What does the picture show?",
    "Which thing is drawn here?",
    "Tell me what this is.",
    "What object is shown?",
    "Say what you see.",
    "What can be seen here?",
    "Identify this.",
)
CATEGORY = (
    "What kind of thing is this?",
    "Which category is this?",
    "What type of thing is shown?",
    "Name the category.",
)
VERIFY = ("Is this {}?", "Does it show {}?", "Is the thing {}?")
CAPTION = ("Describe the picture.", "Write a caption.", "Describe this briefly.")


def rows(store: ImageStore, seed: int, split: Split) -> list[Row]:
    """Return the rows of this step; naming asks most pictures several times, the other skills share its pictures.

    Args:
        store: Where the pictures go.
        seed: Seed of the continuum.
        split: Which rows to make.
    """
    rng = stream(seed, split, "pictures")
    want = quota(split)
    shown: list[tuple[str, str, str]] = []
    for concept in cycle(rng, members(CONCEPTS), PICTURES[split]):
        colour = pick(rng, list(BACKGROUNDS))
        shown.append((concept, colour, store.draw(split, single, rng, concept, colour)))
    out: list[Row] = []
    for (concept, _, image), n in zip(shown, spread(want["naming"], len(shown)), strict=True):
        out += [Row("naming", question, concept, (image,)) for question in pick_some(rng, NAMING, n)]
    for concept, _, image in pick_some(rng, shown, min(len(shown), want["category"])):
        out.append(Row("category", pick(rng, CATEGORY), category(concept), (image,)))
    out += _verify(rng, shown, want["verify"])
    for concept, colour, image in pick_some(rng, shown, want["caption"]):
        out.append(Row("caption", pick(rng, CAPTION), f"{phrase(concept)} on {colour}", (image,)))
    return out


def single(rng: np.random.Generator, concept: str, colour: str | None = None) -> Image.Image:
    """Draw one concept in colour, 56 to 112 pixels large, somewhere on a background."""
    canvas = background(rng, colour)
    paste_anywhere(rng, canvas, colour_glyph(concept), 56, 112)
    return canvas


def _verify(rng: np.random.Generator, shown: list[tuple[str, str, str]], n: int) -> list[Row]:
    """Ask for categories, each as often rightly as wrongly: `Is this a tool?` cannot be answered without looking."""
    by_kind: dict[str, list[str]] = {kind: [] for kind in KIND_PHRASES}
    for concept, _, image in shown:
        by_kind[category(concept)].append(image)
    asked: set[tuple[str, str]] = set()
    out: list[Row] = []
    for i, kind in enumerate(cycle(rng, [k for k in KIND_PHRASES if by_kind[k]], n // 2) * 2):
        answer = "yes" if i < n // 2 else "no"
        other = kind if answer == "yes" else pick(rng, [k for k in KIND_PHRASES if k != kind and by_kind[k]])
        question = pick(rng, VERIFY).format(KIND_PHRASES[kind])
        image = pick(rng, by_kind[other])
        while (question, image) in asked:
            question, image = pick(rng, VERIFY).format(KIND_PHRASES[kind]), pick(rng, by_kind[other])
        asked.add((question, image))
        out.append(Row("verify", question, answer, (image,)))
    return out
