"""A whole run, predicted: what is counted is right, and the datasets are left alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny import BUDGET, QUESTIONS, ROWS, STEPS, listing

from liit.config import load_config
from liit.doctor import predict_continuum
from liit.doctor.continuum import ContinuumPrediction
from liit.doctor.draw import draw
from liit.doctor.examine import ModelAtHand
from liit.errors import InputError


def predict(path: Path, *settings: str, run: bool = False) -> ContinuumPrediction:
    return predict_continuum(ModelAtHand(load_config(path, settings), run=run), budget=0.1)


def test_steps_of_adapt_infinity(continuum: Path) -> None:
    found = predict(continuum)
    assert [step.name for step in found.steps] == list(STEPS)
    assert [step.new for step in found.steps] == [ROWS] * 3
    assert [step.pool for step in found.steps] == [ROWS, 2 * ROWS, 3 * ROWS]
    assert [step.extraction.rows for step in found.steps if step.extraction] == [ROWS, 2 * ROWS, 3 * ROWS]
    assert [step.trained for step in found.steps] == [BUDGET] * 3
    assert [step.questions for step in found.steps] == [3 * 2 * QUESTIONS] * 3
    assert found.at_least
    assert found.seconds > 0


@pytest.mark.parametrize(
    ("method", "extracts", "trained"),
    [("replay", 0, [16, 16, 16]), ("sequential", 0, [16, 16, 16]), ("multitask", 0, [0, 0, 240]),
     ("lite-adapt-inf", 3, [16, 16, 16])],
)  # fmt: skip
def test_methods_differ_in_what_they_do(continuum: Path, method: str, extracts: int, trained: list[int]) -> None:
    found = predict(continuum, f"method={method}", "training.multitask_epochs=2")
    assert sum(step.extraction is not None for step in found.steps) == extracts
    assert [step.trained for step in found.steps] == trained
    assert bool(found.feature_bytes) == bool(extracts)


def test_pruning_keeps_the_pool_small(continuum: Path) -> None:
    found = predict(continuum, "method=lite-adapt-inf")
    assert [step.pool for step in found.steps] == [ROWS, 2 * ROWS, 50 + ROWS]


def test_trying_a_little_gives_times_and_leaves_the_data_alone(continuum: Path, cache: Path) -> None:
    before, kept = listing(continuum.parent), listing(cache)
    found = predict(continuum, run=True)
    assert not found.at_least
    assert all(step.seconds > 0 for step in found.steps)
    assert found.vision_bytes > 0
    assert found.adapter_bytes > 0
    assert listing(continuum.parent) == before
    assert {k: v for k, v in listing(cache).items() if v is not None} == {
        k: v for k, v in kept.items() if v is not None
    }


def test_bad_rows_and_shared_images_are_counted(continuum: Path, tmp_path: Path) -> None:
    loaded = load_config(continuum)
    part = loaded.steps[0].train[0]
    found = draw(part)
    assert (found.rows, found.bad, found.images, len(found.samples)) == (ROWS, 0, ROWS // 2, ROWS)
    rows = json.loads(part.path.read_text())
    for row in rows[:10]:
        row["conversations"] = "nothing"
    (tmp_path / "bad.json").write_text(json.dumps(rows))
    changed = part.model_copy(update={"path": tmp_path / "bad.json", "images": part.path.parent})
    found = draw(changed)
    assert (found.rows, found.bad, found.images) == (ROWS - 10, 10, (ROWS - 10) // 2)


def test_some_rows_stand_for_all(continuum: Path) -> None:
    part = load_config(continuum).steps[0].train[0]
    few = draw(part, seed=1, most=7)
    assert (few.rows, len(few.samples)) == (ROWS, 7)
    assert [s.id for s in few.samples] == [s.id for s in draw(part, seed=1, most=7).samples]
    assert [s.id for s in few.samples] != [s.id for s in draw(part, seed=2, most=7).samples]
    numbers = [int(sample.id.rpartition("-")[2]) for sample in few.samples]
    assert numbers == sorted(numbers)


def test_a_step_without_a_usable_row_is_one_line(continuum: Path, tmp_path: Path) -> None:
    loaded = load_config(continuum)
    part = loaded.steps[1].train[0]
    rows = json.loads(part.path.read_text())
    (tmp_path / "bad.json").write_text(json.dumps([{**row, "conversations": "nothing"} for row in rows]))
    with pytest.raises(InputError, match=r"steps\.1: of beta none of the rows looked at can be used"):
        predict(continuum, f"steps.1.train.0.path={tmp_path / 'bad.json'}")
