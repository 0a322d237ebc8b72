"""The built-in base model: whole, a real start, and its image grounding means what it says."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from liit.config import FeatureSettings
from liit.data.sample import ImageRef, Message, Sample
from liit.demo.continuum.concepts import BASE_CONCEPTS, members
from liit.demo.continuum.drawing import BACKGROUNDS
from liit.demo.continuum.pictures import single
from liit.demo.vlm import base_directory
from liit.evaluation.generate import generate_answers
from liit.features.extraction import Extractor, Twin
from liit.model.chat import ChatEncoder
from liit.model.vision import Pixels
from liit.model.vlm import VLM, load_vlm

MEGABYTES_SHIPPED = 15


@pytest.fixture
def base() -> VLM:
    import torch

    torch.set_num_threads(1)
    return load_vlm("builtin:demo", max_length=512)


def drawings(n: int, seed: int) -> list[tuple[str, str, ImageRef]]:
    """Concept, background colour and new drawing of base concepts."""
    rng = np.random.default_rng([seed, 2**31])
    out = []
    for _ in range(n):
        concept, colour = str(rng.choice(sorted(members(BASE_CONCEPTS)))), str(rng.choice(sorted(BACKGROUNDS)))
        stream = io.BytesIO()
        single(rng, concept, colour).save(stream, "PNG")
        data = stream.getvalue()
        out.append((concept, colour, ImageRef(concept, hashlib.sha256(data).hexdigest(), data)))
    return out


def row(id: str, question: str, answer: str, image: ImageRef | None) -> Sample:
    tag = "" if image is None else "<image>\n"
    images = () if image is None else (image,)
    return Sample(id, (Message("user", tag + question), Message("assistant", answer)), images)


def needing(n: int, seed: int) -> list[Sample]:
    """Rows that nobody can answer without the picture: a colour and a name in turn."""
    rows: list[Sample] = []
    for i, (concept, colour, image) in enumerate(drawings(n, seed)):
        rows += [row(f"c{i}", "Background?", colour, image), row(f"n{i}", "Object?", concept, image)]
    return rows


def readable(n: int, seed: int) -> list[Sample]:
    """Rows with a picture whose answer is in the question."""
    words = np.random.default_rng([seed, 7]).choice(sorted(members(BASE_CONCEPTS)), n)
    shown = drawings(n, seed + 1)
    return [row(f"r{i}", f"Repeat: {words[i]}", str(words[i]), image) for i, (_, _, image) in enumerate(shown)]


def grounding(vlm: VLM, samples: Sequence[Sample]) -> np.ndarray:
    encoder = ChatEncoder(vlm)
    twins = [Twin(encoder.encode(s), encoder.encode(s, images=False) if s.images else None) for s in samples]
    return Extractor(vlm, ["image_grounding"], FeatureSettings())(twins)["image_grounding"]


def geometric_mean(values: np.ndarray) -> float:
    return float(np.exp(np.log(values).mean()))


def test_shipped_weights_are_whole_half_precision_and_small_enough() -> None:
    from safetensors import safe_open

    directory = base_directory()
    assert sum(file.stat().st_size for file in directory.iterdir()) < MEGABYTES_SHIPPED * 2**20
    assert {file.suffix for file in directory.iterdir()} <= {".json", ".jinja", ".safetensors"}
    with safe_open(directory / "model.safetensors", "pt") as weights:
        assert {weights.get_slice(name).get_dtype() for name in weights.keys()} == {"F16"}  # noqa: SIM118


def test_base_names_backgrounds_and_base_concepts_in_new_drawings(base: VLM) -> None:
    asked = needing(30, seed=3)
    answers = generate_answers(base, asked, vision=Pixels(base), max_new_tokens=8)
    right = np.array([a == s.messages[-1].text for a, s in zip(answers, asked, strict=True)])
    assert right[0::2].mean() > 0.6
    assert right[1::2].mean() > 0.6


def test_rows_whose_answer_needs_the_image_are_grounded_in_it(base: VLM) -> None:
    """With the right picture: far above 1. With another row's picture: below 1, for the picture then misleads."""
    asked = needing(30, seed=4)
    right = grounding(base, asked)
    assert right.mean() > 3
    assert np.median(right) > 2
    misled = [replace(s, images=asked[i - 7].images) for i, s in enumerate(asked)]
    assert np.median(grounding(base, misled)) < 1
    assert np.isnan(grounding(base, [row("t", "Repeat: cat", "cat", None)])).all()


def test_grounding_is_about_one_where_the_question_holds_the_answer(base: VLM) -> None:
    assert geometric_mean(grounding(base, needing(60, 7))) > 3
    assert 2 / 3 < geometric_mean(grounding(base, readable(60, 8))) < 3 / 2
