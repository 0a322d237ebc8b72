"""The public functions have the names, argument orders, defaults and results that the design promises."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import liit
from liit.errors import InputError

EMPTY = inspect.Parameter.empty
SIGNATURES: dict[str, list[tuple[str, Any]]] = {
    "select": [("name", EMPTY), ("features", EMPTY), ("budget", EMPTY), ("seed", 0)],
    "allocate": [("sizes", EMPTY), ("total", EMPTY)],
    "stratified_sample": [("scores", EMPTY), ("n", EMPTY), ("bins", 50), ("trim", 0.05), ("seed", 0)],
    "score_entropy": [("scores", EMPTY), ("bins", 50)],
    "semantic_prune": [("embeddings", EMPTY), ("labels", EMPTY), ("keep", EMPTY), ("order", None)],
    "leverage": [("x", EMPTY), ("energy", 0.9)],
    "round_robin": [("similarity", EMPTY), ("n", EMPTY), ("spend_turn", True)],
    "gist_scores": [
        ("train", EMPTY),
        ("targets", EMPTY),
        ("rank", EMPTY),
        ("groups", None),
        ("aggregate", "example"),
    ],
    "selectors": [],
}
NEEDS = {
    "adapt-inf": ("gradient",),
    "adapt-inf-embedding": ("embedding",),
    "rds-plus": ("last_hidden_weighted",),
    "gist": ("gradient",),
    "scalselect": ("instructed_vision",),
    "less": ("gradient",),
    "coincide": ("embedding",),
    "density": ("embedding",),
    "semdedup": ("embedding",),
    "perplexity": ("log_perplexity",),
    "el2n": ("el2n",),
    "entropy": ("entropy",),
    "image-grounding": ("image_grounding",),
    "grad-norm": ("grad_norm",),
    "length": ("n_answer_tokens",),
    "random": (),
    "random-balanced": ("source",),
    "replay": ("new",),
    "all": (),
    "new-only": ("new",),
}


@pytest.mark.parametrize("name", SIGNATURES)
def test_positional_arguments_and_defaults_are_those_of_the_design(name: str) -> None:
    parameters = inspect.signature(getattr(liit, name)).parameters.values()
    positional = [(p.name, p.default) for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert positional == SIGNATURES[name]


def test_every_method_is_there_with_the_features_it_needs() -> None:
    listed = {name: s for name, s in liit.selectors().items() if s.function.__module__.startswith("liit.")}
    assert {name: s.needs for name, s in listed.items()} == NEEDS
    assert {"expert", "experts", "k", "k_grid", "compat"} <= set(listed["adapt-inf"].options)


def test_each_method_has_a_file_of_its_own() -> None:
    homes = [s.function.__module__ for s in liit.selectors().values() if s.function.__module__.startswith("liit.")]
    assert len(homes) == len(set(homes))


def test_results_have_the_promised_types() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 6)).astype(np.float32)
    kept = liit.semantic_prune(x, np.repeat([0, 1], 20), 15)
    assert (kept.dtype, len(kept)) == (np.int64, 15)
    assert (np.diff(kept) > 0).all()
    scores, rank = liit.leverage(x)
    assert (scores.dtype, scores.shape, type(rank)) == (np.float64, (40,), int)
    assert liit.gist_scores(x, x[:5] * 3, 0.95).shape == (40,)
    assert liit.round_robin(x.T, 7).shape == (7,)
    assert liit.allocate(np.array([3, 9]), 7).dtype == np.int64
    assert isinstance(liit.score_entropy(x[:, 0]), float)
    assert liit.stratified_sample(x[:, 0], 9).dtype == np.int64


def test_a_selection_names_ids_rows_and_reasons() -> None:
    rng = np.random.default_rng(0)
    features = {"gradient": rng.normal(size=(40, 6)), "el2n": rng.random(40), "entropy": rng.random(40)}
    numbered = liit.select("adapt-inf", features, budget=9, seed=0)
    named = liit.select("adapt-inf", features | {"id": [f"s{i}" for i in range(40)]}, 9, 0)
    for selection in (numbered, named):
        assert selection.rows.dtype == np.int64
        assert isinstance(selection.table, pa.Table)
        assert selection.table.column_names == ["id", "row", "cluster", "expert", "score", "rank", "reason"]
    assert numbered.ids.tolist() == numbered.rows.tolist()
    assert named.ids.tolist() == [f"s{i}" for i in named.rows]


def test_errors_are_value_errors_of_one_line() -> None:
    with pytest.raises(ValueError, match="budget") as caught:
        liit.select("random", {"id": np.arange(3)}, -1)
    assert isinstance(caught.value, InputError)
    assert "\n" not in str(caught.value)
