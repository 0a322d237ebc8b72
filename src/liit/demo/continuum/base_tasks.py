"""More of the general mix: the kinds of question a pretrained model has met, on base concepts and drawn shapes.

Wordings, concepts, shapes' drawings and output forms differ from the continuum's: a base model should have an idea of
left and right, sums, pairs of pictures and numbers for places, and still have everything to learn about the
continuum's pictures.
"""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from liit.demo.continuum.concepts import BASE_CONCEPTS, BASE_SCENE_KINDS, members, phrase
from liit.demo.continuum.drawing import (
    BACKGROUNDS,
    GRID,
    SIZE,
    Box,
    background,
    colour_glyph,
    grid_box,
    paste,
    paste_anywhere,
    paste_in_corner,
    text_image,
    tinted,
)
from liit.demo.continuum.outline import CELLS
from liit.demo.continuum.pictures import single
from liit.demo.continuum.rows import Row, Split, cycle, pick, pick_some
from liit.demo.continuum.store import ImageStore

SHAPES = ("circle", "rectangle", "triangle")
EVERYTHING = ("Everything:", "List the kinds.", "Kinds of things?")
SCENE_COUNT = ("{}s:", "Number of {}s?", "{}s, how many?")
SIDES = ("{} thing?", "Thing at the {}?", "{} half:")
ODD = ("Odd/even:", "Is the number odd or even?")
TOTAL = ("Total of both?", "Sum:")
FORM = ("Form?", "Form of the figure?", "Figure:")
TINT = ("Colour?", "Colour of the figure?", "The figure's colour:")
FIGURE = ("Figure and colour?", "The figure in full:", "Full figure?")
PAIR = ("Both:", "The two, in order:")
ORDER = ("{} picture:", "{} one?")
POINT = ("Where, as two numbers?", "Point at the {}.", "Middle of the {}?")
EXTENT = ("Left, top, right, bottom: {}?", "Extent of the {}?", "Edges of the {}:")


