"""The feature store: appended shard by shard, safe against a kill, never a mixture of two checkpoints."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import lance
import numpy as np
import pyarrow as pa
import pytest
from tiny_vlm import mixed_samples, randomise_lora

from liit.config import FeatureSettings
from liit.errors import InputError
from liit.features import FeatureStore, extract, extraction
from liit.model.vlm import VLM

KEY = {"checkpoint": "a", "settings": {"dim": 2}}
SETTINGS = FeatureSettings(dim=32, dtype="float32")
NAMES = ["el2n", "image_grounding", "gradient"]


def filled(path: Path) -> FeatureStore:
    store = FeatureStore(path, KEY)
    store.append(["b", "a"], {"el2n": np.float32([1, np.nan]), "gradient": np.float16([[1, 2], [3, 4]])})
    store.append(["日本"], {"el2n": np.float32([3]), "gradient": np.float16([[5, 6]])})
    return store


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
    store.append(["c"], {"el2n": np.float32([4]), "gradient": np.float16([[7, 8]])})
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
    with pytest.raises(KeyError, match="entropy"):
        store["entropy"]
    assert "entropy" not in store
    assert "el2n" in store.view(["x"])


def test_another_key_is_refused_and_says_what_differs(tmp_path: Path) -> None:
    filled(tmp_path / "f")
    with pytest.raises(InputError, match=r"another checkpoint; .*never mixed"):
        FeatureStore(tmp_path / "f", {**KEY, "checkpoint": "b"})
    with pytest.raises(InputError, match="another settings"):
        FeatureStore(tmp_path / "f", {**KEY, "settings": {"dim": 3}})


def test_place_without_features_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nothing at"):
        FeatureStore(tmp_path / "f")
    lance.write_dataset(pa.table({"id": ["a"]}), str(tmp_path / "other"))
    for key in (None, KEY):
        with pytest.raises(InputError, match="not a feature store"):
            FeatureStore(tmp_path / "other", key)


def test_folders_left_by_a_kill_before_the_first_commit_are_no_obstacle(tmp_path: Path) -> None:
    for folder in ("data", "_versions", "_transactions"):
        (tmp_path / "f" / folder).mkdir(parents=True)
    (tmp_path / "f" / "data" / "left.lance").write_bytes(b"half a fi")
    store = filled(tmp_path / "f")
    assert store["id"].tolist() == ["b", "a", "日本"]


def test_extraction_stopped_between_shards_goes_on_without_repeating_a_row(
    adapted: VLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extraction, "SHARD_ROWS", 2)
    seen: list[int] = []

    def stop(rows: int) -> None:
        seen.append(rows)
        if len(seen) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        extract(adapted, mixed_samples(), NAMES, tmp_path / "f", SETTINGS, progress=stop)
    extract(adapted, mixed_samples(), NAMES, tmp_path / "f", SETTINGS, progress=seen.append)
    assert seen == [2, 2, 2, 2, 1]
    undisturbed = extract(adapted, mixed_samples(), NAMES, tmp_path / "g", SETTINGS)
    for name, values in FeatureStore(tmp_path / "f").items():
        np.testing.assert_array_equal(values, undisturbed[name])


def test_finished_extraction_runs_no_model_and_new_rows_cost_only_themselves(
    adapted: VLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    extract(adapted, mixed_samples()[:5], NAMES, tmp_path / "f", SETTINGS)
    extract(adapted, mixed_samples(), NAMES, tmp_path / "f", SETTINGS, progress=seen.append)
    assert seen == [len(mixed_samples()) - 5]
    monkeypatch.setattr(extraction.Extractor, "__call__", lambda *_: pytest.fail("computed again"))
    extract(adapted, mixed_samples(), NAMES, tmp_path / "f", SETTINGS, progress=seen.append)
    assert len(seen) == 1


def test_store_of_another_checkpoint_or_seed_is_refused(adapted: VLM, tmp_path: Path) -> None:
    extract(adapted, mixed_samples()[:2], NAMES, tmp_path / "f", SETTINGS)
    with pytest.raises(InputError, match="another sketch_seed"):
        extract(adapted, mixed_samples(), NAMES, tmp_path / "f", SETTINGS, seed=1)
    adapted.processor.chat_template += " "
    with pytest.raises(InputError, match="another template"):
        extract(adapted, mixed_samples(), NAMES, tmp_path / "f", SETTINGS)
    randomise_lora(adapted, 1)
    with pytest.raises(InputError, match="another checkpoint"):
        extract(adapted, mixed_samples(), NAMES, tmp_path / "f", SETTINGS)


CHILD = """
    import os, signal, sys
    from pathlib import Path

    sys.path[:0] = [sys.argv[1]]
    import torch
    from tiny_vlm import mixed_samples
    from liit.demo.vlm.tower import register
    from liit.features import extract, extraction
    from liit.features.store import FeatureStore
    from liit.config import FeatureSettings
    from liit.model.vlm import load_vlm

    register()
    torch.set_num_threads(1)
    extraction.SHARD_ROWS = 2
    append, done = FeatureStore.append, []

    def dying(self, *args):
        if len(done) == 2:
            import lance

            def half(table, path, **_):
                (Path(path) / "data" / "half.lance").write_bytes(b"half a file")
                os.kill(os.getpid(), signal.SIGKILL)

            lance.write_dataset = half
        append(self, *args)
        done.append(1)

    FeatureStore.append = dying
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
