"""Step 2: name, sort and describe OpenMoji's colour pictures of sixty concepts."""

from __future__ import annotations

import numpy as np
from PIL import Image

from liit.demo.continuum.concepts import CONCEPTS, category, members, phrase
from liit.demo.continuum.drawing import BACKGROUNDS, background, colour_glyph, paste_anywhere
from liit.demo.continuum.plan import quota
from liit.demo.continuum.rows import Row, Split, cycle, pick, pick_some, spread, stream
from liit.demo.continuum.store import ImageStore

PICTURES = {"train": 1150, "eval": 20, "dev": 20}
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
BEHIND = ("What color is behind it?", "Which color is the background?", "Name the color around it.")
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
    for _, colour, image in pick_some(rng, shown, min(len(shown), want["background"])):
        out.append(Row("background", pick(rng, BEHIND), colour, (image,)))
    for concept, colour, image in pick_some(rng, shown, want["caption"]):
        out.append(Row("caption", pick(rng, CAPTION), f"{phrase(concept)} on {colour}", (image,)))
    return out


def single(rng: np.random.Generator, concept: str, colour: str | None = None) -> Image.Image:
    """Draw one concept in colour, 56 to 112 pixels large, somewhere on a background."""
    canvas = background(rng, colour)
    paste_anywhere(rng, canvas, colour_glyph(concept), 56, 112)
    return canvas
