"""Step 5: a new output form. Say where things are, as JSON with whole numbers on a 10 x 10 grid."""

from __future__ import annotations

import json

import numpy as np
from PIL import Image

from liit.demo.continuum.concepts import GROUNDING_KINDS
from liit.demo.continuum.drawing import SIZE, Box, background, colour_glyph, grid_box, paste_anywhere, paste_in_corner
from liit.demo.continuum.plan import quota
from liit.demo.continuum.rows import Row, Split, cycle, pick, pick_some, stream
from liit.demo.continuum.store import ImageStore

BOX = ("Where is the {}?", "Find the {}.", "Give the box of the {}.", "Locate the {}.")
BOXES = ("Where are the {} and the {}?", "Find the {} and the {}.", "Give the boxes of the {} and the {}.")
CORNER = ("In which corner is the {}?", "Which corner has the {}?", "Name the corner of the {}.")
CORNERS = ("top left", "top right", "bottom left", "bottom right")


def rows(store: ImageStore, seed: int, split: Split) -> list[Row]:
    """Return the rows of this step; a scene is asked for each of its things.

    Args:
        store: Where the pictures go.
        seed: Seed of the continuum.
        split: Which rows to make.
    """
    rng = stream(seed, split, "grounding")
    want = quota(split)
    boxes: list[Row] = []
    corners: list[Row] = []
    lists: list[Row] = []
    for first in cycle(rng, GROUNDING_KINDS, 10 * want["box"]):
        if len(boxes) >= want["box"] and len(corners) >= want["corner"] and len(lists) >= want["boxes"]:
            break
        if len(boxes) < want["box"] and rng.random() < 0.5:
            image, found = _draw(store, split, rng, [first])
        else:
            second = pick(rng, [kind for kind in GROUNDING_KINDS if kind != first])
            image, found = _draw(store, split, rng, [first, second])
            lists.append(Row("boxes", pick(rng, BOXES).format(*found), _boxes(list(found.values())), (image,)))
            for kind, box in found.items():
                corners.append(Row("corner", pick(rng, CORNER).format(kind), _corner(box), (image,)))
        boxes += [Row("box", pick(rng, BOX).format(kind), _box(box), (image,)) for kind, box in found.items()]
    return boxes[: want["box"]] + corners[: want["corner"]] + lists[: want["boxes"]]


def _draw(store: ImageStore, split: Split, rng: np.random.Generator, kinds: list[str]) -> tuple[str, dict[str, Box]]:
    found: dict[str, Box] = {}

    def make() -> Image.Image:
        canvas = background(rng)
        if len(kinds) == 1:
            found[kinds[0]] = paste_anywhere(rng, canvas, colour_glyph(kinds[0]), 44, 96)
            return canvas
        for kind, corner in zip(kinds, pick_some(rng, range(4), len(kinds)), strict=True):
            found[kind] = paste_in_corner(rng, canvas, colour_glyph(kind), corner)
        return canvas

    return store.draw(split, make), found


def _box(box: Box) -> str:
    return json.dumps({"box": grid_box(box)}, separators=(",", ":"))


def _boxes(boxes: list[Box]) -> str:
    return json.dumps({"boxes": [grid_box(box) for box in boxes]}, separators=(",", ":"))


def _corner(box: Box) -> str:
    right, below = box.left >= SIZE // 2, box.top >= SIZE // 2
    return json.dumps({"corner": CORNERS[2 * below + right]}, separators=(",", ":"))
