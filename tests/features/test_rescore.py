"""Some of the last step's rows are scored again, others predicted; an unchanged scorer scores new rows only."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_vlm import mixed_samples, talk

from liit.config import FeatureSettings, RescoreSettings
from liit.data.sample import Message, Sample
from liit.errors import InputError
from liit.features import FeatureStore, extract
from liit.features.extraction import Extractor
from liit.features.rescore import AGE, LEAST, Earlier, Prediction, count_again, draw_rest, draw_sample, lots
from liit.features.table import FeatureTable
from liit.model.lora import lora_parameters
from liit.model.vlm import VLM

NAMES = ("log_perplexity", "gradient", "embedding", "n_tokens")
SETTINGS = FeatureSettings(dim=64, dtype="float32", batch_tokens=500)
SOME = SETTINGS.model_copy(update={"rescore": RescoreSettings(share=0.3, sample=0.5)})


def test_lots_depend_on_ids_seed_and_checkpoint_and_not_on_order() -> None:
    ids = [f"r{i}" for i in range(500)]
    lot = lots(ids, 1, "c")
    assert np.array_equal(lots(ids[::-1], 1, "c"), lot[::-1])
    for other in (lots(ids, 2, "c"), lots(ids, 1, "d")):
        assert (other != lot).all()


def test_sample_takes_from_every_stratum_by_its_size() -> None:
    strata = np.repeat([4, 7, 9, 12], [600, 300, 97, 2])
    lot = lots([str(i) for i in range(999)], 0, "c")
    rows = draw_sample(strata, lot, 100)
    counts = {s: int((strata[rows] == s).sum()) for s in (4, 7, 9, 12)}
    assert counts == {4: 61, 7: 31, 9: 10, 12: 2}
    assert int((strata[draw_sample(strata, lot, 1)] == 9).sum()) == LEAST
    order = np.random.default_rng(0).permutation(999)
    assert set(order[draw_sample(strata[order], lot[order], 100)]) == set(rows.tolist())


@pytest.mark.parametrize("sizes", [[600, 300, 97, 2], [40], [5, 5, 5, 5, 5, 5], [1, 2, 3], [7] * 30])
@pytest.mark.parametrize(("share", "sample"), [(0.25, 0.5), (0.6, 0.2), (0.1, 1.0), (0.05, 0.05)])
def test_the_count_said_before_is_that_of_the_two_draws(sizes: list[int], share: float, sample: float) -> None:
    strata, n = np.repeat(np.arange(len(sizes)), sizes), sum(sizes)
    lot = lots([str(i) for i in range(n)], 0, "c")
    budget = math.ceil(share * n)
    first = draw_sample(strata, lot, math.ceil(sample * budget))
    rest = np.setdiff1d(np.arange(n), first)
    age, drift = np.zeros(len(rest)), dict.fromkeys(range(len(sizes)), 1.0)
    more = draw_rest(strata[rest], lot[rest], age, drift, max(0, budget - len(first)))
    assert count_again(np.asarray(sizes), share, sample) == len(first) + len(more)


def test_rest_goes_where_drift_is_and_to_the_oldest_rows_first() -> None:
    strata = np.repeat([0, 1, 2], [400, 400, 50])
    lot, age = lots([str(i) for i in range(850)], 0, "c"), np.zeros(850)
    age[350:400] = 3
    rows = draw_rest(strata, lot, age, {0: 1.0, 1: 0.5, 2: 0.0}, 90)
    assert len(rows) == 90
    assert [int((strata[rows] == s).sum()) for s in (0, 1, 2)] == [60, 30, 0]
    assert set(range(350, 400)) <= set(rows.tolist())
    assert len(draw_rest(strata, lot, age, {}, 851)) == 850
    assert len(draw_rest(strata, lot, age, {0: 1.0}, 500)) == 500  # more than the moving stratum has


def test_scores_follow_each_stratums_line_and_missing_ones_stay_missing() -> None:
    rng = np.random.default_rng(0)
    strata = np.repeat([0, 1], 300)
    old = rng.uniform(1, 3, 600).astype(np.float32)
    new = np.where(strata == 0, 0.5 * old + 1, old + 2).astype(np.float32)
    old[5] = np.nan
    known = np.arange(0, 600, 2)
    prediction = Prediction(strata[known], {"el2n": old[known]}, {"el2n": new[known]})
    got = prediction(strata, "el2n", old)
    assert np.isnan(got[5])
    fine = ~np.isnan(old)
    np.testing.assert_allclose(got[fine], new[fine], atol=0.06)
    assert np.abs(old - new)[fine].mean() > 0.5
    assert (prediction(strata, "el2n", np.full(600, -50.0)) >= 0).all()


def test_states_move_with_their_stratum_and_gradients_stay() -> None:
    rng = np.random.default_rng(0)
    old = rng.normal(size=(200, 8)).astype(np.float32)
    strata = np.repeat([0, 1], 100)
    new = old + np.where(strata == 0, 3.0, -1.0)[:, None].astype(np.float32)
    known = np.arange(0, 200, 2)
    given = {"embedding": old[known], "gradient": old[known]}, {"embedding": new[known], "gradient": new[known]}
    prediction = Prediction(strata[known], *given)
    np.testing.assert_allclose(prediction(strata, "embedding", old), new, atol=0.5)
    np.testing.assert_array_equal(prediction(strata, "gradient", old), old)


def test_drift_is_nothing_where_new_follows_from_old() -> None:
    rng = np.random.default_rng(0)
    strata = np.repeat([0, 1], 200)
    old = rng.normal(5, 1, 400)
    new = np.where(strata == 0, old + 1, rng.normal(5, 1, 400))
    drift = Prediction(strata, {"el2n": old}, {"el2n": new}).drift()
    assert drift[0] < 0.1
    assert 0.6 < drift[1] < 1.3


# The same through `extract`


def pool() -> list[Sample]:
    words = ["cat", "dog", "red", "box", "yes", "no"]
    rows = [talk(f"{i}", "<image>\nWhat is it?", f"{words[i % 6]} {words[i // 7]}", images=[i % 4]) for i in range(40)]
    return rows + mixed_samples()


@pytest.fixture
def first(adapted: VLM, tmp_path: Path) -> Callable[..., Earlier]:
    """The first step, after which the adapter changes."""

    def make(settings: FeatureSettings = SETTINGS) -> Earlier:
        samples = pool()[:36]
        extract(adapted, samples, NAMES, tmp_path / "one", settings)
        with torch.no_grad():
            for parameter in lora_parameters(adapted).values():
                parameter.mul_(1.2)
        adapted.adapter_id = "trained"
        clusters = {sample.id: int(sample.id) % 3 for sample in samples}
        return Earlier(tmp_path / "one", clusters, frozenset(sample.id for sample in samples[:9]))

    return make


def test_rows_are_scored_anew_or_predicted_and_marked(
    adapted: VLM, tmp_path: Path, first: Callable[..., Earlier]
) -> None:
    earlier, samples = first(), pool()
    exact = extract(adapted, samples, NAMES, tmp_path / "exact", SETTINGS)
    store = extract(adapted, samples, NAMES, tmp_path / "two", SOME, earlier=earlier)
    age = store.view([s.id for s in samples])[AGE]
    assert not age[36:].any()  # new rows
    assert store.report.predicted == int((age == 1).sum()) == len(samples) - store.report.scored
    assert 0 < store.report.predicted < 26
    view, truth = store.view([s.id for s in samples]), exact.view([s.id for s in samples])
    old = FeatureStore(earlier.features).view([s.id for s in samples[:36]])
    scored = age == 0
    for name in NAMES:
        got, expected = view[name][scored], truth[name][scored]
        size = float(np.nanmax(np.abs(expected)))
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4 * size)
    guessed = ~scored
    error = np.abs(view["log_perplexity"] - truth["log_perplexity"])[guessed].mean()
    assert error < np.abs(old["log_perplexity"] - truth["log_perplexity"][:36])[guessed[:36]].mean()
    np.testing.assert_array_equal(view["n_tokens"], truth["n_tokens"])
    assert "predicted" in store.report.notes[-1]


def test_same_call_again_scores_nothing(adapted: VLM, tmp_path: Path, first: Callable[..., Earlier]) -> None:
    earlier = first()
    one = extract(adapted, pool(), NAMES, tmp_path / "two", SOME, earlier=earlier)
    again = extract(adapted, pool(), NAMES, tmp_path / "two", SOME, earlier=earlier)
    assert (again.report.model_calls, again.report.scored, again.report.predicted) == (0, 0, 0)
    assert again.report.fresh == again.report.rows == len(one.stored_ids()) == len(pool())


def test_interrupted_anywhere_ends_the_same(
    adapted: VLM, tmp_path: Path, first: Callable[..., Earlier], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("liit.features.extraction.SHARD_ROWS", 4)
    monkeypatch.setattr("liit.features.carrying.SHARD_ROWS", 4)
    earlier = first()
    whole = extract(adapted, pool(), NAMES, tmp_path / "whole", SOME, earlier=earlier)
    appended = 0
    real = FeatureTable.append

    def append(self: FeatureTable, *args: object) -> int:
        nonlocal appended
        appended += 1
        if appended % 5 == 0:
            raise KeyboardInterrupt
        return real(self, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(FeatureTable, "append", append)
    stops = 0
    while True:
        try:
            got = extract(adapted, pool(), NAMES, tmp_path / "cut", SOME, earlier=earlier)
            break
        except KeyboardInterrupt:
            stops += 1
    assert stops > 2
    assert got.stored_ids() == whole.stored_ids()
    for name in (*NAMES, AGE):
        np.testing.assert_array_equal(got[name], whole[name])


def test_rows_that_stay_unscored_grow_older(adapted: VLM, tmp_path: Path, first: Callable[..., Earlier]) -> None:
    earlier = first()
    extract(adapted, pool(), NAMES, tmp_path / "two", SOME, earlier=earlier)
    adapted.adapter_id = "trained twice"
    later = replace(earlier, features=tmp_path / "two")
    store = extract(adapted, pool(), NAMES, tmp_path / "three", SOME, earlier=later)
    assert store[AGE].max() == 2


def test_predicted_rows_never_pass_for_scored_ones(adapted: VLM, tmp_path: Path, first: Callable[..., Earlier]) -> None:
    extract(adapted, pool(), NAMES, tmp_path / "two", SOME, earlier=first())
    with pytest.raises(InputError, match="predicted of log_perplexity"):
        extract(adapted, pool(), NAMES, tmp_path / "two", SETTINGS)


def test_changed_rows_are_scored(adapted: VLM, tmp_path: Path, first: Callable[..., Earlier]) -> None:
    earlier, samples = first(), pool()
    samples[0] = replace(samples[0], messages=(*samples[0].messages[:1], Message("assistant", "dog red box")))
    store = extract(adapted, samples, NAMES, tmp_path / "two", SOME, earlier=earlier)
    assert store.view([samples[0].id])[AGE][0] == 0


def test_without_an_earlier_step_everything_is_scored_and_that_is_said(adapted: VLM, tmp_path: Path) -> None:
    store = extract(adapted, pool(), NAMES, tmp_path / "one", SOME)
    assert store.report.scored == len(pool())
    assert AGE not in store
    assert "no earlier step" in store.report.notes[0]


def test_other_settings_of_the_last_step_are_refused(
    adapted: VLM, tmp_path: Path, first: Callable[..., Earlier]
) -> None:
    earlier = first(SETTINGS.model_copy(update={"dim": 32}))
    with pytest.raises(InputError, match="another checkpoint, gradient; nothing can be predicted"):
        extract(adapted, pool(), NAMES, tmp_path / "two", SOME, earlier=earlier)
    with pytest.raises(InputError, match="lack el2n"):
        extract(adapted, pool(), ["el2n"], tmp_path / "two", SOME, earlier=earlier)


def test_scorer_that_has_not_changed_sees_new_rows_only(
    adapted: VLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = pool()
    extract(adapted, samples[:36], NAMES, tmp_path / "one", SETTINGS)
    seen: list[str] = []
    real = Extractor.__call__

    def spy(self: Extractor, twins: object, *args: object) -> object:
        seen.extend(twin.row.id for twin in twins)  # type: ignore[attr-defined]
        return real(self, twins, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(Extractor, "__call__", spy)
    earlier = Earlier(tmp_path / "one", {}, frozenset())
    store = extract(adapted, samples[5:], NAMES, tmp_path / "two", SETTINGS, earlier=earlier)
    assert seen == [sample.id for sample in samples[36:]]
    assert (store.report.carried, store.report.scored) == (31, len(samples) - 36)
    whole = FeatureStore(tmp_path / "one").view([s.id for s in samples[5:36]])
    for name in NAMES:
        np.testing.assert_array_equal(store.view([s.id for s in samples[5:36]])[name], whole[name])
    assert AGE not in store
