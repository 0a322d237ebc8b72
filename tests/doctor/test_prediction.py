"""Predictions against what happens: counts exactly, operations and sizes closely."""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_vlm import mixed_samples
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from liit.config import FeatureSettings, LoraSettings, ModelSettings
from liit.data.sample import Sample
from liit.doctor.arithmetic import forward_flops
from liit.doctor.calibration import calibrate_extraction, matrix_rate, resident_memory, watched
from liit.doctor.prediction import COPIES, LIBRARIES, Prediction, compare, predict_extraction
from liit.doctor.shape import outline, shape_of
from liit.doctor.workload import look_at
from liit.errors import InputError
from liit.features import FeatureStore, extract
from liit.model.batch import collate
from liit.model.chat import ChatEncoder
from liit.model.vision import Pixels, VisionCache
from liit.model.vlm import VLM

EVERYTHING = ("gradient", "embedding", "log_perplexity", "el2n", "entropy", "image_grounding", "grad_norm")
SETTINGS = FeatureSettings(batch_tokens=120, dim=64)


def predicted(vlm: VLM, names: Sequence[str], settings: FeatureSettings = SETTINGS, missing: int = 0) -> Prediction:
    images = settings.share_images
    work = look_at(ChatEncoder(vlm), mixed_samples(), share=settings.share_beginnings, share_images=images)
    return predict_extraction(shape_of(vlm, LoraSettings()), work, names, settings, missing_images=missing)


@pytest.mark.parametrize(
    ("names", "changes"),
    [
        (EVERYTHING, {}),
        (EVERYTHING, {"blind": "zeros"}),
        (EVERYTHING, {"share_images": True}),
        (EVERYTHING, {"share_beginnings": False}),
        (EVERYTHING, {"blind": "zeros", "share_beginnings": False}),
        (EVERYTHING, {"layers": "all", "dtype": "float32"}),
        (("log_perplexity",), {}),
        (("blind_log_perplexity",), {}),
        (("embedding",), {"embedding_layer": 0}),
        (("n_tokens", "n_answer_tokens"), {}),
        (("grad_norm", "last_hidden_weighted"), {"batch_tokens": 30}),
    ],
)
def test_counts_are_those_of_the_extraction(
    adapted: VLM, tmp_path: Path, names: tuple[str, ...], changes: dict[str, object]
) -> None:
    settings = SETTINGS.model_copy(update=changes)
    vision = VisionCache(adapted, tmp_path / "vision")
    images = {image.sha256 for sample in mixed_samples() for image in sample.images}
    prediction = predicted(adapted, names, settings, len(images))
    store = extract(adapted, mixed_samples(), names, tmp_path / "f", settings, vision=vision)
    rows = {row.name: row for row in compare(prediction, store.report)}
    assert rows.pop("rows").fact == len(mixed_samples())
    written = rows.pop("features on disk")
    assert 0.5 < (written.ratio or 0) < 1.5
    if not store.report.image_calls:
        rows.pop("images through the vision tower", None)
    assert {name: row.predicted for name, row in rows.items()} == {name: row.fact for name, row in rows.items()}


def test_the_store_is_as_large_as_predicted(adapted: VLM, tmp_path: Path) -> None:
    samples = [Sample(f"{n}-{s.id}", s.messages, s.images) for n in range(30) for s in mixed_samples()]
    settings = FeatureSettings(batch_tokens=2000, dim=512)
    prediction = predict_extraction(
        shape_of(adapted, LoraSettings()), look_at(ChatEncoder(adapted), samples), EVERYTHING, settings
    )
    extract(adapted, samples, EVERYTHING, tmp_path / "f", settings)
    there = sum(file.stat().st_size for file in (tmp_path / "f").rglob("*") if file.is_file())
    assert there == pytest.approx(prediction.bytes_written, rel=0.15)


def test_operations_are_those_that_torch_counts(adapted: VLM) -> None:
    from liit.model.lora import folded_adapter

    encoder = ChatEncoder(adapted)
    rows = [encoder.encode(sample) for sample in mixed_samples() if not sample.images]
    batch = collate(adapted, rows, Pixels(adapted))
    batch.pop("labels")
    counter = FlopCounterMode(display=False)  # it knows no operations of the CPU's fused attention
    with folded_adapter(adapted), torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        adapted.backbone(**batch, use_cache=False)
    work = look_at(encoder, [sample for sample in mixed_samples() if not sample.images])
    shape = shape_of(adapted, LoraSettings())
    ours = forward_flops(shape, work.with_images(10**6), shape.layers, narrow=False)
    head = 2 * shape.vocabulary * shape.hidden * work.with_images(10**6).answers
    assert ours - head == pytest.approx(counter.get_total_flops(), rel=0.02)


def test_less_is_asked_less_is_done(adapted: VLM) -> None:
    def flops(names: tuple[str, ...], **changes: object) -> float:
        return predicted(adapted, names, SETTINGS.model_copy(update=changes)).flops

    assert flops(("n_tokens",)) == 0
    assert flops(("embedding",), embedding_layer=0) < flops(("log_perplexity",)) / 2
    assert flops(("log_perplexity",)) < flops(("grad_norm",), layers=-1) < flops(("grad_norm",), layers="all")
    with_blind = flops(("image_grounding",))
    assert flops(("log_perplexity",)) < with_blind < flops(("image_grounding",), blind="zeros")


