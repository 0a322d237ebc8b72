"""Step 4: another vendor's drawings. Noto Emoji's outlines of the same concepts, and scenes to count in.

Naming is redundant by design: what is asked and answered is what step 2 asked and answered.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from liit.demo.continuum.concepts import CONCEPTS, SCENE_KINDS, members, phrase
from liit.demo.continuum.drawing import SIZE, background, paste, paste_anywhere, tinted
from liit.demo.continuum.pictures import NAMING
from liit.demo.continuum.plan import quota
from liit.demo.continuum.rows import Row, Split, cycle, pick, pick_some, spread, stream
from liit.demo.continuum.store import ImageStore

PICTURES = {"train": 520, "eval": 20, "dev": 20}
SCENES = {"train": 280, "eval": 20, "dev": 20}
COUNT = ("How many things are there?", "Count the things.", "What is the number of things?")
COUNT_KIND = ("How many {}s are there?", "Count the {}s.", "What is the number of {}s?")
EXISTENCE = ("What kinds of things are there?", "Which things do you see?", "Name the kinds of things.")
SIDE = ("What is on the {}?", "Which thing is on the {}?", "Name the thing on the {}.")
# The two kinds, how many of each, and the file.
Scene = tuple[tuple[str, str], tuple[int, int], str]
CELLS = tuple((x, y) for y in range(3) for x in range(3))


def rows(store: ImageStore, seed: int, split: Split) -> list[Row]:
    """Return the rows of this step; counting and existence share their scenes.

    Args:
        store: Where the pictures go.
        seed: Seed of the continuum.
        split: Which rows to make.
    """
    rng = stream(seed, split, "outline")
    want = quota(split)
    out: list[Row] = []
    concepts = cycle(rng, members(CONCEPTS), PICTURES[split])
    for concept, n in zip(concepts, spread(want["naming-outline"], len(concepts)), strict=True):
        image = store.draw(split, single_outline, rng, concept)
        out += [Row("naming-outline", question, concept, (image,)) for question in pick_some(rng, NAMING, n)]
    scenes: list[Scene] = []
    totals, firsts = cycle(rng, (1, 2, 3, 4, 5), SCENES[split]), cycle(rng, SCENE_KINDS, SCENES[split])
    for total, kind in zip(totals, firsts, strict=True):
        kinds = [kind, pick(rng, [other for other in SCENE_KINDS if other != kind])]
        first = int(rng.integers(max(1, total - 2), min(3, total) + 1))
        numbers = (first, total - first)
        image = store.draw(split, scatter, rng, kinds, numbers)
        scenes.append(((kinds[0], kinds[1]), numbers, image))
    for _, numbers, image in scenes[: want["count"]]:
        out.append(Row("count", pick(rng, COUNT), str(sum(numbers)), (image,)))
    for kinds2, numbers, image in scenes[: want["count-kind"]]:
        at = int(rng.integers(2)) if numbers[1] else 0
        out.append(Row("count-kind", pick(rng, COUNT_KIND).format(kinds2[at]), str(numbers[at]), (image,)))
    for scene in scenes[: want["existence"]]:
        there = " and ".join(sorted(phrase(kind) for kind in _kinds(scene)))
        out.append(Row("existence", pick(rng, EXISTENCE), there, (scene[2],)))
    for side in cycle(rng, ("left", "right"), want["side"]):
        pair = pick_some(rng, SCENE_KINDS, 2)
        image = store.draw(split, _pair, rng, pair)
        out.append(Row("side", pick(rng, SIDE).format(side), pair[0] if side == "left" else pair[1], (image,)))
    return out


def single_outline(rng: np.random.Generator, concept: str) -> Image.Image:
    """Draw one concept in outline, 64 to 116 pixels large, somewhere on a background."""
    canvas = background(rng)
    paste_anywhere(rng, canvas, tinted(rng, concept, canvas), 64, 116)
    return canvas


def scatter(rng: np.random.Generator, kinds: list[str], numbers: tuple[int, int]) -> Image.Image:
    """Draw so many of each kind in different cells of a 3 x 3 grid."""
    canvas = background(rng)
    things = [kind for kind, n in zip(kinds, numbers, strict=True) for _ in range(n)]
    glyphs = {kind: tinted(rng, kind, canvas) for kind in sorted(set(things))}
    for thing, (x, y) in zip(things, pick_some(rng, CELLS, len(things)), strict=True):
        side = int(rng.integers(35, 41))
        paste(
            canvas,
            glyphs[thing],
            side,
            x * 43 + int(rng.integers(0, 42 - side)),
            y * 43 + int(rng.integers(0, 42 - side)),
        )
    return canvas


def _pair(rng: np.random.Generator, kinds: list[str]) -> Image.Image:
    canvas = background(rng)
    for i, kind in enumerate(kinds):
        side = int(rng.integers(50, 61))
        left = i * SIZE // 2 + int(rng.integers(0, SIZE // 2 - side + 1))
        paste(canvas, tinted(rng, kind, canvas), side, left, int(rng.integers(0, SIZE - side + 1)))
    return canvas


def _kinds(scene: Scene) -> set[str]:
    kinds, numbers, _ = scene
    return {kind for kind, n in zip(kinds, numbers, strict=True) if n}
