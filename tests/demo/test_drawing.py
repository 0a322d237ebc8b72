from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from liit.demo.continuum import concepts, drawing
from liit.demo.continuum.grounding import grid_box
from liit.demo.continuum.rows import cycle, pick_some, spread


def test_every_concept_has_its_own_drawing_by_both_vendors():
    names = [*concepts.members(concepts.CONCEPTS), *concepts.members(concepts.BASE_CONCEPTS)]
    assert len(names) == len(set(names))
    for glyph in (drawing.colour_glyph, drawing.outline_mask):
        drawn = {(glyph(name).size, glyph(name).tobytes()) for name in names}
        assert len(drawn) == len(names)  # a missing glyph would be the same box each time


def test_every_flag_is_its_own_and_not_the_two_letters():
    codes = [country.code for country in concepts.countries()]
    assert len({drawing.flag_glyph(code).tobytes() for code in codes}) == len(codes)
    white, red = ((255, 255, 255), (210, 47, 39))
    japan = np.asarray(drawing.flag_glyph("JP").convert("RGB"))
    middle = japan[japan.shape[0] // 2, japan.shape[1] // 2]
    assert np.abs(middle - np.array(red)).max() < 30
    assert np.abs(japan[japan.shape[0] // 4, japan.shape[1] // 6] - np.array(white)).max() < 30


def test_the_box_of_a_pasted_glyph_is_where_its_pixels_are():
    rng = np.random.default_rng(0)
    for _ in range(20):
        canvas = Image.new("RGB", (drawing.SIZE, drawing.SIZE), (255, 0, 255))
        box = drawing.paste_anywhere(rng, canvas, drawing.colour_glyph("elephant"), 40, 100)
        changed = np.argwhere((np.asarray(canvas) != (255, 0, 255)).any(axis=2))
        top, left = changed.min(axis=0)
        bottom, right = changed.max(axis=0) + 1
        assert np.abs(np.array(box) - (left, top, right, bottom)).max() <= 1


def test_grid_boxes_have_an_area_and_stay_below_10():
    assert grid_box(drawing.Box(0, 0, 128, 128)) == [0, 0, 9, 9]
    assert grid_box(drawing.Box(32, 64, 64, 96)) == [2, 5, 5, 8]


def test_outlines_and_texts_stand_out_from_every_background():
    rng = np.random.default_rng(1)
    for colour in drawing.BACKGROUNDS:
        for _ in range(10):
            canvas = drawing.background(rng, colour)
            ink = drawing.tinted(rng, "cat", canvas).getpixel((0, 0))[:3]
            assert abs(float((np.asarray(canvas).mean(axis=(0, 1)) - ink) @ drawing.LUMA)) > 90


def test_names_in_other_languages():
    assert [concepts.name_in(language, "cat") for language in concepts.LANGUAGES] == [
        "gato",
        "chat",
        "Katze",
        "gatto",
        "ネコ",
    ]
    for concept in concepts.MULTILINGUAL:
        assert all(" " not in concepts.name_in(language, concept) for language in ("es", "fr", "de", "it"))


def test_facts_about_countries():
    facts = {country.name: (country.code, country.capital, country.continent) for country in concepts.countries()}
    assert len(facts) == 24
    assert facts["Brazil"] == ("BR", "Brasília", "America")
    assert facts["Kenya"] == ("KE", "Nairobi", "Africa")


@pytest.mark.parametrize(("concept", "phrase"), [("cat", "a cat"), ("owl", "an owl"), ("socks", "socks")])
def test_articles(concept, phrase):
    assert concepts.phrase(concept) == phrase


def test_word_lists_are_disjoint_and_without_repeats():
    words = [*concepts.WORDS, *concepts.BASE_WORDS]
    assert len(words) == len(set(words))
    assert set(concepts.GROUNDING_KINDS) <= set(concepts.members(concepts.CONCEPTS))


def test_sampling_helpers_are_even():
    rng = np.random.default_rng(0)
    assert spread(7, 3) == [3, 2, 2]
    counts = {item: cycle(rng, "abc", 8).count(item) for item in "abc"}
    assert sorted(cycle(rng, "abc", 3)) == ["a", "b", "c"]
    assert set(counts.values()) <= {2, 3, 4}
    with pytest.raises(ValueError, match="wanted 4 different items of 3"):
        pick_some(rng, "abc", 4)