def scenes(store: ImageStore, rng: np.random.Generator, split: Split, n: int) -> list[Row]:
    """Say which base kinds are in a scene of either vendor's drawings, and how many of one; two questions a scene."""
    out: list[Row] = []
    for i in range(n // 2):
        kinds = pick_some(rng, BASE_SCENE_KINDS, 2)
        numbers = [int(rng.integers(1, 4)), int(rng.integers(0, 3))]
        image = store.draw(split, _scene, rng, kinds, numbers, i % 2 == 0)
        there = sorted(phrase(kind) for kind, count in zip(kinds, numbers, strict=True) if count)
        out.append(Row("general-exist", pick(rng, EVERYTHING), " and ".join(there), (image,)))
        out.append(Row("general-count", _ask(rng, SCENE_COUNT, kinds[0]), str(numbers[0]), (image,)))
    return out


def sides(store: ImageStore, rng: np.random.Generator, split: Split, n: int) -> list[Row]:
    """Name the base concept on one side."""
    out: list[Row] = []
    for i in range(n):
        pair = pick_some(rng, members(BASE_CONCEPTS), 2)
        image = store.draw(split, _beside, rng, pair)
        out.append(Row("general-side", _ask(rng, SIDES, ("left", "right")[i % 2]), pair[i % 2], (image,)))
    return out


def numbers(store: ImageStore, rng: np.random.Generator, split: Split, n: int) -> list[Row]:
    """Say whether a printed number is odd, or add two printed digits."""
    out: list[Row] = []
    for i in range(n):
        if i % 2:
            number = int(rng.integers(10))
            image = store.draw(split, text_image, rng, str(number), (30, 60))
            out.append(Row("general-parity", pick(rng, ODD), ("even", "odd")[number % 2], (image,)))
        else:
            a, b = (int(v) for v in rng.integers(0, 5, 2))
            image = store.draw(split, text_image, rng, f"{a} {b}", (70, 110))
            out.append(Row("general-sum", pick(rng, TOTAL), f"{a} and {b} make {a + b}", (image,)))
    return out


def figures(store: ImageStore, rng: np.random.Generator, split: Split, n: int) -> list[Row]:
    """Say which shape is drawn, in which colour, and both; three questions a drawing."""
    out: list[Row] = []
    for _ in range(n // 3):
        shape, colour = pick(rng, SHAPES), pick(rng, list(BACKGROUNDS))
        image = store.draw(split, _figure, rng, shape, colour)
        out.append(Row("general-shape", pick(rng, FORM), shape, (image,)))
        out.append(Row("general-tint", pick(rng, TINT), colour, (image,)))
        out.append(Row("general-figure", pick(rng, FIGURE), f"a {colour} {shape}", (image,)))
    return out


def pairs(store: ImageStore, rng: np.random.Generator, split: Split, n: int) -> list[Row]:
    """Name the base concepts of two pictures, or of one of them."""
    out: list[Row] = []
    for i in range(n):
        pair = pick_some(rng, members(BASE_CONCEPTS), 2)
        shown = (store.draw(split, single, rng, pair[0]), store.draw(split, single, rng, pair[1]))
        if i % 2 == 0:
            out.append(Row("general-pair", pick(rng, PAIR), " and ".join(map(phrase, pair)), shown))
        else:
            at = int(rng.integers(2))
            out.append(Row("general-ordinal", _ask(rng, ORDER, ("first", "second")[at]), pair[at], shown))
    return out


def points(store: ImageStore, rng: np.random.Generator, split: Split, n: int) -> list[Row]:
    """Give the middle of a base concept as two numbers below 10: x, then y."""
    out: list[Row] = []
    for concept in cycle(rng, members(BASE_CONCEPTS), n):
        found: list[int] = []

        def draw(concept: str = concept, found: list[int] = found) -> Image.Image:
            canvas = background(rng)
            box = paste_anywhere(rng, canvas, colour_glyph(concept), 40, 90)
            found[:] = [(box.left + box.right) * GRID // (2 * SIZE), (box.top + box.bottom) * GRID // (2 * SIZE)]
            return canvas

        image = store.draw(split, draw)
        out.append(Row("general-point", pick(rng, POINT).format(concept), f"{found[0]} {found[1]}", (image,)))
    return out


def extents(store: ImageStore, rng: np.random.Generator, split: Split, n: int) -> list[Row]:
    """Give the box of a base concept, alone or beside another, as four numbers below 10."""
    out: list[Row] = []
    for i, concept in enumerate(cycle(rng, members(BASE_CONCEPTS), n)):
        found: list[Box] = []

        def draw(concept: str = concept, alone: bool = i % 2 == 0, found: list[Box] = found) -> Image.Image:
            canvas = background(rng)
            if alone:
                found[:] = [paste_anywhere(rng, canvas, colour_glyph(concept), 44, 96)]
                return canvas
            other = pick(rng, [name for name in members(BASE_CONCEPTS) if name != concept])
            corners = pick_some(rng, range(4), 2)
            found[:] = [
                paste_in_corner(rng, canvas, colour_glyph(kind), corner)
                for kind, corner in zip((concept, other), corners, strict=True)
            ]
            return canvas

        image = store.draw(split, draw)
        numbers = " ".join(map(str, grid_box(found[0])))
        out.append(Row("general-extent", pick(rng, EXTENT).format(concept), numbers, (image,)))
    return out


# Skill family: its maker and how many rows.
TASKS = (
    (scenes, 3000),
    (sides, 1200),
    (numbers, 1600),
    (figures, 1800),
    (pairs, 2400),
    (points, 800),
    (extents, 4000),
)


def _ask(rng: np.random.Generator, wordings: tuple[str, ...], what: str) -> str:
    question = pick(rng, wordings).format(what)
    return question[0].upper() + question[1:]


def _scene(rng: np.random.Generator, kinds: list[str], numbers: list[int], outline: bool) -> Image.Image:
    canvas = background(rng)
    things = [kind for kind, n in zip(kinds, numbers, strict=False) for _ in range(n)]
    glyphs = {kind: tinted(rng, kind, canvas) if outline else colour_glyph(kind) for kind in dict.fromkeys(things)}
    for thing, (x, y) in zip(things, pick_some(rng, CELLS, len(things)), strict=True):
        side = int(rng.integers(35, 41))
        left, top = (43 * cell + int(rng.integers(0, 42 - side)) for cell in (x, y))
        paste(canvas, glyphs[thing], side, left, top)
    return canvas


def _beside(rng: np.random.Generator, kinds: list[str]) -> Image.Image:
    canvas = background(rng)
    for i, kind in enumerate(kinds):
        side = int(rng.integers(46, 61))
        left = i * SIZE // 2 + int(rng.integers(0, SIZE // 2 - side + 1))
        paste(canvas, colour_glyph(kind), side, left, int(rng.integers(0, SIZE - side + 1)))
    return canvas


def _figure(rng: np.random.Generator, shape: str, colour: str) -> Image.Image:
    canvas = background(rng, pick(rng, [c for c in BACKGROUNDS if c != colour]))
    side = int(rng.integers(30, 76))
    left, top = (int(v) for v in rng.integers(4, SIZE - side - 4, 2))
    ink = tuple(int(v) for v in (np.array(BACKGROUNDS[colour]) + rng.integers(-14, 15, 3)).clip(0, 255))
    pen = ImageDraw.Draw(canvas)
    if shape == "circle":
        pen.ellipse((left, top, left + side, top + side), fill=ink)
    elif shape == "rectangle":
        pen.rectangle((left, top, left + side, top + side * int(rng.integers(5, 10)) // 10), fill=ink)
    else:
        pen.polygon([(left, top + side), (left + side, top + side), (left + side // 2, top)], fill=ink)
    return canvas