def test_passes_are_said_in_words(adapted: VLM) -> None:
    assert predicted(adapted, EVERYTHING).passes == (
        "forward with images, backward through the upper 2 of 4 layers, forward without images"
    )
    assert predicted(adapted, ("embedding",)).passes == "forward with images through the lower 3 of 4 layers"
    assert predicted(adapted, ("n_tokens",)).passes == "none: known from the tokens alone"


def test_an_unknown_feature_is_refused(adapted: VLM) -> None:
    with pytest.raises(InputError, match="unknown feature 'perplexity'"):
        predicted(adapted, ("perplexity",))


def test_the_outline_has_the_shape_of_the_model(tiny_path: Path, adapted: VLM) -> None:
    found = outline(ModelSettings(path=str(tiny_path)))
    assert {p.device.type for p in found.base.parameters()} == {"meta"}
    lora = LoraSettings(r=3, alpha=6)
    assert shape_of(found, lora) == shape_of(adapted, lora)
    sample = mixed_samples()[0]
    assert (
        ChatEncoder(found).encode(sample).input_ids.tolist() == ChatEncoder(adapted).encode(sample).input_ids.tolist()
    )


def test_a_model_without_configuration_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no configuration and processor that can be read"):
        outline(ModelSettings(path=str(tmp_path)))


def test_a_little_work_tells_what_more_of_it_takes(adapted: VLM, tmp_path: Path) -> None:
    samples = [Sample(f"{n}-{s.id}", s.messages, s.images) for n in range(12) for s in mixed_samples()]
    vision, encoder, shape = (
        VisionCache(adapted, tmp_path / "v"),
        ChatEncoder(adapted),
        shape_of(adapted, LoraSettings()),
    )
    found = calibrate_extraction(
        adapted, samples, EVERYTHING, SETTINGS, shape, vision=vision, encoder=encoder, budget=0.2
    )  # fmt: skip
    assert 0 < found.rows <= len(samples)
    assert found.flops_per_second > 0
    assert found.seconds_per_image > 0
    assert found.peak_memory > 1 << 20
    kept = VisionCache(adapted, tmp_path / "kept")
    kept.fill(samples[0].images)
    one = sum(file.stat().st_size for file in kept.directory.rglob("*"))
    assert found.image_bytes == pytest.approx(one, rel=0.3)
    assert len(vision) == 0  # the user's own cache was left alone

    prediction = predict_extraction(
        shape, look_at(encoder, samples), EVERYTHING, SETTINGS, calibration=found, missing_images=10,
        image_bytes=found.image_bytes,
    )  # fmt: skip
    assert prediction.seconds is not None
    assert not prediction.at_least
    assert prediction.seconds >= found.overhead + 10 * found.seconds_per_image
    assert prediction.peak_memory >= found.peak_memory


def test_without_trying_the_time_is_a_lower_bound(adapted: VLM) -> None:
    rate = matrix_rate(torch.float32, torch.device("cpu"))
    work = look_at(ChatEncoder(adapted), mixed_samples())
    found = predict_extraction(shape_of(adapted, LoraSettings()), work, EVERYTHING, SETTINGS, matrix_rate=rate)
    assert found.at_least
    assert found.seconds == pytest.approx(found.flops / rate)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux")
def test_memory_that_was_freed_again_is_seen() -> None:
    cpu, mebibyte = torch.device("cpu"), b"\1" * (1 << 20)
    # Pages of our own: what malloc holds back from earlier tests would hide the growth.
    with mmap.mmap(-1, 1 << 29) as pages, watched(cpu) as watch:
        before = resident_memory(cpu)
        for _ in range(1 << 9):
            pages.write(mebibyte)
        pages.madvise(mmap.MADV_DONTNEED)
        after = resident_memory(cpu)
    assert watch.peak_memory > max(before, after) + (1 << 28)


def test_features_of_the_last_step_are_held_in_memory(adapted: VLM) -> None:
    shape, work = shape_of(adapted, LoraSettings()), look_at(ChatEncoder(adapted), mixed_samples())
    alone, more = (predict_extraction(shape, work, ("gradient",), SETTINGS, known=rows) for rows in (0, 1000))
    assert more.peak_memory - alone.peak_memory == 2 * 1000 * 4 * SETTINGS.dim


def test_comparing_leaves_out_what_neither_side_has(adapted: VLM, tmp_path: Path) -> None:
    prediction = predicted(adapted, ("log_perplexity",))
    store: FeatureStore = extract(adapted, mixed_samples(), ("log_perplexity",), tmp_path / "f", SETTINGS)
    names = [row.name for row in compare(prediction, store.report)]
    assert "backward passes" not in names
    assert "peak memory" not in names
    with watched(torch.device("cpu")) as watch:
        pass
    assert "peak memory" in [row.name for row in compare(prediction, store.report, watch)]


@pytest.mark.parametrize("more", [{}, {"base_memory": 1e8}])
def test_on_a_gpu_nothing_that_lies_in_main_memory_is_counted(adapted: VLM, more: dict[str, float]) -> None:
    shape, work = shape_of(adapted, LoraSettings()), look_at(ChatEncoder(adapted), mixed_samples())
    options: dict[str, Any] = {"missing_images": 100, "image_bytes": 1e5, "known": 1000.0, **more}
    here = predict_extraction(shape, work, EVERYTHING, SETTINGS, **options).peak_memory
    there = predict_extraction(replace(shape, device="cuda"), work, EVERYTHING, SETTINGS, **options).peak_memory
    alone = predict_extraction(replace(shape, device="cuda"), work, EVERYTHING, SETTINGS, **more).peak_memory
    assert there == alone
    assert here > there + COPIES * 100 * 1e5
    assert (here > there + LIBRARIES) == (not more)
