"""One-pass extraction equals one row at a time, however rows are batched, ordered, padded or sharded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from reference import row_statistics
from tiny_vlm import mixed_samples, talk

from liit.config import FeatureSettings
from liit.data.pool import Pool
from liit.data.sample import Message, Sample
from liit.errors import InputError
from liit.features import FEATURES, extract, extraction
from liit.features import inputs as feature_inputs
from liit.features.extraction import Extractor, Twin
from liit.model import batch as batches
from liit.model.batch import bucket_by_length, collate
from liit.model.chat import ChatEncoder, Encoded
from liit.model.vision import Pixels, VisionCache
from liit.model.vlm import VLM

SETTINGS = FeatureSettings(dim=64, dtype="float32", batch_tokens=500)


def twins(vlm: VLM, samples: Sequence[Sample]) -> list[Twin]:
    encoder = ChatEncoder(vlm)
    return [Twin(encoder.encode(s), encoder.encode(s, images=False) if s.images else None) for s in samples]


def same(got: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert set(got) == set(expected)
    for name, values in expected.items():
        size = np.nanmax(np.abs(values))
        np.testing.assert_allclose(got[name], values, rtol=1e-4, atol=1e-4 * size, err_msg=name)


@pytest.fixture
def whole(adapted: VLM) -> dict[str, np.ndarray]:
    """All features of the mixed rows."""
    return Extractor(adapted, FEATURES, SETTINGS)(twins(adapted, mixed_samples()))


def test_scalars_equal_one_full_pass_per_row_over_all_positions(adapted: VLM, whole: dict[str, np.ndarray]) -> None:
    encoder = ChatEncoder(adapted)
    for i, sample in enumerate(mixed_samples()):
        expected = row_statistics(adapted, encoder.encode(sample))
        for name, value in expected.items():
            np.testing.assert_allclose(whole[name][i], value, rtol=1e-4, err_msg=f"{sample.id} {name}")


def test_losses_with_padding_equal_losses_without(adapted: VLM) -> None:
    rows = [twin.row for twin in twins(adapted, mixed_samples())]
    model = Extractor(adapted, ["log_perplexity"], SETTINGS.model_copy(update={"batch_tokens": 10**6}))
    together = model([Twin(row, None) for row in rows])["log_perplexity"]
    assert model.model_calls == 1
    assert len({len(row) for row in rows}) > 4
    alone = [float(model([Twin(row, None)])["log_perplexity"][0]) for row in rows]
    np.testing.assert_allclose(together, alone, rtol=1e-5)


@pytest.mark.parametrize("batch_tokens", [1, 90, 10**6])
def test_features_do_not_depend_on_the_token_budget(
    adapted: VLM, whole: dict[str, np.ndarray], batch_tokens: int
) -> None:
    settings = SETTINGS.model_copy(update={"batch_tokens": batch_tokens})
    same(Extractor(adapted, FEATURES, settings)(twins(adapted, mixed_samples())), whole)


def test_features_do_not_depend_on_the_order_of_rows(adapted: VLM, whole: dict[str, np.ndarray]) -> None:
    order = np.random.default_rng(0).permutation(len(mixed_samples()))
    got = Extractor(adapted, FEATURES, SETTINGS)(twins(adapted, [mixed_samples()[i] for i in order]))
    same(got, {name: values[order] for name, values in whole.items()})


def test_features_do_not_depend_on_the_padding_side(
    adapted: VLM, whole: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    def left(*args: object, **_: object) -> dict[str, torch.Tensor]:
        batch = batches.collate(*args, side="left")  # type: ignore[arg-type]
        assert (batch["attention_mask"][:, -1] == 1).all()
        return batch

    monkeypatch.setattr(feature_inputs, "collate", left)
    same(Extractor(adapted, FEATURES, SETTINGS)(twins(adapted, mixed_samples())), whole)


def test_features_do_not_depend_on_which_others_are_asked_for(adapted: VLM, whole: dict[str, np.ndarray]) -> None:
    for name in FEATURES:
        same(Extractor(adapted, [name], SETTINGS)(twins(adapted, mixed_samples())), {name: whole[name]})


def test_passes_are_as_few_as_the_features_allow(adapted: VLM) -> None:
    settings = SETTINGS.model_copy(update={"batch_tokens": 10**6})
    for names, calls in ((["el2n", "gradient", "embedding"], 1), (["image_grounding"], 2), (FEATURES, 2)):
        extractor = Extractor(adapted, names, settings)
        extractor(twins(adapted, mixed_samples()))
        assert extractor.model_calls == calls


def test_pooled_states_are_means_over_the_row_alone(adapted: VLM, whole: dict[str, np.ndarray]) -> None:
    for i, twin in enumerate(twins(adapted, mixed_samples())):
        inputs = collate(adapted, [twin.row], Pixels(adapted))
        inputs.pop("labels")
        with torch.no_grad():
            states = adapted.model(**inputs, output_hidden_states=True).hidden_states
        middle, last = states[2 + 1][0].double().numpy(), states[-1][0].double().numpy()
        np.testing.assert_allclose(whole["embedding"][i], middle.mean(0), rtol=1e-3, atol=1e-4)
        weights = np.arange(1, len(last) + 1) / np.arange(1, len(last) + 1).sum()
        np.testing.assert_allclose(whole["last_hidden_weighted"][i], weights @ last, rtol=1e-3, atol=1e-4)


def test_grounding_is_the_ratio_of_perplexities_and_nan_without_an_image(
    adapted: VLM, whole: dict[str, np.ndarray]
) -> None:
    for i, twin in enumerate(twins(adapted, mixed_samples())):
        if twin.blind is None:
            assert np.isnan(whole["image_grounding"][i])
            assert np.isnan(whole["blind_log_perplexity"][i])
            continue
        blind = row_statistics(adapted, twin.blind)["log_perplexity"]
        seen = row_statistics(adapted, twin.row)["log_perplexity"]
        np.testing.assert_allclose(whole["blind_log_perplexity"][i], blind, rtol=1e-4)
        np.testing.assert_allclose(whole["image_grounding"][i], np.exp(blind - seen), rtol=1e-3)
        assert abs(blind - seen) > 1e-3


def test_blind_zeros_keeps_the_image_places_and_blackens_them(adapted: VLM, whole: dict[str, np.ndarray]) -> None:
    settings = SETTINGS.model_copy(update={"blind": "zeros"})
    got = Extractor(adapted, ["blind_log_perplexity"], settings)(twins(adapted, mixed_samples()))
    for i, twin in enumerate(twins(adapted, mixed_samples())):
        if twin.blind is None:
            assert np.isnan(got["blind_log_perplexity"][i])
            continue
        inputs = collate(adapted, [twin.row], Pixels(adapted))
        inputs["pixel_values"] = torch.zeros_like(inputs["pixel_values"])
        with torch.no_grad():
            expected = float(adapted.model(**inputs).loss)
        np.testing.assert_allclose(got["blind_log_perplexity"][i], expected, rtol=1e-4)
        assert abs(expected - whole["blind_log_perplexity"][i]) > 1e-4


def test_row_without_labels_has_missing_values_not_zeros(adapted: VLM) -> None:
    row = twins(adapted, mixed_samples())[0].row
    bare = Twin(Encoded("bare", row.input_ids, np.zeros(len(row), dtype=bool), row.images), None)
    out = Extractor(adapted, ["log_perplexity", "el2n", "entropy", "grad_norm", "n_answer_tokens"], SETTINGS)([bare])
    assert out.pop("n_answer_tokens").tolist() == [0]
    assert all(np.isnan(values).all() for values in out.values())


def test_unknown_feature_is_answered_with_the_list(adapted: VLM) -> None:
    with pytest.raises(InputError, match=r"unknown feature 'el2m'; did you mean 'el2n'\? \(known: blind_log"):
        Extractor(adapted, ["el2m"], SETTINGS)


@pytest.mark.parametrize("shard_rows", [1, 4, 1000])
def test_features_do_not_depend_on_the_shard_size(
    adapted: VLM, whole: dict[str, np.ndarray], shard_rows: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(extraction, "SHARD_ROWS", shard_rows)
    store = extract(adapted, mixed_samples(), FEATURES, tmp_path / "f", SETTINGS)
    got = dict(store)
    assert got.pop("id").tolist() == [s.id for s in mixed_samples()]
    same(got, whole)


def test_pool_is_extracted_in_ingestion_order(adapted: VLM, tmp_path: Path) -> None:
    pool = Pool.create(tmp_path / "pool")
    pool.add(mixed_samples())
    store = extract(adapted, pool, ["el2n"], tmp_path / "f", SETTINGS)
    assert store["id"].tolist() == pool.ids()
    same({"el2n": store["el2n"]}, Extractor(adapted, ["el2n"], SETTINGS)(twins(adapted, mixed_samples())))


def test_vectors_are_stored_raw_in_the_type_asked_for(adapted: VLM, tmp_path: Path) -> None:
    single = extract(adapted, mixed_samples(), ["gradient", "grad_norm"], tmp_path / "32", SETTINGS)
    half = extract(adapted, mixed_samples(), ["gradient", "grad_norm"], tmp_path / "16", FeatureSettings(dim=64))
    assert (single["gradient"].dtype, half["gradient"].dtype) == (np.float32, np.float16)
    assert single["grad_norm"].dtype == half["grad_norm"].dtype == np.float32
    np.testing.assert_allclose(half["gradient"], single["gradient"], rtol=2e-3, atol=1e-6)
    assert np.ptp(np.linalg.norm(single["gradient"], axis=1)) > 0.1


def test_two_adapters_that_differ_only_in_rank_do_not_share_a_store(
    load_tiny: Callable[..., VLM], tmp_path: Path
) -> None:
    from liit.model.lora import attach_lora

    for rank in (2, 4):
        vlm = load_tiny()
        attach_lora(vlm, r=rank, alpha=4)
        if rank == 2:
            extract(vlm, mixed_samples()[:1], ["gradient"], tmp_path / "f", SETTINGS)
        else:
            with pytest.raises(InputError, match="checkpoint"):
                extract(vlm, mixed_samples(), ["gradient"], tmp_path / "f", SETTINGS)


def test_row_that_does_not_fit_is_refused_by_id_and_nothing_of_its_shard_is_stored(
    load_tiny: Callable[..., VLM], tmp_path: Path
) -> None:
    vlm = load_tiny(max_length=40)
    samples = [talk("short", "Is it?", "no"), talk("too-long", "Is it? " * 40, "no")]
    with pytest.raises(InputError, match="'too-long'"):
        extract(vlm, samples, ["el2n"], tmp_path / "f", SETTINGS)
    assert not (tmp_path / "f").exists()


@pytest.mark.parametrize("batch_tokens", [1, 7, 20, 1000])
def test_buckets_hold_every_row_once_within_the_budget(batch_tokens: int) -> None:
    lengths = np.random.default_rng(0).integers(1, 15, 100).tolist()
    buckets = list(bucket_by_length(lengths, batch_tokens))
    assert sorted(np.concatenate(buckets).tolist()) == list(range(100))
    for bucket in buckets:
        longest = max(lengths[i] for i in bucket)
        assert len(bucket) == 1 or longest * len(bucket) <= batch_tokens
    assert list(bucket_by_length([], batch_tokens)) == []


def test_images_change_the_features_of_the_row_that_has_them(adapted: VLM) -> None:
    """Swapping the pictures of two rows swaps what depends on them: no image is unused or given to another row."""
    first, second = (talk(i, "<image>\nWhat is it?", "A cat.", images=[seed]) for i, seed in (("a", 1), ("b", 2)))
    text = Sample("t", (Message("user", "What?"), Message("assistant", "no")))
    model = Extractor(adapted, ["log_perplexity"], SETTINGS)
    straight = model(twins(adapted, [first, text, second]))["log_perplexity"]
    swapped = model(twins(adapted, [second, text, first]))["log_perplexity"]
    assert abs(straight[0] - straight[2]) > 1e-3
    np.testing.assert_allclose(straight, swapped[::-1], rtol=1e-5)


def test_trained_vision_tower_is_never_read_from_the_cache(adapted: VLM, tmp_path: Path) -> None:
    """Kept features are of the tower as it came; scoring freezes what it must, and not so much that they seem right."""
    samples = [s for s in mixed_samples() if s.images]
    cache = VisionCache(adapted, tmp_path / "vision")
    kept = extract(adapted, samples, ["embedding", "grad_norm"], tmp_path / "f", SETTINGS, vision=cache)
    towers = [p for name, p in adapted.base.named_parameters() if "vision_tower" in name and ".lora_" not in name]
    for parameter in towers:
        parameter.requires_grad_(True)
        parameter.data.mul_(1.3)
    trained = extract(adapted, samples, ["embedding", "grad_norm"], tmp_path / "g", SETTINGS, vision=cache)
    pixels = extract(adapted, samples, ["embedding", "grad_norm"], tmp_path / "h", SETTINGS)
    np.testing.assert_allclose(trained["embedding"], pixels["embedding"], rtol=1e-5)
    np.testing.assert_allclose(trained["grad_norm"], pixels["grad_norm"], rtol=1e-4)
    assert np.abs(kept["embedding"] - trained["embedding"]).max() > 1e-2
    assert trained.report is not None
    assert trained.report.tower_images == trained.report.images
