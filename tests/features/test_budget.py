"""Batches within a token budget, and what happens when memory runs out."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_vlm import mixed_samples

from liit.config import FeatureSettings
from liit.errors import InputError
from liit.features import FEATURES, ExtractionReport, extract
from liit.features.budget import TokenBudget
from liit.features.engine import Extractor, Twin
from liit.features.passes import Passes
from liit.model.chat import ChatEncoder
from liit.model.memory import is_out_of_memory
from liit.model.vlm import VLM

ERRORS = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory: you tried"),
    RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 4 bytes."),
    MemoryError(),
]


def twins(vlm: VLM) -> list[Twin]:
    encoder = ChatEncoder(vlm)
    return [Twin(encoder.encode(s), encoder.encode(s, images=False) if s.images else None) for s in mixed_samples()]


def too_large(monkeypatch: pytest.MonkeyPatch, tokens: int, error: BaseException) -> list[int]:
    """Let the model run out of memory on batches of more than so many tokens, in the middle of its work."""
    seen: list[int] = []
    real = Passes.run

    def run(self: Passes, batch: dict[str, torch.Tensor], *args: object, **options: object) -> object:
        out = real(self, batch, *args, **options)  # type: ignore[arg-type]
        if "labels" in batch or "position_ids" in batch:  # not the check of the head
            seen.append(batch["input_ids"].numel())
            if seen[-1] > tokens:
                raise error
        return out

    monkeypatch.setattr(Passes, "run", run)
    return seen


@pytest.mark.parametrize("error", ERRORS, ids=lambda e: type(e).__name__ + str(e)[-20:])
def test_running_out_of_memory_halves_the_budget_says_so_and_changes_no_result(
    adapted: VLM, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: BaseException
) -> None:
    settings = FeatureSettings(dim=16, batch_tokens=10**5)
    rows = [twin for twin in twins(adapted) if twin.row.id != "long"]
    undisturbed = Extractor(adapted, FEATURES, settings)(rows)
    longest = max(len(twin.row) for twin in rows)
    seen = too_large(monkeypatch, longest, error)
    extractor = Extractor(adapted, FEATURES, settings)
    with caplog.at_level(logging.WARNING, "liit.features"):
        out = extractor(rows)
    for name, values in undisturbed.items():
        np.testing.assert_allclose(out[name], values, rtol=1e-4, atol=1e-4 * np.nanmax(np.abs(values)), err_msg=name)
    report = extractor.report
    failures = [tokens for tokens in seen if tokens > longest]
    assert report.out_of_memory == len(failures) >= 2
    assert report.batch_tokens == failures[-1] // 2
    assert f"features.batch_tokens={failures[0] // 2}" in caplog.text
    assert len(report.notes) == len({*failures})
    assert all(later < failures[0] for later in seen[seen.index(failures[0]) + 1 :])
    settled = len(seen)
    extractor(rows)  # the smaller budget stays
    assert all(tokens <= longest for tokens in seen[settled:])


def test_row_that_does_not_fit_alone_is_named_and_nothing_of_its_shard_is_stored(
    adapted: VLM, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    too_large(monkeypatch, 50, ERRORS[0])
    settings = FeatureSettings(dim=16, batch_tokens=600)
    with pytest.raises(InputError, match=r"'long' with \d+ tokens does not fit into memory in a batch of its own"):
        extract(adapted, mixed_samples(), ["el2n"], tmp_path / "f", settings)
    assert not (tmp_path / "f").exists()
    fitting = [sample for sample in mixed_samples() if sample.id in ("one", "日本", "system")]
    assert len(extract(adapted, fitting, ["el2n"], tmp_path / "f", settings)["el2n"]) == 3


def test_other_errors_are_not_taken_for_a_lack_of_memory(adapted: VLM, monkeypatch: pytest.MonkeyPatch) -> None:
    too_large(monkeypatch, 0, RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    extractor = Extractor(adapted, ["el2n"], FeatureSettings())
    with pytest.raises(RuntimeError, match="mat1"):
        extractor(twins(adapted))
    assert [is_out_of_memory(error) for error in ERRORS] == [True] * 4
    assert not is_out_of_memory(ValueError("out of memory"))


def test_failed_attempt_holds_no_tensors_while_the_next_one_runs() -> None:
    import weakref

    held: list[weakref.ref[torch.Tensor]] = []
    alive: list[bool] = []

    def work(rows: np.ndarray) -> None:
        alive.extend(ref() is not None for ref in held)
        large = torch.zeros(10)
        held.append(weakref.ref(large))
        if len(rows) > 1:
            raise MemoryError

    TokenBudget(100, ExtractionReport()).run([(10, 1)] * 4, work, ["x"] * 4)
    assert len(held) == 6  # 4 rows, 2 rows, then one at a time
    assert not any(alive)


@pytest.mark.parametrize("tokens", [1, 7, 20, 1000])
def test_batches_hold_every_row_once_within_the_budget_longest_first(tokens: int) -> None:
    rng = np.random.default_rng(0)
    lengths = [(int(n), int(rng.integers(0, n + 1))) for n in rng.integers(1, 15, 100)]
    batches: list[np.ndarray] = []
    TokenBudget(tokens, ExtractionReport()).run(lengths, batches.append, [str(i) for i in range(100)])
    assert sorted(np.concatenate(batches).tolist()) == list(range(100))
    order = [lengths[i] for batch in batches for i in batch]
    assert order == sorted(lengths, reverse=True)
    for batch in batches:
        assert len(batch) == 1 or max(lengths[i][0] for i in batch) * len(batch) <= tokens
    TokenBudget(tokens, ExtractionReport()).run([], lambda _: pytest.fail("no rows"), [])


def test_memory_trouble_in_one_shard_is_remembered_in_the_next(
    load_tiny: Callable[..., VLM], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from liit.features import extraction

    monkeypatch.setattr(extraction, "SHARD_ROWS", 3)
    vlm = load_tiny()
    longest = max(len(ChatEncoder(vlm).encode(sample)) for sample in mixed_samples())
    too_large(monkeypatch, longest, ERRORS[2])
    store = extract(vlm, mixed_samples(), ["el2n"], tmp_path / "f", FeatureSettings(batch_tokens=10**5))
    assert store.report is not None
    assert 1 <= store.report.out_of_memory <= 2
    assert len(store["el2n"]) == 9


@pytest.mark.parametrize("call", range(2, 7))
def test_memory_that_runs_out_while_a_model_is_tried_is_not_taken_for_a_family_that_cannot(
    tiny: VLM, monkeypatch: pytest.MonkeyPatch, call: int
) -> None:
    real, calls = Passes.run, list[int]()

    def full(self: Passes, *args: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == call:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return real(self, *args, **options)

    monkeypatch.setattr(Passes, "run", full)
    names, settings = ["log_perplexity", "blind_log_perplexity"], FeatureSettings(share_images=True)
    if call <= 5:  # whole, narrow; rows apart, packed, forked
        with pytest.raises(torch.OutOfMemoryError):
            Extractor(tiny, names, settings)
    else:
        assert Extractor(tiny, names, settings).fork
        assert len(calls) == 5
