"""What every selector must keep, in one matrix; a new selector joins by adding its options, if it has required ones."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from method_matrix import CASES

from liit.selection import Selection, select, selectors

Features = dict[str, np.ndarray]

KINDS = ("plain", "missing", "all-missing", "constant", "zero", "duplicates", "one-cluster")
COLUMNS = ["id", "row", "cluster", "expert", "score", "rank", "reason"]

cases = pytest.mark.parametrize(("name", "options"), CASES, ids=[f"{n}-{i}" for i, (n, _) in enumerate(CASES)])
relaxed = settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.too_slow])


def run(name: str, features: Features, budget: int, options: dict[str, Any], **more: Any) -> Selection:
    return select(name, features, budget, **options, **more)


@cases
@relaxed
@given(
    n=st.one_of(st.integers(0, 3), st.integers(4, 70)),
    budget=st.integers(0, 80),
    seed=st.integers(0, 3),
    kind=st.sampled_from(KINDS),
    ids=st.booleans(),
)
def test_exactly_the_budget_for_any_pool(
    name: str,
    options: dict[str, Any],
    n: int,
    budget: int,
    seed: int,
    kind: str,
    ids: bool,
    make_features: Callable[..., Features],
) -> None:
    features = make_features(n, seed, kind, ids=ids)
    selection = run(name, features, budget, options, seed=seed)
    rows = selection.rows
    assert rows.dtype == np.int64
    assert len(rows) == len(selection) == min(budget, n)
    assert (np.diff(rows) > 0).all()
    assert not len(rows) or (rows[0] >= 0 and rows[-1] < n)
    assert np.array_equal(selection.ids, features["id"][rows] if ids else rows)
    assert selection.table.column_names == COLUMNS
    assert selection.table["row"].to_pylist() == rows.tolist()
    assert selection.table["id"].to_pylist() == selection.ids.tolist()
    assert all(selection.table["reason"].to_pylist())
    assert selection.labels is None or (selection.labels.shape == (n,) and selection.labels.min(initial=0) >= 0)
    json.dumps(selection.info, allow_nan=False)


@pytest.mark.parametrize("name", [name for name, s in selectors().items() if "labels" in s.options])
@relaxed
@given(
    labels=st.lists(st.sampled_from([-3, 0, 7, 10**12]), max_size=40),
    budget=st.integers(0, 45),
    kind=st.sampled_from(KINDS),
    words=st.booleans(),
)
def test_exactly_the_budget_for_clusters_that_are_given_whatever_their_names_and_sizes(
    name: str, labels: list[int], budget: int, kind: str, words: bool, make_features: Callable[..., Features]
) -> None:
    features = make_features(len(labels), 0, kind)
    given_labels = np.array([str(label) for label in labels], dtype="<U13") if words else np.array(labels, dtype=int)
    selection = select(name, features, budget, labels=given_labels)
    assert len(selection.rows) == len(np.unique(selection.rows)) == min(budget, len(labels))
    assert np.array_equal(selection.labels, np.unique(given_labels, return_inverse=True)[1])


@cases
@pytest.mark.parametrize("kind", ["plain", "missing", "duplicates", "constant"])
def test_a_permutation_of_the_rows_permutes_the_answer(
    name: str, options: dict[str, Any], kind: str, make_features: Callable[..., Features]
) -> None:
    features = make_features(90, 1, kind)
    expected = set(run(name, features, 31, options).ids.tolist())
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(90)
        shuffled = {key: column[order] for key, column in features.items()}
        assert set(run(name, shuffled, 31, options).ids.tolist()) == expected


@cases
def test_without_ids_the_content_decides_and_not_the_order(
    name: str, options: dict[str, Any], make_features: Callable[..., Features]
) -> None:
    if name == "semdedup":
        pytest.skip("without ids the order of the rows says which of two is the earlier: it is part of the question")
    features = make_features(90, 1, ids=False)
    expected = run(name, features, 31, options).rows
    order = np.random.default_rng(0).permutation(90)
    shuffled = {key: column[order] for key, column in features.items()}
    assert np.array_equal(np.sort(order[run(name, shuffled, 31, options).rows]), expected)


@cases
@pytest.mark.parametrize("kind", ["plain", "missing"])
def test_float_width_does_not_matter(
    name: str, options: dict[str, Any], kind: str, make_features: Callable[..., Features]
) -> None:
    wide = make_features(120, 2, kind)
    narrow = {k: v.astype(np.float32) if v.dtype == np.float64 else v for k, v in wide.items()}
    first, second = run(name, wide, 40, options), run(name, narrow, 40, options)
    assert np.array_equal(first.rows, second.rows)
    assert first.table.equals(second.table)


@cases
def test_the_seed_decides_what_is_random_and_nothing_else_does(
    name: str, options: dict[str, Any], make_features: Callable[..., Features]
) -> None:
    features = make_features(60, 3)
    frozen = {key: column.copy() for key, column in features.items()}
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    first, second = (run(name, features, 20, options, seed=7) for _ in range(2))
    assert first.table.equals(second.table)
    assert first.info == second.info
    assert (np.random.get_state()[1] == state).all()  # noqa: NPY002
    assert all(np.array_equal(frozen[key], features[key], equal_nan=frozen[key].dtype.kind == "f") for key in frozen)


@cases
def test_rows_left_out_are_explained_on_request(
    name: str, options: dict[str, Any], make_features: Callable[..., Features]
) -> None:
    features = make_features(50, 4, "missing")
    kept, every = run(name, features, 20, options), run(name, features, 20, options, explain="all")
    assert every.table.column_names == [*COLUMNS, "selected"]
    assert every.table["row"].to_pylist() == list(range(50))
    assert all(every.table["reason"].to_pylist())
    assert every.table.filter(every.table["selected"]).drop_columns(["selected"]).equals(kept.table)


@cases
def test_missing_features_are_named(name: str, options: dict[str, Any], make_features: Callable[..., Features]) -> None:
    features = make_features(10)
    for need in selectors()[name].needs:
        partial = {key: column for key, column in features.items() if key != need}
        with pytest.raises(ValueError, match=need):
            run(name, partial, 5, options)


@cases
def test_infinite_and_misshapen_features_are_refused_by_name(
    name: str, options: dict[str, Any], make_features: Callable[..., Features]
) -> None:
    for need in selectors()[name].needs:
        features = make_features(10)
        if features[need].dtype.kind != "f":
            continue
        infinite = features | {
            need: np.where(np.arange(10).reshape(-1, *[1] * (features[need].ndim - 1)) == 3, np.inf, features[need])
        }
        for wrong in (infinite, features | {need: features[need][:9]}, features | {need: features[need][:, None]}):
            with pytest.raises(ValueError, match=need):
                run(name, wrong, 5, options)


@cases
def test_unknown_options_are_refused_with_the_list(
    name: str, options: dict[str, Any], make_features: Callable[..., Features]
) -> None:
    with pytest.raises(ValueError, match="unknown option 'no_such_option'"):
        run(name, make_features(10), 5, options | {"no_such_option": 1})


def test_selectors_lists_names_lines_and_needs() -> None:
    listed = selectors()
    assert {"adapt-inf", "random", "new-only", "all"} <= set(listed)
    assert listed["adapt-inf"].needs == ("gradient",)
    assert all("\n" not in s.description and s.description for s in listed.values())


def test_an_unknown_name_is_answered_with_the_nearest_and_the_list() -> None:
    with pytest.raises(ValueError, match=r"'adapt-imf'; did you mean 'adapt-inf'\? \(known: .*random"):
        select("adapt-imf", {"id": np.arange(3)}, 1)


@pytest.mark.parametrize(
    ("features", "budget", "named"),
    [
        ({"id": np.arange(3)}, -1, "budget"),
        ({"id": np.arange(3)}, 1.5, "budget"),
        ({"id": np.arange(3)}, None, "budget"),
        ({"id": np.array(["a", "b", "a"])}, 1, "id must be unique"),
        ({"id": np.array([0.5, 1.0])}, 1, "id"),
        ({"id": np.array(["a", 1], dtype=object)}, 1, "id"),
        ({"id": np.zeros((2, 2), int)}, 1, "id"),
        ({"id": np.array(["a", "b"]), "el2n": np.zeros(3)}, 1, "features must all have .* id 2, el2n 3"),
        ({"id": np.array(["a", "b"]), "el2n": 1.0}, 1, "features must all have .* id 2, el2n none"),
        ({}, 1, "features"),
        ([1, 2], 1, "features"),
    ],
)
def test_malformed_calls_name_the_argument(features: Any, budget: Any, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        select("random", features, budget)


def test_ids_may_be_whole_numbers_strings_or_objects() -> None:
    for ids in (
        np.arange(5) + 10,
        np.array(["a", "bb", "ccc", "d", "e"]),
        np.array(["a", "bb", "c", "d", "e"], object),
    ):
        selection = select("random", {"id": ids}, 3)
        assert selection.ids.tolist() == ids[selection.rows].tolist()
