"""Step 1: easy-VQA, a published visual question answering set: what shape, what colour, and both.

Three quarters of the published questions are yes/no. They are left out: 83 % of them can be answered without looking,
and balanced so that they cannot, a model of a million parameters stays at chance. Instead the answers to an image's
other two questions make a description. Train and test images are the set's own.
"""

from __future__ import annotations

import json
from collections import defaultdict
from importlib.resources import files
from pathlib import Path

from PIL import Image

from liit.demo.continuum.drawing import SIZE
from liit.demo.continuum.plan import quota
from liit.demo.continuum.rows import Row, Split, pick, pick_some, stream
from liit.demo.continuum.store import ImageStore

IMAGES = {"train": 500, "eval": 120, "dev": 120}
COLOURS = frozenset(("red", "green", "blue", "gray", "teal", "black", "yellow", "brown"))
SHAPES = frozenset(("circle", "rectangle", "triangle"))
DESCRIPTION = ("Describe the shape.", "What exactly is in the image?", "Say what shape it is, and its color.")


def rows(store: ImageStore, seed: int, split: Split) -> list[Row]:
    """Return the rows of this step.

    Args:
        store: Where the pictures go.
        seed: Seed of the continuum.
        split: `train` and `dev` take the set's training images, `eval` its test images.
    """
    rng = stream(seed, split, "easy-vqa")
    folder = Path(str(files("easy_vqa"))) / "data" / ("test" if split == "eval" else "train")
    by_image: dict[int, list[tuple[str, str]]] = defaultdict(list)
    for question, answer, image in json.loads((folder / "questions.json").read_text(encoding="utf-8")):
        by_image[image].append((question, answer))
    found: dict[str, list[Row]] = defaultdict(list)
    images = sorted(by_image)
    if split == "dev":
        train = set(pick_some(stream(seed, "train", "easy-vqa"), images, IMAGES["train"]))
        images = [image for image in images if image not in train]
    for image in pick_some(rng, images, IMAGES[split]):
        with Image.open(folder / "images" / f"{image}.png") as picture:
            name = store.add(picture.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BICUBIC), split)
        if name is None:  # a test image that equals a training image to the last pixel
            continue
        for question, answer in dict.fromkeys(by_image[image]):
            if (skill := _skill(answer)) is not None:
                found[skill].append(Row(skill, question[0].upper() + question[1:], answer, (name,)))
        if (seen := _seen({answer for _, answer in by_image[image]})) is not None:
            found["description"].append(Row("description", pick(rng, DESCRIPTION), seen, (name,)))
    want = quota(split)
    skills = ("colour", "shape", "description")
    return [row for skill in skills for row in pick_some(rng, found[skill], want[skill])]


def _seen(answers: set[str]) -> str | None:
    """Name the image's one shape, if its questions give both colour and shape."""
    colours, shapes = answers & COLOURS, answers & SHAPES
    return f"a {colours.pop()} {shapes.pop()}" if colours and shapes else None


def _skill(answer: str) -> str | None:
    if answer in COLOURS:
        return "colour"
    return "shape" if answer in SHAPES else None
