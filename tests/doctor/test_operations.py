"""Predicted operations beside those that torch counts while the passes run, setting by setting."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from tiny_vlm import mixed_samples, talk
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from liit.config import FeatureSettings, LoraSettings
from liit.data.sample import Sample
from liit.doctor.prediction import Prediction, predict_extraction
from liit.doctor.shape import shape_of
from liit.doctor.workload import look_at
from liit.features.extraction import Extractor, Twin
from liit.features.report import ExtractionReport
from liit.model.chat import ChatEncoder
from liit.model.vision import VisionCache
from liit.model.vlm import VLM

TOLERANCE = 1.1
EVERYTHING = ("gradient", "embedding", "log_perplexity", "el2n", "entropy", "image_grounding", "grad_norm")
SETTINGS = FeatureSettings(batch_tokens=400, dim=64)
QUESTIONS = ("What is it?", "Which is red?", "And its colour?", "Where is the box?", "Is it a dog?")


def rows() -> list[Sample]:
    """Rows of every shape, and pictures that several rows ask about."""
    asked = [
        talk(f"{picture}-{i}", f"<image>\n{question}", ("a cat", "brown and white")[i % 2], images=[picture])
        for picture in range(4)
        for i, question in enumerate(QUESTIONS)
    ]
    return [*asked, *mixed_samples()]


def predicted_and_made(
    vlm: VLM, names: Sequence[str], changes: dict[str, Any], folder: Path
) -> tuple[Prediction, ExtractionReport, int]:
    """What is predicted, what the extraction reports, and the operations of decoder and head that torch counted."""
    settings, samples, encoder = SETTINGS.model_copy(update=changes), rows(), ChatEncoder(vlm)
    vision = VisionCache(vlm, folder)
    vision.fill_rows([sample.images for sample in samples if sample.images])
    extractor = Extractor(vlm, names, settings, vision)
    twins = []
    for sample in samples:
        row = encoder.encode(sample)
        blind = row if settings.blind == "zeros" else encoder.encode(sample, images=False)
        twins.append(Twin(row, blind if sample.images else None))
    counter = FlopCounterMode(display=False)  # it knows no operations of the CPU's fused attention
    with sdpa_kernel(SDPBackend.MATH), counter:
        extractor(twins)
    operations = {name: sum(counts.values()) for name, counts in counter.get_flop_counts().items()}
    pictures = sum(operations.get(f"LlavaModel.{part}", 0) for part in ("vision_tower", "multi_modal_projector"))
    shares = extractor.blind is not None and extractor.blind.share
    work = look_at(encoder, samples, share=shares, share_images=extractor.fork > 0)
    prediction = predict_extraction(shape_of(vlm, LoraSettings()), work, names, settings)
    return prediction, extractor.report, operations["Global"] - pictures


@pytest.mark.parametrize(
    ("names", "changes"),
    [
        (EVERYTHING, {}),
        (EVERYTHING, {"share_beginnings": False}),
        (EVERYTHING, {"blind": "zeros"}),
        (EVERYTHING, {"blind": "zeros", "share_beginnings": False}),
        (EVERYTHING, {"layers": -1}),
        (EVERYTHING, {"layers": "all"}),
        (EVERYTHING, {"share_images": True}),
        (EVERYTHING, {"share_images": True, "layers": -1}),
        (EVERYTHING, {"autocast": "bfloat16"}),
        (("embedding",), {}),
        (("embedding",), {"share_images": True}),
        (("log_perplexity",), {"share_images": True}),
        (("blind_log_perplexity",), {}),
    ],
)
def test_operations_are_those_that_torch_counts_within_the_tolerance(
    adapted: VLM, tmp_path: Path, names: tuple[str, ...], changes: dict[str, Any]
) -> None:
    prediction, made, counted = predicted_and_made(adapted, names, changes, tmp_path / "vision")
    assert 1 / TOLERANCE < prediction.flops / counted < TOLERANCE
    assert (prediction.image_calls, prediction.blind_calls) == (made.image_calls, made.blind_calls)
    assert (prediction.tokens, prediction.blind_tokens) == (made.tokens, made.blind_tokens)
    assert prediction.padded_tokens == made.padded_tokens


def test_rows_of_one_image_take_fewer_operations_when_they_share_it(adapted: VLM, tmp_path: Path) -> None:
    apart = predicted_and_made(adapted, ("log_perplexity",), {}, tmp_path / "vision")
    shared = predicted_and_made(adapted, ("log_perplexity",), {"share_images": True}, tmp_path / "vision")
    saved = shared[0].flops / apart[0].flops
    assert saved < 0.95
    assert saved == pytest.approx(shared[2] / apart[2], rel=0.05)
    assert shared[0].tokens < apart[0].tokens
