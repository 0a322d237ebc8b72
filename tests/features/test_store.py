"""The feature store: appended shard by shard, safe against a kill, never a mixture of two checkpoints."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lance
import numpy as np
import pyarrow as pa
import pytest
import torch
from tiny_vlm import mixed_samples, randomise_lora, talk

from liit.config import FeatureSettings
from liit.data.part import PoolPart
from liit.data.pool import Pool
from liit.data.sample import Sample
from liit.errors import InputError
from liit.features import ExtractionReport, FeatureStore, extract, extraction
from liit.features.key import FeatureKey
from liit.features.store import concatenate
from liit.features.table import FeatureTable, from_bfloat16, to_bfloat16
from liit.model import chat
from liit.model.chat import ChatEncoder, Encoded
from liit.model.vision import VisionCache
from liit.model.vlm import VLM

KEY = FeatureKey({"checkpoint": "a"}, {"el2n": {}, "gradient": {"dim": 2, "dtype": "float16"}})
SETTINGS = FeatureSettings(dim=32, dtype="float32")
NAMES = ["el2n", "image_grounding", "gradient"]


def filled(path: Path, key: FeatureKey = KEY) -> FeatureStore:
    table = FeatureTable(path, key)
    table.append(["b", "a"], ["1", "2"], {"el2n": np.float32([1, np.nan]), "gradient": np.float32([[1, 2], [3, 4]])})
    table.append(["日本"], ["3"], {"el2n": np.float32([3]), "gradient": np.float32([[5, 6]])})
    return FeatureStore(path)


def test_columns_come_back_as_they_were_given(tmp_path: Path) -> None:
    filled(tmp_path / "f")
    store = FeatureStore(tmp_path / "f")
    assert list(store) == ["id", "el2n", "gradient"]
    assert store["id"].tolist() == store.stored_ids() == ["b", "a", "日本"]
    np.testing.assert_array_equal(store["el2n"], np.float32([1, np.nan, 3]))
    np.testing.assert_array_equal(store["gradient"], np.float16([[1, 2], [3, 4], [5, 6]]))
    assert store["gradient"].dtype == np.float16
    assert store.key == KEY


def test_columns_read_before_an_append_are_read_again(tmp_path: Path) -> None:
    store = filled(tmp_path / "f")
    assert len(store["el2n"]) == 3
    more = {"el2n": np.float32([4]), "gradient": np.float32([[7, 8]])}
    FeatureTable(tmp_path / "f").append(["c"], ["4"], more)
    assert store["el2n"].tolist()[-1] == 4


def test_view_has_the_rows_asked_for_in_their_order(tmp_path: Path) -> None:
    view = filled(tmp_path / "f").view(["日本", "b"])
    assert view["id"].tolist() == ["日本", "b"]
    assert view["el2n"].tolist() == [3, 1]
    np.testing.assert_array_equal(view["gradient"], [[5, 6], [1, 2]])
    assert view.view([])["gradient"].shape == (0, 2)


def test_missing_rows_and_columns_are_named(tmp_path: Path) -> None:
    store = filled(tmp_path / "f")
    with pytest.raises(InputError, match=r"2 of 3 rows have no features.*first 'x'"):
        store.view(["a", "x", "y"])["el2n"]
    with pytest.raises(InputError, match=r"1 of 1 rows have no features.*first 'x'"):
        store.view(["x"])["id"]
    with pytest.raises(KeyError, match="entropy"):
        store["entropy"]
    assert "entropy" not in store
    assert "el2n" in store.view(["x"])


def test_place_without_features_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nothing at"):
        FeatureStore(tmp_path / "f")
    lance.write_dataset(pa.table({"id": ["a"]}), str(tmp_path / "other"))
    with pytest.raises(InputError, match="not a feature store"):
        FeatureStore(tmp_path / "other")
    with pytest.raises(InputError, match="not a feature store"):
        FeatureTable(tmp_path / "other", KEY)


def test_folders_left_by_a_kill_before_the_first_commit_are_no_obstacle(tmp_path: Path) -> None:
    for folder in ("data", "_versions", "_transactions"):
        (tmp_path / "f" / folder).mkdir(parents=True)
    (tmp_path / "f" / "data" / "left.lance").write_bytes(b"half a fi")
    store = filled(tmp_path / "f")
    assert store["id"].tolist() == ["b", "a", "日本"]


def test_store_that_mixes_two_checkpoints_is_refused(tmp_path: Path) -> None:
    filled(tmp_path / "f")
    entropy = FeatureKey({"checkpoint": "b"}, {"entropy": {}})
    FeatureTable(tmp_path / "f" / "added" / "1", entropy).append(["b"], ["1"], {"entropy": np.float32([1])})
    with pytest.raises(InputError, match=r"mixes checkpoint in 1; features of two checkpoints are never mixed"):
        FeatureStore(tmp_path / "f")


def test_columns_of_stores_with_different_rows_are_stacked_and_nothing_else(tmp_path: Path) -> None:
    first = filled(tmp_path / "1")
    row = {"el2n": np.float32([9]), "gradient": np.float32([[9, 9]])}
    FeatureTable(tmp_path / "2", KEY).append(["new"], ["9"], row)
    stacked = concatenate([first, FeatureStore(tmp_path / "2")])
    assert stacked["id"].tolist() == ["b", "a", "日本", "new"]
    assert stacked["gradient"].shape == (4, 2)
    with pytest.raises(InputError, match=r"3 rows are in two stores, first 'a'"):
        concatenate([first, filled(tmp_path / "3")])
    other = filled(tmp_path / "4", FeatureKey({"checkpoint": "b"}, KEY.columns))
    with pytest.raises(InputError, match="differ in checkpoint"):
        concatenate([first, other])


@pytest.mark.parametrize(
    ("dtype", "rounding", "largest"), [("float16", 2**-11, 6.5e4), ("bfloat16", 2**-8, 3.3e38), ("float32", 0, 3.4e38)]
)
def test_vectors_are_stored_in_the_type_asked_for_and_never_overflow_silently(
    tmp_path: Path, dtype: str, rounding: float, largest: float
) -> None:
    key = FeatureKey({"checkpoint": "a"}, {"gradient": {"dtype": dtype}})
    values = np.random.default_rng(0).standard_normal((50, 9)).astype(np.float32) * 100
    values[3, 4], values[5, 1], values[6] = np.nan, largest, 0
    values[7, 2] = np.inf  # computed so; kept, not hidden
    names = [f"r{i}" for i in range(50)]
    table = FeatureTable(tmp_path / "f", key)
    table.append(names, names, {"gradient": values})
    read = FeatureStore(tmp_path / "f")["gradient"]
    assert read.dtype == (np.float16 if dtype == "float16" else np.float32)
    np.testing.assert_allclose(read, values, rtol=rounding)
    values[9, 1] = 3.401e38
    if dtype == "float32":
        return
    with pytest.raises(InputError, match=rf"gradient of sample 'r9' reaches 3.4e\+38, more than {dtype} holds"):
        table.append(names, names, {"gradient": values})
    assert len(FeatureStore(tmp_path / "f").stored_ids()) == 50


def test_bfloat16_rounds_as_torch_does() -> None:
    bits = np.random.default_rng(0).integers(0, 2**32, 20000, dtype=np.uint32)
    values = np.concatenate([bits.view(np.float32), np.float32([0, -0.0, np.inf, -np.inf, np.nan])])
    expected = torch.from_numpy(values).to(torch.bfloat16).float().numpy()
    np.testing.assert_array_equal(from_bfloat16(to_bfloat16(values)), expected)


def test_extraction_stopped_between_shards_goes_on_without_repeating_a_row(
    adapted: VLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extraction, "SHARD_ROWS", 2)
    seen: list[int] = []

    def stop(rows: int) -> None:
        seen.append(rows)
        if sum(seen) == 5:
            raise KeyboardInterrupt

    settings = SETTINGS.model_copy(update={"batch_tokens": 1})
    with pytest.raises(KeyboardInterrupt):
        extract(adapted, mixed_samples(), NAMES, tmp_path / "f", settings, progress=stop)
    store = extract(adapted, mixed_samples(), NAMES, tmp_path / "f", settings)
    assert store.report is not None
    assert (store.report.fresh, store.report.scored, store.report.rows) == (4, 5, 9)
    undisturbed = extract(adapted, mixed_samples(), NAMES, tmp_path / "g", settings)
    for name, values in FeatureStore(tmp_path / "f").items():
        np.testing.assert_array_equal(values, undisturbed[name])


def extracted(vlm: VLM, samples: Sequence[Sample], path: Path, names: Sequence[str] = NAMES, **more: Any) -> Any:
    """The store and what it took."""
    settings = more.pop("settings", SETTINGS)
    store = extract(vlm, samples, names, path, settings, **more)
    assert isinstance(store.report, ExtractionReport)
    assert store.report.done == store.report.scored
    return store, store.report


def test_finished_extraction_runs_no_model_and_new_rows_cost_only_themselves(adapted: VLM, tmp_path: Path) -> None:
    calls: list[int] = []
    adapted.decoder_layers[0].register_forward_hook(lambda _m, _i, out: calls.append(len(out)))
    extracted(adapted, mixed_samples()[:5], tmp_path / "f")
    calls.clear()
    _, report = extracted(adapted, mixed_samples(), tmp_path / "f")
    with_images = sum(bool(sample.images) for sample in mixed_samples()[5:])
    assert (report.rows, report.fresh, report.scored) == (9, 5, 4)
    assert sum(calls) == 4 + with_images + 9  # a few rows of a few words check what is assumed of the model
    calls.clear()
    _, report = extracted(adapted, mixed_samples(), tmp_path / "f")
    assert (report.rows, report.fresh, report.scored, report.model_calls, calls) == (9, 9, 0, 0, [])


def test_store_of_another_checkpoint_or_settings_is_refused_unless_a_refresh_is_asked_for(
    adapted: VLM, tmp_path: Path
) -> None:
    samples = mixed_samples()[:3]
    first, _ = extracted(adapted, samples, tmp_path / "f")
    old = first["el2n"]
    with pytest.raises(InputError, match="another seed of gradient"):
        extract(adapted, samples, NAMES, tmp_path / "f", SETTINGS, seed=1)
    with pytest.raises(InputError, match="another dim of gradient"):
        extract(adapted, samples, NAMES, tmp_path / "f", SETTINGS.model_copy(update={"dim": 8}))
    with pytest.raises(InputError, match="another blind of image_grounding"):
        extract(adapted, samples, NAMES, tmp_path / "f", SETTINGS.model_copy(update={"blind": "zeros"}))
    template = adapted.processor.chat_template
    adapted.processor.chat_template += " "
    with pytest.raises(InputError, match="another template"):
        extract(adapted, samples, NAMES, tmp_path / "f", SETTINGS)
    adapted.processor.chat_template = template
    randomise_lora(adapted, 1)
    with pytest.raises(InputError, match="another checkpoint; features of two checkpoints or settings are never mixed"):
        extract(adapted, samples, NAMES, tmp_path / "f", SETTINGS)
    np.testing.assert_array_equal(FeatureStore(tmp_path / "f")["el2n"], old)

    store, report = extracted(adapted, samples[1:], tmp_path / "f", refresh=True)
    assert (report.rows, report.stale, report.scored) == (2, 2, 2)
    assert store["id"].tolist() == [s.id for s in samples[1:]]  # live rows only
    assert np.abs(store["el2n"] - old[1:]).min() > 1e-4
    _, report = extracted(adapted, samples[1:], tmp_path / "f", refresh=True)
    assert (report.fresh, report.model_calls) == (2, 0)


def test_features_that_the_store_lacks_are_added_and_the_others_are_not_computed_again(
    adapted: VLM, tmp_path: Path
) -> None:
    extracted(adapted, mixed_samples()[:6], tmp_path / "f", ["el2n", "gradient"])
    store, report = extracted(adapted, mixed_samples()[:6], tmp_path / "f", ["blind_log_perplexity"])
    assert (report.scored, report.image_calls, report.backward_calls) == (6, 0, 0)
    assert report.blind_calls > 0
    assert store.names() == ["id", "el2n", "gradient", "blind_log_perplexity"]
    extracted(adapted, mixed_samples()[:6], tmp_path / "f", ["n_tokens", "entropy", "el2n"])
    store, report = extracted(adapted, mixed_samples(), tmp_path / "f", ["el2n", "blind_log_perplexity", "entropy"])
    assert (report.fresh, report.scored) == (6, 3)
    whole, _ = extracted(adapted, mixed_samples(), tmp_path / "g", [n for n in store.names() if n != "id"])
    assert store["id"].tolist() == [sample.id for sample in mixed_samples()]
    for name in whole.names():
        if name != "id":
            np.testing.assert_allclose(store[name], whole[name], rtol=1e-4, atol=1e-5, err_msg=name)


def test_adding_a_feature_that_was_interrupted_leaves_the_store_as_it_was(
    adapted: VLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extraction, "SHARD_ROWS", 4)
    extracted(adapted, mixed_samples(), tmp_path / "f", ["el2n"])

    def stop(_rows: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        extract(adapted, mixed_samples(), ["entropy"], tmp_path / "f", SETTINGS, progress=stop)
    assert FeatureStore(tmp_path / "f").names() == ["id", "el2n"]
    done: list[int] = []

    def stop_later(rows: int) -> None:
        done.append(rows)
        if sum(done) > 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        extract(adapted, mixed_samples(), ["entropy"], tmp_path / "f", SETTINGS, progress=stop_later)
    half = FeatureStore(tmp_path / "f")
    assert half.stored_ids() == [sample.id for sample in mixed_samples()[:4]]
    with pytest.raises(InputError, match=r"5 of 9 rows have no features"):
        half.view([sample.id for sample in mixed_samples()])["entropy"]
    store, report = extracted(adapted, mixed_samples(), tmp_path / "f", ["entropy"])
    assert (report.fresh, report.scored) == (4, 5)
    assert len(store["entropy"]) == len(store["el2n"]) == 9


def test_row_whose_content_changed_under_its_id_is_computed_again(adapted: VLM, tmp_path: Path) -> None:
    samples = mixed_samples()
    old = extracted(adapted, samples, tmp_path / "f")[0]["el2n"]
    samples[1] = talk("text", "How many legs has a bird?", "2")
    samples[5] = talk("日本", "<image>\nこれは何ですか。", "猫です。", images=[9])  # another picture, the same words
    store, report = extracted(adapted, samples, tmp_path / "f")
    assert (report.stale, report.scored, report.fresh) == (2, 2, 7)
    ids = [sample.id for sample in samples]
    anew, _ = extracted(adapted, samples, tmp_path / "g")
    np.testing.assert_allclose(store.view(ids)["el2n"], anew["el2n"], rtol=1e-4)
    assert np.abs(anew["el2n"] - old)[[1, 5]].min() > 1e-4
    assert sorted(store.stored_ids()) == sorted(ids)


def test_pool_whose_rows_were_pruned_and_added_to_costs_the_new_rows_only(adapted: VLM, tmp_path: Path) -> None:
    pool = Pool.create(tmp_path / "pool")
    pool.add(mixed_samples()[:6])
    extracted(adapted, pool, tmp_path / "f")
    pool.remove(["text"], step=1)
    pool.add(mixed_samples()[6:])
    store, report = extracted(adapted, pool, tmp_path / "f")
    assert (report.rows, report.fresh, report.scored) == (8, 5, 3)
    assert store.view(pool.ids())["el2n"].shape == (8,)


def test_part_of_a_pool_gives_the_features_that_its_samples_give(adapted: VLM, tmp_path: Path) -> None:
    pool = Pool.create(tmp_path / "pool")
    pool.add(mixed_samples())
    wanted = [sample.id for sample in mixed_samples()][::-2]
    store, report = extracted(adapted, PoolPart(pool, wanted), tmp_path / "f")
    listed, _ = extracted(adapted, pool.take(wanted), tmp_path / "g")
    assert (report.rows, report.scored) == (len(wanted), len(wanted))
    assert store.stored_ids() == listed.stored_ids() == wanted
    for name in listed:
        np.testing.assert_array_equal(store[name], listed[name])


def test_features_are_the_same_whatever_the_encoder_remembers(
    adapted: VLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chat, "REMEMBERED_BYTES", 4000)
    limited = ChatEncoder(adapted)
    monkeypatch.undo()
    encoders = [None, ChatEncoder(adapted, remember=False), limited, ChatEncoder(adapted)]
    for number, encoder in enumerate([*encoders, *encoders[2:]]):  # the last two meet the rows again
        extract(adapted, mixed_samples(), NAMES, tmp_path / str(number), SETTINGS, encoder=encoder)
    first = FeatureStore(tmp_path / "0")
    for number in range(1, 6):
        for name in NAMES:
            np.testing.assert_array_equal(FeatureStore(tmp_path / str(number))[name], first[name])


def test_an_extraction_without_an_encoder_remembers_no_row(
    adapted: VLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[bool] = []
    real = ChatEncoder.__init__

    def init(self: ChatEncoder, vlm: VLM, *, remember: bool = True) -> None:
        made.append(remember)
        real(self, vlm, remember=remember)

    monkeypatch.setattr(ChatEncoder, "__init__", init)
    extract(adapted, mixed_samples(), ["n_answer_tokens"], tmp_path / "f", SETTINGS)
    assert made == [False]


def test_ids_that_need_quoting_are_replaced_too(adapted: VLM, tmp_path: Path) -> None:
    name = 'it\'s "a" \\ %_; --'
    extracted(adapted, [talk(name, "One?", "yes"), talk("b", "Two?", "no")], tmp_path / "f", ["el2n"])
    store, report = extracted(adapted, [talk(name, "Three?", "no")], tmp_path / "f", ["el2n"])
    assert (report.stale, sorted(store.stored_ids())) == (1, sorted([name, "b"]))


def test_id_that_occurs_twice_is_refused(adapted: VLM, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="an id occurs twice"):
        extract(adapted, [talk("a", "One?", "yes"), talk("a", "Two?", "no")], ["el2n"], tmp_path / "f")


def test_two_processes_never_write_one_store(adapted: VLM, tmp_path: Path) -> None:
    inner: list[str] = []

    def second(_rows: int) -> None:
        with pytest.raises(InputError, match="another process is extracting into"):
            extract(adapted, mixed_samples(), ["el2n"], tmp_path / "f", SETTINGS)
        inner.append("refused")

    extract(adapted, mixed_samples(), ["el2n"], tmp_path / "f", SETTINGS, progress=second)
    assert inner
    assert len(FeatureStore(tmp_path / "f").stored_ids()) == 9


def test_new_checkpoint_costs_live_rows_only_and_no_vision_tower_call(adapted: VLM, tmp_path: Path) -> None:
    cache = VisionCache(adapted, tmp_path / "vision")
    _, report = extracted(adapted, mixed_samples(), tmp_path / "f1", vision=cache)
    images = {i.sha256 for sample in mixed_samples() for i in sample.images}
    assert (report.tower_images, report.cached_images) == (len(images), report.images - len(images))
    randomise_lora(adapted, 1)
    _, report = extracted(adapted, mixed_samples()[2:], tmp_path / "f2", vision=cache)
    assert (report.rows, report.scored, report.tower_images) == (7, 7, 0)
    assert report.cached_images == report.images > 0
    _, report = extracted(adapted, mixed_samples()[2:], tmp_path / "f3")
    assert report.tower_images == report.images > 0


CHILD = """
    import os, signal, sys
    from pathlib import Path

    sys.path[:0] = [sys.argv[1]]
    import torch
    from tiny_vlm import mixed_samples
    from liit.demo.vlm.tower import register
    from liit.features import extract, extraction
    from liit.features.table import FeatureTable
    from liit.config import FeatureSettings
    from liit.model.vlm import load_vlm

    register()
    torch.set_num_threads(1)
    extraction.SHARD_ROWS = 2
    append, done = FeatureTable.append, []

    def dying(self, *args):
        if len(done) == 2:
            def half(self, _rows):
                (self.path / "data" / "half.lance").write_bytes(b"half a file")
                os.kill(os.getpid(), signal.SIGKILL)

            FeatureTable._commit = half
        done.append(1)
        return append(self, *args)

    FeatureTable.append = dying
    extract(load_vlm(sys.argv[2]), mixed_samples(), ["el2n", "entropy"], sys.argv[3], FeatureSettings())
