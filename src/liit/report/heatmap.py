"""The accuracy matrix as table cells with colours that everybody can tell apart."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from liit.report.model import Run

_LEVELS = 21
# Lightness alone carries the value and the hue stays blue, so no colour blindness changes the order.
_LIGHT = ("#f3f6f9", "#d6e6f4", "#abd0e6", "#6aaed6", "#3787c0", "#105ba4", "#08306b")
_DARK = ("#161d26", "#18304a", "#1c4a75", "#2569a3", "#4591cb", "#86bfe8", "#dff0ff")


@dataclass(frozen=True)
class Cell:
    """One entry of the matrix.

    Attributes:
        text: two decimals, or a dash when not evaluated.
        css: class that sets colour and marks.
        title: the whole fact in words.
    """

    text: str
    css: str
    title: str


@dataclass(frozen=True)
class HeatMap:
    """A matrix ready to draw: groups of columns (step name, width), column heads, and rows of cells."""

    groups: list[tuple[str, int]]
    skills: list[str]
    rows: list[tuple[str, list[Cell]]]


def heat_map(run: Run) -> HeatMap:
    """Rows are the base model and the steps, columns the skills, grouped by the step that introduces them."""
    outline = run.continuum
    unseen_last = [int(step) or len(outline.steps) + 1 for step in outline.introduced]
    order = sorted(range(len(outline.skills)), key=lambda i: unseen_last[i])
    names = ["base", *outline.steps]
    groups = [
        (names[int(step)] if step else "never taught", len(list(members)))
        for step, members in groupby(int(outline.introduced[i]) for i in order)
    ]
    skills = [outline.skills[i] for i in order]
    rows = [
        (
            "base" if t == 0 else f"{t} {outline.steps[t - 1]}",
            [_cell(float(run.scores[t, i]), t, int(outline.introduced[i]), outline.skills[i], names) for i in order],
        )
        for t in range(len(names))
    ]
    return HeatMap(groups, skills, rows)


def _cell(value: float, t: int, introduced: int, skill: str, names: Sequence[str]) -> Cell:
    when = "base model" if t == 0 else f"after step {t} ({names[t]})"
    own = introduced == t and t > 0
    before = introduced == 0 or t < introduced
    css = [*(["own"] if own else []), *(["before"] if before else [])]
    if math.isnan(value):
        return Cell("·", " ".join([*css, "none"]), f"{skill}, {when}: not evaluated")
    note = (
        ", its own step" if own else ", not taught yet" if before and introduced else ", never taught" if before else ""
    )
    return Cell(
        f"{value:.2f}".removeprefix("0") if value < 1 else "1.0",
        " ".join([*css, f"q{level(value)}"]),
        f"{skill}, {when}{note}: {value:.3f}",
    )


def level(value: float) -> int:
    """Which of the colour levels a value between 0 and 1 gets."""
    return round(min(max(value, 0.0), 1.0) * (_LEVELS - 1))


def heat_css() -> str:
    """Style rules of all levels for the light and the dark scheme, each with the text colour that reads better."""
    return f"{_rules(_LIGHT)}\n@media (prefers-color-scheme: dark) {{\n{_rules(_DARK)}\n}}"


def text_colour(background: str) -> str:
    """Black or white, whichever has the higher WCAG contrast on this background (#rrggbb)."""
    luminance = _luminance(background)
    return "#000" if (luminance + 0.05) / 0.05 >= 1.05 / (luminance + 0.05) else "#fff"


def contrast(background: str) -> float:
    """WCAG contrast of a background with its text colour, between 1 and 21."""
    luminance = _luminance(background)
    return max((luminance + 0.05) / 0.05, 1.05 / (luminance + 0.05))


def ramp(anchors: Sequence[str]) -> list[str]:
    """The colour of every level, linear between anchors."""
    colours = []
    for i in range(_LEVELS):
        position = i / (_LEVELS - 1) * (len(anchors) - 1)
        left = min(int(position), len(anchors) - 2)
        mixed = (
            round(a + (b - a) * (position - left))
            for a, b in zip(_channels(anchors[left]), _channels(anchors[left + 1]), strict=True)
        )
        colours.append("#" + "".join(f"{channel:02x}" for channel in mixed))
    return colours


def schemes() -> tuple[list[str], list[str]]:
    """The levels' colours in the light and in the dark scheme."""
    return ramp(_LIGHT), ramp(_DARK)


def _rules(anchors: Sequence[str]) -> str:
    return "\n".join(
        f".q{i} {{ background-color: {colour}; color: {text_colour(colour)}; }}"
        for i, colour in enumerate(ramp(anchors))
    )


def _channels(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def _luminance(colour: str) -> float:
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (v / 255 for v in _channels(colour))]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
