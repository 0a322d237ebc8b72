"""Step 1: easy-VQA, a published visual question answering set, with its yes/no questions balanced.

As published, three quarters of the questions are yes/no and 83 % of those can be answered without looking. Here every
question text is answered `yes` as often as `no`. Train and test images are the set's own.
"""

from __future__ import annotations

import json
from collections import defaultdict
from importlib.resources import files
from pathlib import Path

import numpy as np
from PIL import Image

from liit.demo.continuum.drawing import SIZE
from liit.demo.continuum.plan import quota
from liit.demo.continuum.rows import Row, Split, pick_some, stream
from liit.demo.continuum.store import ImageStore

IMAGES = {"train": 500, "eval": 120}
COLOURS = frozenset(("red", "green", "blue", "gray", "teal", "black", "yellow", "brown"))
SHAPES = frozenset(("circle", "rectangle", "triangle"))


def rows(store: ImageStore, seed: int, split: Split) -> list[Row]:
    """Return the rows of this step.

    Args:
        store: Where the pictures go.
        seed: Seed of the continuum.
        split: `train` takes the set's training images, `eval` its test images.
    """
    rng = stream(seed, split, "easy-vqa")
    folder = Path(str(files("easy_vqa"))) / "data" / ("train" if split == "train" else "test")
    by_image: dict[int, list[tuple[str, str]]] = defaultdict(list)
    for question, answer, image in json.loads((folder / "questions.json").read_text(encoding="utf-8")):
        by_image[image].append((question, answer))
    found: dict[str, list[Row]] = defaultdict(list)
    for image in pick_some(rng, sorted(by_image), IMAGES[split]):
        with Image.open(folder / "images" / f"{image}.png") as picture:
            name = store.add(picture.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BICUBIC), split)
        if name is None:  # a test image that equals a training image to the last pixel
            continue
        for question, answer in dict.fromkeys(by_image[image]):
            skill = _skill(question, answer)
            found[skill].append(Row(skill, question[0].upper() + question[1:], answer, (name,)))
    want = quota(split)
    out: list[Row] = []
    for skill in ("colour", "shape"):
        out += pick_some(rng, found[skill], want[skill]) if split == "eval" else found[skill][: want[skill]]
    for skill in ("presence", "negation"):
        out += _balanced(rng, found[skill], want[skill])
    return out


def _skill(question: str, answer: str) -> str:
    if answer in COLOURS:
        return "colour"
    if answer in SHAPES:
        return "shape"
    words = question.rstrip("?").split()
    return "negation" if "not" in words or "no" in words else "presence"


def _balanced(rng: np.random.Generator, candidates: list[Row], n: int) -> list[Row]:
    """Return `n` rows in which every question text has as many `yes` as `no`."""
    texts: dict[str, dict[str, list[Row]]] = defaultdict(lambda: {"yes": [], "no": []})
    for row in candidates:
        texts[row.question][row.answer].append(row)
    pairs = [pair for text in sorted(texts) for pair in zip(texts[text]["yes"], texts[text]["no"], strict=False)]
    return [row for pair in pick_some(rng, pairs, n // 2) for row in pair]