"""


@pytest.mark.slow
def test_extraction_killed_while_it_writes_a_shard_completes_at_the_same_call(
    tiny: VLM, tiny_path: Path, tmp_path: Path
) -> None:
    tests = str(Path(__file__).parent.parent)
    child = [sys.executable, "-c", textwrap.dedent(CHILD), tests, str(tiny_path), str(tmp_path / "f")]
    died = subprocess.run(child, check=False, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert died.returncode == -signal.SIGKILL, died.stderr.decode()
    assert len(FeatureStore(tmp_path / "f").stored_ids()) == 4
    store = extract(tiny, mixed_samples(), ["el2n", "entropy"], tmp_path / "f", FeatureSettings())
    undisturbed = extract(tiny, mixed_samples(), ["el2n", "entropy"], tmp_path / "g", FeatureSettings())
    assert store["id"].tolist() == [s.id for s in mixed_samples()]
    for name in ("el2n", "entropy"):
        np.testing.assert_allclose(store[name], undisturbed[name], rtol=1e-5)


def test_black_pictures_need_no_tokens_of_their_own(
    adapted: VLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []
    real = ChatEncoder.encode

    def encode(self: ChatEncoder, sample: Sample, *, images: bool = True) -> Encoded:
        asked.append(images)
        return real(self, sample, images=images)

    monkeypatch.setattr(ChatEncoder, "encode", encode)
    settings = SETTINGS.model_copy(update={"blind": "zeros"})
    store, _ = extracted(adapted, mixed_samples(), tmp_path / "f", ["image_grounding"], settings=settings)
    assert asked == [True] * 9
    assert np.isnan(store["image_grounding"]).tolist() == [not sample.images for sample in mixed_samples()]
