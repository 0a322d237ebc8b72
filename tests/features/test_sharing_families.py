"""`share_images` on every family: the features of rows that share nothing, or a note that there is nothing to share."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from families import FAMILIES, save_family
from test_packing import conversations
from tiny_vlm import randomise_lora

from liit.config import FeatureSettings
from liit.features import engine
from liit.features.engine import Extractor, Twin
from liit.model.chat import ChatEncoder
from liit.model.lora import attach_lora
from liit.model.vlm import load_vlm

NAMES = ("log_perplexity", "gradient", "embedding")
OWN_POSITIONS = {"gemma3", "qwen2.5-vl", "qwen3-vl"}  # positions or masks that the images have a part in
FAST = {"llava-onevision", "qwen2.5-vl"}


@pytest.mark.parametrize("name", [n if n in FAST else pytest.param(n, marks=pytest.mark.slow) for n in FAMILIES])
def test_sharing_changes_no_feature(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vlm = load_vlm(str(save_family(name, tmp_path / name)))
    attach_lora(vlm, r=2, alpha=4)
    randomise_lora(vlm)
    encoder = ChatEncoder(vlm)
    rows = [Twin(encoder.encode(replace(sample, id=f"r{n}")), None) for n, sample in enumerate(conversations())]
    monkeypatch.setattr(engine, "ATTENTION_SHARE", 100.0)  # the model is so narrow that long packs are not worth it
    settings = FeatureSettings(dim=64, dtype="float32", batch_tokens=20_000)
    expected = Extractor(vlm, NAMES, settings)(rows)
    extractor = Extractor(vlm, NAMES, settings.model_copy(update={"share_images": True}))
    assert bool(extractor.fork) != (name in OWN_POSITIONS)
    assert bool(extractor.report.notes) == (name in OWN_POSITIONS)
    got = extractor(rows)
    for column, values in expected.items():
        size = float(np.nanmax(np.abs(values)))
        np.testing.assert_allclose(got[column], values, rtol=1e-4, atol=1e-4 * size, err_msg=column)
    if extractor.fork:
        assert extractor.report.tokens < 0.8 * sum(len(twin.row) for twin in rows)
