"""Kept outputs of the vision tower stand for pixels, are computed once, and survive kills and neighbours."""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from pretend_card import Card, put_on_card
from tiny_vlm import mixed_samples, picture

from liit.data.sample import ImageRef
from liit.errors import InputError
from liit.model import vision_store
from liit.model.batch import collate
from liit.model.chat import ChatEncoder
from liit.model.lora import attach_lora
from liit.model.vision import Pixels, VisionCache, cacheable_tower, vision_inputs
from liit.model.vision_paths import vision_path
from liit.model.vision_store import Kept, KeptStates
from liit.model.vlm import VLM, load_vlm

PICTURES = [picture(seed) for seed in range(5)]


def states(vision: Any, pictures: list[Any] = PICTURES) -> np.ndarray:
    return vision.inputs(pictures)["pixel_values"].numpy()


@pytest.fixture
def calls(tiny: VLM, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Images per call of the tower's arithmetic."""
    tower = cacheable_tower(tiny)
    inner, seen = tower.raw_tokens, []

    def counted(pixels: torch.Tensor) -> torch.Tensor:
        seen.append(len(pixels))
        return inner(pixels)

    monkeypatch.setattr(tower, "raw_tokens", counted)
    return seen


def test_kept_states_give_the_losses_and_features_of_pixels(tiny: VLM, tmp_path: Path) -> None:
    encoder = ChatEncoder(tiny)
    rows = [encoder.encode(sample) for sample in mixed_samples()]
    with torch.no_grad():
        pixels = tiny.model(**collate(tiny, rows, Pixels(tiny)))
        cache = VisionCache(tiny, tmp_path)
        kept = tiny.model(**collate(tiny, rows, cache))
        again = tiny.model(**collate(tiny, rows, Pixels(tiny)))
        other = tiny.model(**collate(tiny, rows[:1], Pixels(tiny)))
    torch.testing.assert_close(kept.logits, pixels.logits, rtol=0, atol=2e-3 * float(pixels.logits.abs().max()))
    assert not torch.equal(kept.logits, pixels.logits)  # float16 on disk: the cache was used
    assert torch.equal(again.logits, pixels.logits)  # pixels still work beside a cache
    assert other.logits.shape[0] == 1


def test_tower_runs_once_per_image_whatever_asks(tiny: VLM, tmp_path: Path, calls: list[int]) -> None:
    cache = VisionCache(tiny, tmp_path)
    first = states(cache, [*PICTURES, PICTURES[0]])
    assert sum(calls) == len(PICTURES)
    assert first.shape == (6, 17, tiny.base.config.vision_config.hidden_size)
    np.testing.assert_array_equal(first[0], first[5])
    second = VisionCache(tiny, tmp_path)
    assert len(second) == len(PICTURES)
    np.testing.assert_array_equal(states(second, PICTURES[::-1]), first[4::-1])
    assert second.fill(PICTURES) == 0
    row = ChatEncoder(tiny).encode(mixed_samples()[0])
    cache.fill(row.images)
    before = list(calls)
    with torch.no_grad():
        tiny.model(**collate(tiny, [row], second))
    assert calls == before


def test_progress_counts_every_missing_image(tiny: VLM, tmp_path: Path) -> None:
    cache = VisionCache(tiny, tmp_path)
    cache.fill(PICTURES[:2])
    seen: list[int] = []
    assert cache.fill([*PICTURES, *PICTURES], seen.append) == sum(seen) == 3


def test_images_that_do_not_fit_together_are_computed_in_smaller_batches(
    tiny: VLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    images = [picture(seed) for seed in range(9)]
    whole, cut = VisionCache(tiny, tmp_path / "whole"), VisionCache(tiny, tmp_path / "cut")
    whole.fill(images)
    caplog.set_level("INFO")
    sizes, compute = list[int](), cut.path.compute

    def full(some: Sequence[ImageRef], *, together: bool) -> list[Kept]:
        sizes.append(len(some))
        if len(some) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return compute(some, together=together)

    monkeypatch.setattr(cut.path, "compute", full)
    assert cut.fill(images) == len(images)
    assert sizes == [9, 4, 4, 1]
    assert caplog.text.count("vision features of 9 images") == 1
    assert "out of memory with 9 at once (image); now 4" in caplog.text
    assert cut.fill([picture(seed) for seed in range(9, 14)]) == 5
    assert sizes[4:] == [4, 1]  # what was too much once is not tried again
    expected, got = whole.inputs(images)["pixel_values"], cut.inputs(images)["pixel_values"]
    torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-3)


def test_folder_names_the_tower_and_the_processor_settings(load_tiny: Callable[..., VLM], tmp_path: Path) -> None:
    keys = set()
    for change in ("nothing", "nothing", "weights", "layer", "processor"):
        vlm = load_tiny()
        if change == "weights":
            vlm.base_id = "other"
        if change == "layer":
            vlm.base.config.vision_feature_layer = -2
        if change == "processor":
            vlm.processor.image_processor.image_mean = [0.0] * 3
        keys.add(VisionCache(vlm, tmp_path).key)
    assert len(keys) == 4


@pytest.mark.parametrize("damage", ["truncated", "garbage", "empty", "gone", "index", "index-empty", "count", "parts"])
def test_damaged_shard_is_not_used_and_its_images_are_computed_again(
    tiny: VLM, tmp_path: Path, damage: str, calls: list[int]
) -> None:
    cache = VisionCache(tiny, tmp_path)
    expected = states(cache)
    values, index = next(cache.directory.glob("*.npy")), next(cache.directory.glob("*.json"))
    if damage == "truncated":
        values.write_bytes(values.read_bytes()[:-100])
    elif damage == "garbage":
        values.write_bytes(b"not numpy at all" * 99)
    elif damage == "empty":
        values.write_bytes(b"")
    elif damage == "gone":
        values.unlink()
    elif damage == "index":
        index.write_text(index.read_text()[:-5])
    elif damage == "index-empty":
        index.write_text("")
    elif damage == "count":
        index.write_text(json.dumps([*json.loads(index.read_text())[1:]]))
    else:  # killed while writing
        values.rename(values.with_suffix(".npy.part"))
        index.rename(index.with_suffix(".json.part"))
    calls.clear()
    fresh = VisionCache(tiny, tmp_path)
    assert len(fresh) == 0
    np.testing.assert_array_equal(states(fresh), expected)
    assert sum(calls) == len(PICTURES)
    assert len(VisionCache(tiny, tmp_path)) == len(PICTURES)


def test_a_changed_byte_is_noticed_and_its_shard_made_again(tiny: VLM, tmp_path: Path, calls: list[int]) -> None:
    cache = VisionCache(tiny, tmp_path)
    before = states(cache)
    (values,) = cache.directory.glob("*.npy")
    data = bytearray(values.read_bytes())
    data[-7] ^= 0x40
    values.write_bytes(data)
    calls.clear()
    again = VisionCache(tiny, tmp_path)
    np.testing.assert_array_equal(states(again), before)
    assert sum(calls) == 1
    calls.clear()
    np.testing.assert_array_equal(states(VisionCache(tiny, tmp_path)), before)
    assert not calls


def test_kill_between_values_and_index_leaves_nothing_half_known(
    tiny: VLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = VisionCache(tiny, tmp_path)
    rename = Path.rename

    def killed(self: Path, target: Path) -> Path:
        if target.suffix == ".json":
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", killed)
    with pytest.raises(KeyboardInterrupt):
        cache.fill(PICTURES)
    monkeypatch.undo()
    assert len(cache.missing(PICTURES)) == len(VisionCache(tiny, tmp_path).missing(PICTURES)) == len(PICTURES)
    assert VisionCache(tiny, tmp_path).fill(PICTURES) == len(PICTURES)


def _fill(model: str, directory: Path, seeds: list[int], ready: Any) -> None:
    from liit.demo.vlm.tower import register

    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    register()
    cache = VisionCache(load_vlm(model), directory)
    ready.wait()
    for seed in seeds:
        cache.fill([picture(seed)])


@pytest.mark.slow
def test_two_processes_filling_at_once_leave_a_readable_cache(tiny: VLM, tiny_path: Path, tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ready = context.Barrier(2)
    orders = [list(range(12)), list(range(11, -1, -1))]
    workers = [context.Process(target=_fill, args=(str(tiny_path), tmp_path, order, ready)) for order in orders]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
        assert worker.exitcode == 0
    cache = VisionCache(tiny, tmp_path)
    pictures = [picture(seed) for seed in range(12)]
    assert cache.missing(pictures) == []
    alone = VisionCache(tiny, tmp_path / "alone")
    np.testing.assert_allclose(states(cache, pictures), states(alone, pictures), rtol=2e-3, atol=1e-3)


def test_tower_under_an_adapter_is_not_taken_from_the_cache(tiny: VLM, tmp_path: Path) -> None:
    """What is kept belongs to the frozen tower; a tower that trains gets its pixels."""
    cache = VisionCache(tiny, tmp_path)
    attach_lora(tiny, r=2, alpha=2)
    assert cache.frozen
    cacheable_tower(tiny).stem.weight.requires_grad_(True)
    assert not cache.frozen
    assert cache.fill(PICTURES) == 0
    assert states(cache).shape[1:] == (3, 128, 128)


def test_model_without_a_way_to_keep_features_gets_pixels_and_says_so(
    tiny: VLM, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert isinstance(vision_inputs(tiny, tmp_path), VisionCache)
    assert isinstance(vision_inputs(tiny, None), Pixels)
    assert not caplog.records
    tiny.base.config.vision_feature_layer = [-2, -1]
    assert cacheable_tower(tiny) is None
    vars(tiny)["takes"] = frozenset({"pixel_values"})
    assert isinstance(vision_inputs(tiny, tmp_path), Pixels)
    assert "vision features of llava models cannot be kept" in caplog.text
    with pytest.raises(InputError, match="cannot be kept"):
        VisionCache(tiny, tmp_path)


def test_size_on_disk_is_told(tiny: VLM, tmp_path: Path) -> None:
    cache = VisionCache(tiny, tmp_path)
    cache.fill(PICTURES)
    cost = sum(file.stat().st_size for file in cache.directory.glob("*.npy"))
    assert cost >= len(PICTURES) * 17 * tiny.base.config.vision_config.hidden_size * 2
    assert cache.kept.size == cost
    assert f"{len(PICTURES)} images" in cache.describe()
    assert str(cache.directory) in cache.describe()


def test_room_is_announced_when_much_and_refused_when_there_is_none(
    tiny: VLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    each = 17 * tiny.base.config.vision_config.hidden_size * 2
    cache = VisionCache(tiny, tmp_path)
    cache.fill(PICTURES[:1])
    assert not caplog.records
    monkeypatch.setattr("liit.model.vision_cache.ANNOUNCED_BYTES", 2 * each - 1)
    cache.fill(PICTURES[:3])
    assert f"vision features of 2 images take about {2 * each / 1e9:.2f} GB in {cache.directory}" in caplog.text
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=each))
    with pytest.raises(InputError, match=r"model\.vision_cache: vision features of 2 images .* are free"):
        cache.fill(PICTURES)
    assert len(cache) == 3


def test_numbers_too_large_for_float16_are_kept_as_they_are(tmp_path: Path) -> None:
    large, small = torch.tensor([[1e5, 1.0]]), torch.tensor([[0.5, 1.0], [2.0, 3.0]])
    exact = torch.randn(3, 4).bfloat16()
    for number, states in enumerate((large, small, exact)):
        store = KeptStates(tmp_path / str(number))
        store.add(["a"], [Kept(states, {"grid": [1, 2, 3]})])
        again = KeptStates(tmp_path / str(number))["a"]
        assert torch.equal(again.states, states)
        assert again.states.dtype == states.dtype
        assert again.extra == {"grid": [1, 2, 3]}


@pytest.mark.parametrize("kind", ["float16", "mixed", "bfloat16"])
def test_a_shard_is_the_file_that_numpy_would_write(tmp_path: Path, kind: str) -> None:
    states = [torch.randn(rows, 4) for rows in (1, 3, 2)]
    expected = [one.half().numpy() for one in states]
    if kind == "mixed":  # one of them does not fit float16, so that the shard is float32
        states[1] = states[1] * 1e6
        expected[1] = states[1].numpy()
    if kind == "bfloat16":
        states = [one.bfloat16() for one in states]
        expected = [one.view(torch.int16).numpy() for one in states]
    KeptStates(tmp_path / "store").add(["a", "b", "c"], [Kept(one) for one in states])
    (written,) = (tmp_path / "store").glob("*.npy")
    np.save(tmp_path / "expected.npy", np.concatenate(expected))
    assert written.read_bytes() == (tmp_path / "expected.npy").read_bytes()
    again = KeptStates(tmp_path / "store")
    assert all(name in again for name in "abc")


def resident_of_maps(folder: Path) -> int:
    """Bytes of the files below a folder that this process has mapped and in memory."""
    total, ours = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        name, *rest = line.split()
        if not name.endswith(":"):
            ours = str(folder) in line
        elif ours and name == "Rss:":
            total += 1024 * int(rest[0])
    return total


@pytest.mark.skipif(not Path("/proc/self/smaps").is_file(), reason="no list of mapped pages here")
def test_pages_of_entries_that_were_read_go_back_to_the_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vision_store, "READ_BYTES", 2 << 20)
    store = KeptStates(tmp_path)
    states = [torch.full((512, 1024), float(number)).half() for number in range(16)]  # a MiB each
    for start in (0, 8):
        store.add([f"{number}" for number in range(start, start + 8)], [Kept(one) for one in states[start : start + 8]])
    for _ in range(2):
        for number, expected in enumerate(states):
            assert f"{number}" in store
            assert torch.equal(store[f"{number}"].states, expected.float())
            assert resident_of_maps(tmp_path) <= 5 << 20
    assert resident_of_maps(tmp_path) > 0


def test_an_image_that_does_not_fit_alone_is_named(tiny: VLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = VisionCache(tiny, tmp_path)

    def full(some: Sequence[ImageRef], *, together: bool) -> list[Kept]:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(cache.path, "compute", full)
    with pytest.raises(InputError, match=r"image 3\.png does not fit into memory alone \(CUDA out of memory"):
        cache.fill([picture(3)])


def test_features_of_a_card_wait_in_main_memory(tiny: VLM) -> None:
    with Card():
        put_on_card(tiny.model)
        path = vision_path(tiny)
        assert path is not None
        kept = path.compute(PICTURES, together=False)
    assert {entry.states.device.type for entry in kept} == {"cpu"}
