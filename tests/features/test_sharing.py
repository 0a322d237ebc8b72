"""Rows of one image share the lower layers of the pass with images; matrix products in bfloat16."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from test_packing import conversations
from tiny_vlm import mixed_samples

from liit.config import FeatureSettings
from liit.features import FEATURES, engine, extract
from liit.features.engine import Extractor, Twin
from liit.model.chat import ChatEncoder
from liit.model.vlm import VLM

SETTINGS = FeatureSettings(dim=64, dtype="float32", batch_tokens=2000)
SHARED = SETTINGS.model_copy(update={"share_images": True})
PLAIN = tuple(name for name in FEATURES if name != "instructed_vision")


def encoded(vlm: VLM) -> list[Twin]:
    encoder = ChatEncoder(vlm)
    return [Twin(encoder.encode(s), encoder.encode(s, images=False) if s.images else None) for s in conversations()]


def same(got: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    for name, values in expected.items():
        size = np.nanmax(np.abs(values))
        np.testing.assert_allclose(got[name], values, rtol=1e-4, atol=1e-4 * size, err_msg=name)


def close(got: dict[str, np.ndarray], exact: dict[str, np.ndarray]) -> None:
    np.testing.assert_allclose(got["log_perplexity"], exact["log_perplexity"], rtol=0.05)
    one, other = got["gradient"], exact["gradient"]
    known = ~np.isnan(other).any(1)
    cosines = (one * other).sum(1)[known] / np.linalg.norm(one, axis=1)[known] / np.linalg.norm(other, axis=1)[known]
    assert cosines.min() > 0.8


@pytest.mark.parametrize("batch_tokens", [150, 10**5])
@pytest.mark.parametrize("names", [PLAIN, ("log_perplexity",), ("embedding",)])
def test_features_are_those_of_rows_that_share_nothing(
    adapted: VLM, names: Sequence[str], batch_tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = encoded(adapted)
    expected = Extractor(adapted, names, SETTINGS)(rows)
    monkeypatch.setattr(engine, "ATTENTION_SHARE", 100.0)  # the model is so narrow that long packs are not worth it
    extractor = Extractor(adapted, names, SHARED.model_copy(update={"batch_tokens": batch_tokens}))
    assert extractor.fork > 0
    same(extractor(rows), expected)
    if batch_tokens > 1000:
        assert extractor.report.tokens < 0.7 * sum(len(twin.row) for twin in rows)
        assert not extractor.report.notes


@pytest.mark.parametrize("layers", [0, 1, -1, "all", (1, 2)])
def test_gradients_of_any_layers_are_the_same(adapted: VLM, layers: object) -> None:
    rows = encoded(adapted)
    plain, shared = (one.model_copy(update={"layers": layers}) for one in (SETTINGS, SHARED))
    names = ("gradient", "grad_norm", "embedding")
    extractor = Extractor(adapted, names, shared)
    lowest = extractor.plan.gradient_layers[0]
    assert extractor.fork == min(lowest, extractor.plan.n_layers - 1)
    assert bool(extractor.report.notes) == (lowest == 0)  # nothing lies below the lowest layer, and that is said
    same(extractor(rows), Extractor(adapted, names, plain)(rows))


def test_block_ones_attention_is_looked_at_row_by_row(adapted: VLM) -> None:
    extractor = Extractor(adapted, ("instructed_vision", "log_perplexity"), SHARED)
    assert extractor.fork == 0
    assert "share_images" in extractor.report.notes[0]


def test_pack_that_does_not_fit_into_memory_is_taken_apart(adapted: VLM, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = encoded(adapted)
    expected = Extractor(adapted, ("gradient", "log_perplexity"), SETTINGS)(rows)
    extractor = Extractor(adapted, ("gradient", "log_perplexity"), SHARED)
    longest = max(len(twin.row) for twin in rows)
    real = extractor.passes.run

    def run(batch: dict[str, torch.Tensor], *args: object) -> object:
        if batch["input_ids"].numel() > longest:
            raise MemoryError
        return real(batch, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(extractor.passes, "run", run)
    same(extractor(rows), expected)
    assert extractor.report.out_of_memory > 0


def test_products_in_bfloat16_change_little_and_something(adapted: VLM) -> None:
    rows = encoded(adapted)
    exact = Extractor(adapted, PLAIN, SETTINGS)(rows)
    rough = Extractor(adapted, PLAIN, SETTINGS.model_copy(update={"autocast": "bfloat16"}))(rows)
    close(rough, exact)
    assert np.nanmax(np.abs(rough["log_perplexity"] - exact["log_perplexity"])) > 1e-5
    both = Extractor(adapted, PLAIN, SHARED.model_copy(update={"autocast": "bfloat16"}))
    assert both.fork > 0
    close(both(rows), exact)


@pytest.mark.parametrize("change", [{"share_images": True}, {"autocast": "bfloat16"}])
def test_such_features_are_not_mixed_with_others(adapted: VLM, tmp_path: object, change: dict[str, object]) -> None:
    names = ["log_perplexity", "n_tokens"]
    store = extract(adapted, mixed_samples(), names, f"{tmp_path}/a", SETTINGS)
    assert store.report.scored == len(mixed_samples())
    if "autocast" in change:
        with pytest.raises(ValueError, match="autocast of log_perplexity"):
            extract(adapted, mixed_samples(), names, f"{tmp_path}/a", SETTINGS.model_copy(update=change))
    else:  # exact up to rounding
        again = extract(adapted, mixed_samples(), names, f"{tmp_path}/a", SETTINGS.model_copy(update=change))
        assert again.report.scored == 0
