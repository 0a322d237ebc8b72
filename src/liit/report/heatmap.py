"""The accuracy matrix as table cells with colours that everybody can tell apart."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from liit.report.model import Run

_LEVELS = 21
# Lightness alone carries the value and the hue stays blue, so no colour blindness changes the order.
_LIGHT = ("#f3f6f9", "#dbe9f6", "#b7d4ea", "#8fc1e2", "#5fa5d4", "#1764ab", "#08306b")
_DARK = ("#161d26", "#18304a", "#1b4268", "#22578a", "#5ba3da", "#98caf0", "#dff0ff")


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
class Group:
    """Columns of the skills that one step introduces; a group too narrow for the step's name shows its number."""

    name: str
    title: str
    width: int


@dataclass(frozen=True)
class HeatMap:
    """A matrix ready to draw: groups of columns, column heads, and per row its name, cells and their mean."""

    groups: list[Group]
    skills: list[str]
    rows: list[tuple[str, list[Cell], Cell]]


def heat_map(run: Run) -> HeatMap:
    """Rows are the base model and the steps, columns the skills, grouped by the step that introduces them."""
    outline = run.continuum
    unseen_last = [int(step) or len(outline.steps) + 1 for step in outline.introduced]
    order = sorted(range(len(outline.skills)), key=lambda i: unseen_last[i])
    names = ["base", *outline.steps]
    groups = [
        _group(step, names, len(list(members))) for step, members in groupby(int(outline.introduced[i]) for i in order)
    ]
    rows = []
    for t, name in enumerate(names):
        cells = [_cell(float(run.scores[t, i]), t, int(outline.introduced[i]), outline.skills[i], names) for i in order]
        rows.append((name if t == 0 else f"{t} {name}", cells, _mean(run, t, names)))
    return HeatMap(groups, [outline.skills[i] for i in order], rows)


def _group(step: int, names: Sequence[str], width: int) -> Group:
    if step == 0:
        return Group("–" if width < 3 else "never taught", "never taught", width)
    title = f"introduced by step {step} ({names[step]})"
    return Group(f"{step} {names[step]}" if width > 2 else str(step), title, width)


def _cell(value: float, t: int, introduced: int, skill: str, names: Sequence[str]) -> Cell:
    css, note = "", ""
    if introduced == 0 or t < introduced:
        css, note = "before ", ", never taught" if introduced == 0 else ", not taught yet"
    elif t == introduced:
        css, note = "own ", ", its own step"
    return _filled(value, css, f"{skill}, {_when(t, names)}{note}")


def _mean(run: Run, t: int, names: Sequence[str]) -> Cell:
    taught = run.scores[t, run.continuum.introduced > 0]
    return _filled(float(taught.mean()) if len(taught) else math.nan, "", f"mean over skills, {_when(t, names)}")


def _when(t: int, names: Sequence[str]) -> str:
    return "base model" if t == 0 else f"after step {t} ({names[t]})"


def _filled(value: float, css: str, title: str) -> Cell:
    if math.isnan(value):
        return Cell("·", f"{css}none", f"{title}: not evaluated")
    text = f"{value:.2f}"
    return Cell(text.removeprefix("0") if value < 0.995 else text[:3], f"{css}q{level(value)}", f"{title}: {value:.3f}")


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
