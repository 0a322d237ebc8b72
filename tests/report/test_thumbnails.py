from __future__ import annotations

import base64
import hashlib
import io

from PIL import Image

from liit.data.sample import ImageRef, Message, Sample
from liit.report.thumbnails import SIDE, Gallery, shortened


def image(size: tuple[int, int] = (400, 200)) -> ImageRef:
    out = io.BytesIO()
    Image.new("RGB", size, "teal").save(out, format="PNG")
    return ImageRef("", hashlib.sha256(out.getvalue()).hexdigest(), out.getvalue())


def sample(*images: ImageRef, text: str = "<image>What?") -> Sample:
    return Sample("s1", (Message("user", text), Message("assistant", "It.")), images=images)


def test_a_picture_is_small_and_keeps_its_shape() -> None:
    uri = Gallery(100_000).card(sample(image())).pictures[0]
    picture = Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1])))
    assert picture.size == (SIDE, SIDE // 2)


def test_budget_is_never_passed_and_what_is_left_out_is_counted() -> None:
    gallery = Gallery(10)
    card = gallery.card(sample(image()))
    assert (card.pictures, gallery.left_out, gallery.budget) == ([], 1, 10)
    assert "left out" in card.pictures_missing


def test_a_lost_picture_is_said_and_counted() -> None:
    gallery = Gallery(100_000)
    card = gallery.card(sample(ImageRef("/nowhere/x.png", "0" * 64)))
    assert (card.pictures, gallery.broken) == ([], 1)
    assert "not readable" in card.pictures_missing


def test_more_than_two_pictures_are_counted_not_dropped() -> None:
    assert Gallery(100_000).card(sample(image(), image(), image())).pictures_missing == "1 more pictures"


def test_long_and_impossible_text_is_cut_and_repaired() -> None:
    card = Gallery(0).card(sample(text="<image>\n" + "word " * 200 + "\ud800"))
    assert card.question.startswith("word")
    assert card.question.endswith("…")
    assert shortened("a\ud800b") == "a?b"
