"""Runs that score a part of the pool, or with a proxy, and what the doctor makes of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import BUDGET, ROWS, differing, write_continuum

from liit.config import load_config
from liit.data.pool import Pool
from liit.doctor import predict_continuum
from liit.doctor.continuum import ContinuumPrediction
from liit.doctor.examine import ModelAtHand, to_be_scored
from liit.errors import InputError
from liit.features import FeatureStore
from liit.features.rescore import AGE, LEAST
from liit.features.table import FeatureTable
from liit.lifelong import run
from liit.lifelong.progress import Reporter

SOME = "features.rescore={share: 0.6, sample: 0.2}"


@pytest.fixture(scope="module")
def short(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_continuum(tmp_path_factory.mktemp("short"), model, steps=2)


class Notes(Reporter):
    """Keeps what a run says."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []

    def note(self, text: str) -> None:
        self.said.append(text)


def extractions(out: Path) -> list[dict[str, int]]:
    stages = json.loads((out / "run.json").read_text(encoding="utf-8"))["stages"]
    return [stage for stage in stages if stage["stage"] == "extract"]


def test_run_predicts_a_part_and_ends_the_same_when_it_is_cut_off(
    short: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes = Notes()
    run(short, tmp_path / "run", overrides=[SOME, "selection.k=2"], reporter=notes)
    first, second = extractions(tmp_path / "run")
    assert (first["predicted"], first["carried"], second["carried"]) == (0, 0, 0)
    age = FeatureStore(tmp_path / "run" / "steps" / folder_of(tmp_path / "run", 2) / "features")[AGE]
    assert len(age) == 2 * ROWS
    assert second["predicted"] == int((age == 1).sum()) > 0
    assert any(f"{second['predicted']} predicted" in line for line in notes.said)
    continuum = load_config(tmp_path / "run" / "continuum.yaml")
    samples = [sample for batch in Pool.open(tmp_path / "run" / "pool").scan() for sample in batch]
    expected = to_be_scored(samples, continuum, tmp_path / "run" / "steps" / folder_of(tmp_path / "run", 1))
    assert len(expected) == second["rows"] - second["predicted"], "the doctor counts what is scored"

    count = 0
    real: Callable[..., int] = FeatureTable.append

    def cut_off(self: FeatureTable, *args: object) -> int:
        nonlocal count
        count += 1
        if count in (2, 4, 6):  # between the draws of the second step
            raise KeyboardInterrupt
        return real(self, *args)

    monkeypatch.setattr(FeatureTable, "append", cut_off)
    cuts = 0
    while cuts < 9:
        try:
            run(short, tmp_path / "cut", overrides=[SOME, "selection.k=2"])
            break
        except KeyboardInterrupt:
            cuts += 1
    assert cuts == 3
    assert not differing(tmp_path / "run", tmp_path / "cut")


def test_proxy_scores_every_row_once(short: Path, model: Path, tmp_path: Path) -> None:
    run(short, tmp_path / "run", overrides=[f"features.proxy={model}"])
    steps = [tmp_path / "run" / "steps" / folder_of(tmp_path / "run", n) / "features" for n in (1, 2)]
    old, new = (FeatureStore(step) for step in steps)
    assert old.key == new.key  # of the proxy, which no training has changed
    assert AGE not in new
    ids = old.stored_ids()
    np.testing.assert_array_equal(new.view(ids)["gradient"], old.view(ids)["gradient"])
    facts = extractions(tmp_path / "run")
    assert [(one["rows"], one["predicted"], one["carried"]) for one in facts] == [(ROWS, 0, 0), (2 * ROWS, 0, ROWS)]


def folder_of(directory: Path, number: int) -> str:
    return next(p.name for p in sorted((directory / "steps").iterdir()) if p.name.startswith(f"{number:02}-"))


def test_a_proxy_is_never_scored_again(short: Path, model: Path) -> None:
    with pytest.raises(InputError, match="rescore: proxy is never trained"):
        load_config(short, [f"features.proxy={model}", SOME])


def predict(path: Path, *settings: str) -> ContinuumPrediction:
    return predict_continuum(ModelAtHand(load_config(path, settings), run=False), budget=0.1)


def test_doctor_counts_rows_that_will_be_scored(continuum: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("liit.doctor.examine.matrix_rate", lambda *_: 1e9)

    def rows(*settings: str) -> list[int]:
        steps = predict(continuum, *settings).steps
        return [step.extraction.rows for step in steps if step.extraction is not None]

    assert rows() == [ROWS, 2 * ROWS, 3 * ROWS]
    assert rows(SOME) == [ROWS, ROWS + 24, ROWS + 48]
    least = 12 * (BUDGET / 12 + LEAST)  # of twelve clusters at the third step, trained rows and others
    assert rows(SOME, "selection.k=12") == [ROWS, 2 * ROWS, ROWS + least]
    assert rows(f"features.proxy={model}") == [ROWS] * 3
    assert predict(continuum, SOME).feature_bytes == predict(continuum).feature_bytes


def test_doctor_takes_autocast_for_scoring_and_not_for_training(short: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rates = {torch.float32: 1e9, torch.bfloat16: 4e9}
    monkeypatch.setattr("liit.doctor.examine.matrix_rate", lambda dtype, _: rates[dtype])
    plain, cast = (predict(short, *more).steps[1] for more in ((), ("features.autocast=bfloat16",)))
    assert plain.extraction is not None
    assert cast.extraction is not None
    assert cast.extraction.flops == plain.extraction.flops
    assert cast.extraction.seconds == pytest.approx(plain.extraction.flops / 4e9)
    assert plain.extraction.seconds == pytest.approx(plain.extraction.flops / 1e9)
    assert cast.train_seconds == plain.train_seconds
    assert cast.extraction.peak_memory < plain.extraction.peak_memory


def test_doctor_shares_images_where_the_model_does(short: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("liit.doctor.examine.matrix_rate", lambda *_: 1e9)
    plain, shared = (predict(short, *more).steps[0].extraction for more in ((), ("features.share_images=true",)))
    assert plain is not None
    assert shared is not None
    assert shared.tokens < plain.tokens
    assert shared.flops < plain.flops
    lowest = predict(short, "features.share_images=true", "features.layers=0").steps[0].extraction
    assert lowest is not None
    assert lowest.tokens == plain.tokens, "below the lowest layer there is nothing to share"


def test_proxy_that_is_not_there_is_named_by_its_setting(short: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"features\.proxy: cannot load"):
        run(short, tmp_path / "run", overrides=[f"features.proxy={tmp_path / 'nowhere'}"])
