"""Scoring on a GPU, as far as it shows without one: tensors are where they have to be, numbers are the CPU's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from families import FAMILIES, save_family
from pretend_card import CARD, Card, NotOnTheCardError, OnCard, put_on_card
from test_extraction import same, twins
from test_packing import conversations
from tiny_vlm import mixed_samples, randomise_lora

from liit.config import FeatureSettings
from liit.features import FEATURES, engine, extract
from liit.features.engine import Extractor
from liit.features.settings import batch_tokens
from liit.model.lora import attach_lora
from liit.model.vision import VisionCache
from liit.model.vlm import VLM, load_vlm

PLAIN = FeatureSettings(dim=64, dtype="float32", batch_tokens=500)
SHARED_IMAGES = tuple(name for name in FEATURES if name != "instructed_vision")


NAMES = ("log_perplexity", "image_grounding", "embedding", "gradient")
FAST = {"qwen2.5-vl", "smolvlm"}


def on_card(vlm: VLM) -> VLM:
    put_on_card(vlm.model)
    assert vlm.device == CARD
    return vlm


@pytest.mark.parametrize(
    ("features", "changes"),
    [
        (FEATURES, {}),
        (FEATURES, {"blind": "zeros", "layers": "all"}),
        (FEATURES, {"share_beginnings": False, "sketch": "rademacher"}),
        (FEATURES, {"gradient_of": "weights", "layers": (1, 3), "factor_width": 8}),
        (SHARED_IMAGES, {"share_images": True, "layers": -1}),
    ],
)
def test_features_on_a_card_are_those_of_the_cpu(
    load_tiny: Callable[..., VLM],
    features: tuple[str, ...],
    changes: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(engine, "ATTENTION_SHARE", 100.0)  # the model is so narrow that long packs are not worth it
    settings = PLAIN.model_copy(update=changes)
    vlm = load_tiny(lora=True)
    there = Extractor(vlm, features, settings)
    expected = there(twins(vlm, conversations()))
    with Card():
        moved = on_card(load_tiny(lora=True))
        here = Extractor(moved, features, settings)
        got = here(twins(moved, conversations()))
    same(got, expected)
    # What does not work is not done, and then more is: sharing, the last layer at few positions.
    assert here.report == there.report


@pytest.mark.parametrize("name", [n if n in FAST else pytest.param(n, marks=pytest.mark.slow) for n in FAMILIES])
def test_every_family_scores_on_a_card(name: str, tmp_path: Path) -> None:
    save_family(name, tmp_path / name)

    def load() -> VLM:
        vlm = load_vlm(str(tmp_path / name))
        attach_lora(vlm, r=2, alpha=4)
        randomise_lora(vlm)
        return vlm

    # Autograd's rule for the layers that Qwen3-VL adds images to makes zeros where the pretended card's numbers lie.
    names = NAMES[:-1] if name == "qwen3-vl" else NAMES
    vlm = load()
    there = Extractor(vlm, names, PLAIN)
    expected = there(twins(vlm, conversations()[::3]))
    with Card():
        moved = on_card(load())
        here = Extractor(moved, names, PLAIN)
        got = here(twins(moved, conversations()[::3]))
    same(got, expected)
    assert here.report == there.report


def test_a_store_with_kept_vision_features_is_that_of_the_cpu(load_tiny: Callable[..., VLM], tmp_path: Path) -> None:
    def features(vlm: VLM, name: str) -> dict[str, np.ndarray]:
        kept = VisionCache(vlm, tmp_path / f"{name}-vision")
        store = extract(vlm, mixed_samples(), FEATURES, tmp_path / name, PLAIN, vision=kept)
        return store.view([sample.id for sample in mixed_samples()])

    expected = features(load_tiny(lora=True), "cpu")
    with Card():
        got = features(on_card(load_tiny(lora=True)), "card")
    same({name: got[name] for name in FEATURES}, {name: expected[name] for name in FEATURES})


def test_a_batch_holds_more_on_a_card_unless_a_number_is_set() -> None:
    assert batch_tokens(FeatureSettings(), "cpu") == 1024
    assert batch_tokens(FeatureSettings(), CARD) == 8192
    assert batch_tokens(FeatureSettings(batch_tokens=77), CARD) == 77


def test_the_pretended_card_refuses_what_a_card_refuses() -> None:
    with Card():
        here, there = torch.arange(6.0), torch.arange(6.0, device=CARD)
        assert isinstance(there, OnCard)
        assert there.device == CARD
        for work in (lambda: here + there, lambda: torch.cat([there, here]), lambda: here[there.long()]):
            with pytest.raises(NotOnTheCardError):
                work()
        for reach in (there.numpy, lambda: np.asarray(there)):
            with pytest.raises(TypeError, match="numpy"):
                reach()
        assert (there + here.to(CARD) * 2 + torch.tensor(1.0)).cpu().tolist() == [1, 4, 7, 10, 13, 16]
        assert there[torch.tensor([1, 2])].tolist() == [1, 2]  # indices may come from main memory
        leaf = torch.ones(3, device=CARD, requires_grad=True)
        (leaf * 3).sum().backward()
        assert isinstance(leaf.grad, OnCard)
        assert float(leaf.grad.sum()) == 9
