"""The same numbers give the same answer in whatever container they come; what is no array is refused by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from method_matrix import CASES

import liit
from liit.selection import adam_direction, select, spherical_kmeans

Features = dict[str, np.ndarray]


def mixed_order(column: np.ndarray) -> np.ndarray:
    """A view whose rows are not next to each other in memory, and whose vectors are stored by column."""
    wide = np.empty((2 * len(column), *column.shape[1:]), dtype=column.dtype, order="F")
    wide[1::2] = column
    return wide[1::2]


def swapped(column: np.ndarray) -> np.ndarray:
    return column.astype(column.dtype.newbyteorder()) if column.dtype.kind == "f" else column


def arrow(column: np.ndarray) -> Any:
    return pa.array(column.tolist())


FORMS: dict[str, Callable[[np.ndarray], Any]] = {
    "lists": lambda column: column.tolist(),
    "arrow": arrow,
    "chunked arrow": lambda column: pa.chunked_array([arrow(column[:7]), arrow(column[7:])]),
    "strided": mixed_order,
    "byte-swapped": swapped,
    "objects": lambda column: np.array([*column.tolist(), None], dtype=object)[:-1],
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("name", "options"), CASES, ids=[f"{n}-{i}" for i, (n, _) in enumerate(CASES)])
def test_the_container_of_a_column_does_not_matter(
    name: str, options: dict[str, Any], form: str, make_features: Callable[..., Features]
) -> None:
    features = make_features(40, 5, "missing")
    first = select(name, features, 17, **options)
    second = select(name, {key: FORMS[form](column) for key, column in features.items()}, 17, **options)
    assert second.rows.tolist() == first.rows.tolist()
    assert second.table.equals(first.table)


@pytest.mark.parametrize(("name", "options"), CASES, ids=[f"{n}-{i}" for i, (n, _) in enumerate(CASES)])
def test_every_budget_from_none_to_all(
    name: str, options: dict[str, Any], make_features: Callable[..., Features]
) -> None:
    features = make_features(13, 6, "missing")
    for budget in range(15):
        for given in (budget, np.int32(budget), np.uint8(budget)):
            assert len(select(name, features, given, **options)) == min(budget, 13)


def test_none_is_a_missing_value() -> None:
    scores = [3.0, None, 1.0, 2.0]
    expected = select("el2n", {"el2n": [3.0, np.nan, 1.0, 2.0]}, 4, explain="all").table
    assert select("el2n", {"el2n": scores}, 4, explain="all").table.equals(expected)
    assert select("el2n", {"el2n": pa.array(scores)}, 4, explain="all").table.equals(expected)
    for vectors in ([[1.0, 0.0], None, [0.0, 1.0]], [[1.0, 0.0], [None, 2.0], [0.0, 1.0]]):
        for given in (vectors, pa.array(vectors)):
            assert select("semdedup", {"embedding": given}, 3, k=1).info["without_vector"] == 1
    assert liit.stratified_sample(scores, 4).tolist() == [0, 1, 2, 3]
    assert liit.score_entropy([1.0, None, 2.0]) == liit.score_entropy([1.0, 2.0])


def test_building_blocks_take_lists_and_views() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 5)).astype(np.float32)
    labels = rng.integers(3, size=60)
    for form in (np.asfortranarray(x), mixed_order(x), x.tolist(), pa.array(x.tolist())):
        assert np.array_equal(liit.leverage(form)[0], liit.leverage(x)[0])
        assert np.array_equal(liit.semantic_prune(form, labels.tolist(), 31), liit.semantic_prune(x, labels, 31))
        assert np.array_equal(liit.gist_scores(form, x[:4] * 2, 0.9), liit.gist_scores(x, x[:4] * 2, 0.9))
        assert np.array_equal(spherical_kmeans(form, 3).labels, spherical_kmeans(x, 3).labels)
    assert np.array_equal(liit.round_robin(x.T.tolist(), 9), liit.round_robin(x.T, 9))
    assert liit.allocate(tuple(labels.tolist()), 9).tolist() == liit.allocate(labels, 9).tolist()


def test_ids_of_any_integer_or_string_type_keep_their_type() -> None:
    large = np.array([2**63 + 5, 1, 7], dtype=np.uint64)
    assert select("random", {"id": large}, 3).table["id"].to_pylist() == large.tolist()
    variable = np.array(["a", "a long one", "bb"], dtype=np.dtypes.StringDType())
    assert select("random", {"id": variable}, 3).ids.tolist() == ["a", "a long one", "bb"]
    assert select("random", {"id": np.array([3, 1], dtype=object)}, 2).ids.tolist() == [3, 1]


UNEVEN: Any = [[1.0], [1.0, 2.0], [1.0]]
X = np.random.default_rng(0).normal(size=(3, 2))


def one(feature: str, values: Any) -> dict[str, Any]:
    return {"id": ["a", "bb", "c"], feature: values}


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: select("random", {"id": ["a", 1]}, 1), "id must be all strings or all whole numbers"),
        (lambda: select("random", {"id": ["a", None]}, 1), "id must be all strings"),
        (lambda: select("random", {"id": [b"a", b"b"]}, 1), "id must be strings or whole numbers"),
        (lambda: select("random", {"id": [True, False]}, 1), "id must be strings or whole numbers"),
        (lambda: select("random", {"id": UNEVEN}, 1), "id must be an array with rows of equal length"),
        (lambda: select("random", {"id": [2**70, 1]}, 1), "id must be"),
        (lambda: select("random", {"id": ["a", "b"], "el2n": [1.0, 2.0, 3.0]}, 1), "id 2, el2n 3"),
        (lambda: select("semdedup", one("embedding", UNEVEN), 1), "embedding must be an array with rows of equal"),
        (lambda: select("semdedup", one("embedding", [1.0, 2.0, 3.0]), 1), "embedding must have one vector per row"),
        (lambda: select("el2n", one("el2n", ["x", "y", "z"]), 1), "el2n must be numbers"),
        (lambda: select("el2n", one("el2n", X), 1), "el2n must have one number per row"),
        (lambda: select("el2n", one("el2n", X[:, 0] * 1j), 1), "el2n must be numbers"),
        (lambda: select("el2n", one("el2n", X[:, 0]), 1, stratified="yes"), "stratified must be True or False"),
        (lambda: select("el2n", one("el2n", X[:, 0]), 1, where=X), "where must be one of"),
        (lambda: select("el2n", one("el2n", X[:, 0]), 1, explain=None), "explain must be one of"),
        (lambda: select(["random"], one("el2n", X[:, 0]), 1), "selector must be a name"),  # type: ignore[arg-type]
        (lambda: select("random-balanced", one("source", ["x", None, "y"]), 1), "source must be all strings"),
        (lambda: select("random-balanced", one("source", [1.0, np.nan, 2.0]), 1), "source must be whole numbers or"),
        (lambda: select("random-balanced", one("source", X), 1), "source must have one value per row"),
        (lambda: select("new-only", one("new", ["yes", "no", "no"]), 1), "new must be booleans"),
        (lambda: select("semdedup", one("embedding", X), 1, labels=[0, np.inf, 1]), "labels must be whole numbers or"),
        (lambda: select("semdedup", one("embedding", X), 1, labels=[0, None, 1]), "labels must be whole numbers or"),
        (lambda: select("semdedup", one("embedding", X), 1, labels=["a", 1, "b"]), "labels must be all strings or all"),
        (lambda: select("semdedup", one("embedding", X), 1, k_grid=5), "k_grid must be a list"),
        (lambda: select("semdedup", one("embedding", X), 1, k_grid="5"), "k_grid must be a list"),
        (lambda: select("coincide", one("embedding", X), 1, sigma=1e-300), "sigma must be a number above 0"),
        (lambda: select("density", one("embedding", X), 1, temperature=10**400), "temperature must be a number"),
        (lambda: select("rds-plus", one("last_hidden_weighted", X), 1, queries=UNEVEN), "queries must be an array"),
        (lambda: select("rds-plus", one("last_hidden_weighted", X), 1, queries=X, spend_turn=1), "spend_turn must be"),
        (lambda: select("gist", one("gradient", X), 1, queries=X, groups=[None, "a", "b"]), "groups must be all"),
        (lambda: select("less", one("gradient", X), 1, queries=X, learning_rates=["a"]), "learning_rates must be"),
        (lambda: select("less", one("gradient", X), 1, queries=X, checkpoints=[["gradient"]]), "checkpoints must be"),
        (lambda: liit.allocate([[1], [2, 3]], 1), "sizes must be an array"),
        (lambda: liit.allocate(np.array([2**63], dtype=np.uint64), 1), "sizes must sum to less"),
        (lambda: liit.allocate([2**62] * 4, 1), "sizes must sum to less"),
        (lambda: liit.allocate("12", 1), "sizes must be a list of whole numbers"),
        (lambda: liit.stratified_sample(UNEVEN, 1), "scores must be an array"),
        (lambda: liit.stratified_sample([1.0, 2.0], 1, trim=10**400), "trim must be a number"),
        (lambda: liit.score_entropy(3.0), "scores must have one number per row"),
        (lambda: liit.semantic_prune(UNEVEN, [0, 0, 0], 1), "embeddings must be an array"),
        (lambda: liit.semantic_prune(X, [0, None, 0], 1), "labels must be whole numbers or strings"),
        (lambda: liit.semantic_prune(X, [0, 0, 0], 1, [2.0, 1.0, 0.0]), "order must be a permutation"),
        (lambda: liit.leverage(UNEVEN), "x must be an array"),
        (lambda: liit.leverage(X, energy=1.5), "energy must be a number above 0 and at most 1"),
        (lambda: liit.round_robin(UNEVEN, 1), "similarity must be an array"),
        (lambda: liit.round_robin(X, 1, spend_turn="no"), "spend_turn must be True or False"),  # type: ignore[arg-type]
        (lambda: liit.gist_scores(X, UNEVEN, 1), "targets must be an array"),
        (lambda: liit.gist_scores(X, X * 2, "all"), "rank must be"),  # type: ignore[arg-type]
        (lambda: adam_direction(["a"], [1.0], [1.0]), "gradient must be numbers"),
        (lambda: spherical_kmeans(X, k=0), "k must be at least 1"),
        (lambda: spherical_kmeans(X[0]), "x must have one vector per row"),
    ],
)
def test_what_is_wrong_is_named(call: Callable[[], Any], named: str) -> None:
    with pytest.raises(liit.InputError, match=named):
        call()


def test_whole_energy_may_be_written_as_one() -> None:
    x = np.random.default_rng(1).normal(size=(20, 3))
    assert liit.leverage(x, 1)[1] == liit.leverage(x, 1.0)[1] == liit.leverage(x, np.float32(1))[1] == 3
