"""The GPU's benchmark runs where there is no GPU, on a small scale."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from liit.model.vision import VisionCache

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

import extraction_gpu  # noqa: E402
import extraction_speed  # noqa: E402
from extraction_subjects import small_card  # noqa: E402

CPU = torch.device("cpu")


def test_both_procedures_agree_in_float32_and_are_timed_in_bfloat16(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.set_num_threads(1)
    for module in (extraction_gpu, extraction_speed):
        monkeypatch.setattr(module, "WORK", tmp_path)
    monkeypatch.setattr(extraction_gpu, "DIM", 64)
    caches, known = list[VisionCache](), list[set[str]]()

    class Cache(VisionCache):
        def __init__(self, *given: Any) -> None:
            super().__init__(*given)
            caches.append(self)

    monkeypatch.setattr(extraction_gpu, "VisionCache", Cache)
    found = extraction_gpu.measure("small", CPU, 8, 1, lambda out: known.append(set(out)))
    assert [sorted({"features", "sketch"} & names) for names in known] == [[], ["features"], ["features", "sketch"]]
    assert caches[0].directory.is_dir()  # "images kept" are kept
    assert caches[0].computed == len(caches[0]) == 7
    assert found["agreement"]["gradient"] < extraction_gpu.GRADIENT_TOLERANCE
    for part in ("features", "sketch"):
        assert set(found[part]["ratio_images_kept"]) == {"official, no projection", "official, signs redrawn"}
        assert found[part]["share_of_matrix_rate"] >= 0
    assert found["features"]["operations"] > found["sketch"]["operations"] > 0


def test_weights_have_their_type_and_values_again_after_the_check_in_float32() -> None:
    subject = small_card(CPU)
    before = {name: parameter.clone() for name, parameter in subject.vlm.base.named_parameters()}
    with extraction_gpu.in_float32(subject):
        assert {parameter.dtype for parameter in subject.vlm.base.parameters()} == {torch.float32}
    for name, parameter in subject.vlm.base.named_parameters():
        assert parameter.dtype == before[name].dtype
        assert torch.equal(parameter, before[name])
    assert {parameter.dtype for parameter in before.values()} == {torch.bfloat16}


def test_without_a_card_it_says_what_it_needs() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    command = [sys.executable, str(ROOT / "benchmarks" / "extraction_gpu.py")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.strip() == (
        "no GPU that torch can use; expected one of 80 GB or more. To try the script: --model small --device cpu"
    )
