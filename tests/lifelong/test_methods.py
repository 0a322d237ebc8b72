"""What a method is made of, and methods that a continuum file defines."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from tiny import BUDGET, here, write_continuum

from liit.config import Continuum, load_config
from liit.data.pool import Pool
from liit.errors import InputError
from liit.lifelong.choosing import Candidates, select_step
from liit.lifelong.methods import METHODS, Part, get_method, methods
from liit.selection import selectors

OWN = {
    "mine": {
        "selector": "coincide",
        "options": {"temperature": 0.2},
        "replay": {"share": 0.25, "selector": "perplexity", "options": {"where": "middle"}},
        "pruner": "semantic",
        "hooks": [{"name": "ewc"}],
    }
}


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("methods")
    (root / "model").mkdir()
    write_continuum(root / "c", root / "model")
    return root / "c"


def loaded(folder: Path, *overrides: str, **changes: Any) -> Continuum:
    value = yaml.safe_load((folder / "continuum.yaml").read_text()) | changes
    (folder / "changed.yaml").write_text(yaml.safe_dump(value))
    return load_config(folder / "changed.yaml", overrides)


def test_every_method_s_options_are_accepted_by_its_selectors() -> None:
    for method in methods().values():
        for part in method.parts:
            part.check()


def test_every_selector_with_a_budget_is_a_method_of_its_own(folder: Path) -> None:
    known = methods(loaded(folder))
    assert set(selectors()) - set(known) == {"all", "new-only"}
    assert set(METHODS) <= set(known)
    assert known["coincide"].part == Part("coincide")


def test_columns_are_those_of_selector_experts_pruner_and_replay(folder: Path) -> None:
    continuum = loaded(folder, "selection.experts=[el2n, grad_norm]", methods=OWN)
    assert get_method("adapt-inf").columns(continuum) == ("gradient", "el2n", "grad_norm")
    assert get_method("lite-adapt-inf").columns(continuum) == ("gradient", "el2n", "grad_norm", "embedding")
    assert get_method("dgg+adapt-inf").columns(continuum) == ("gradient", "el2n", "grad_norm")
    assert get_method("mine", continuum).columns(continuum) == ("embedding", "log_perplexity")
    assert get_method("random-balanced").columns(continuum) == ()
    assert get_method("rds-plus").query_columns() == ("last_hidden_weighted",)


def test_the_selection_settings_reach_every_selector_that_knows_them_and_options_go_before(folder: Path) -> None:
    continuum = loaded(folder, "selection.k=7", "selection.bins=9")
    assert Part("density").settings(continuum) == {"k": 7, "k_grid": [2, 3]}
    assert Part("perplexity", {"bins": 4}).settings(continuum) == {"bins": 4, "trim": 0.05}
    assert Part("random").settings(continuum) == {}


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("mine", {"selector": "coincied"}, "mine.selector: unknown selector 'coincied'; did you mean 'coincide'?"),
        ("mine", {"selector": "coincide", "options": {"temprature": 1}}, "did you mean 'temperature'?"),
        ("mine", {"selector": "coincide", "options": {"temperature": -1}}, "methods.mine.options: temperature must be"),
        ("mine", {"selector": "gist", "options": {"queries": [1]}}, "'queries' is filled in by the run"),
        ("mine", {"selector": "random", "replay": {"share": 1.0}}, "methods.mine.replay.share: got 1.0"),
        ("mine", {"selector": "random", "replay": {"options": {"x": 1}}}, "mine.replay.options: random-balanced"),
        ("mine", {"selector": "random", "pruner": "none"}, "methods.mine.pruner"),
        ("mine", {"selektor": "random"}, "unknown key 'selektor' in 'methods.mine'; did you mean 'selector'?"),
        ("replay", {"selector": "random"}, "methods.replay: liit has a method of that name"),
        ("coincide", {"selector": "random"}, "methods.coincide: liit has a method of that name"),
        ("../mine", {"selector": "random"}, "expected a name of letters"),
    ],
)  # fmt: skip
def test_a_wrong_method_is_one_line_that_names_the_key(folder: Path, name: str, value: Any, expected: str) -> None:
    with pytest.raises(InputError) as caught:
        loaded(folder, methods={name: value})
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_method_that_prunes_needs_the_pool_s_size(folder: Path) -> None:
    with pytest.raises(InputError, match="mine prunes the pool and needs its size"):
        loaded(folder, "method=mine", methods=OWN, pruning={})


def test_a_targeted_method_says_where_queries_could_come_from(folder: Path) -> None:
    with pytest.raises(InputError, match=r"gist compares the pool with queries.*steps\[0\]\.dev"):
        loaded(folder, "method=gist")
    assert loaded(folder, "method=gist", "queries.kind=replay").method == "gist"
    with pytest.raises(InputError, match=r"set queries\.path"):
        loaded(folder, "method=gist", "queries.kind=file")
    with pytest.raises(InputError, match=r"queries\.path belongs to kind file"):
        loaded(folder, "queries.path=alpha.json")


class _Pool(Pool):
    """Forty old samples of two sources and ten new ones, without a disk."""

    def __init__(self) -> None:
        self.ids_ = [f"s{n:02d}" for n in range(50)]
        self.table = pa.table({"id": self.ids_, "source": ["a"] * 30 + ["b"] * 10 + ["c"] * 10, "skill": [""] * 50})

    def columns(self, names: Any, *_: Any) -> pa.Table:
        return self.table.select(names)

    def __len__(self) -> int:
        return 50


def choose(continuum: Continuum, name: str, out: Path, new: int = 10) -> tuple[list[str], dict[str, Any]]:
    pool = _Pool()
    is_new = [n >= 50 - new for n in range(50)]
    select_step(get_method(name, continuum), continuum, pool, Candidates(pool.ids_, is_new), 2, out)
    import pyarrow.parquet as pq

    table = pq.read_table(out / "selection.parquet")
    assert table["id"].to_pylist() == [pool.ids_[row] for row in table["row"].to_pylist()]
    return table["source"].to_pylist(), json.loads((out / "selection.json").read_text())


@pytest.mark.parametrize(("budget", "new", "expected"), [
    (16, 10, {"a": 4, "b": 4, "c": 8}),
    (41, 10, {"a": 21, "b": 10, "c": 10}),  # the new ones do not fill their half, the old ones do
    (16, 50, {"a": 10, "b": 3, "c": 3}),  # nothing is old
    (16, 0, {"a": 6, "b": 5, "c": 5}),  # nothing is new
    (60, 10, {"a": 30, "b": 10, "c": 10}),
])  # fmt: skip
def test_replay_shares_the_budget_and_each_side_fills_up_the_other(
    folder: Path, tmp_path: Path, budget: int, new: int, expected: dict[str, int]
) -> None:
    continuum = loaded(folder, f"budget={budget}")
    sources, facts = choose(continuum, "half-replay", tmp_path, new)
    assert len(sources) == min(budget, 50) == facts["trained"]
    if new != 50:  # drawn at random from all three
        assert {name: sources.count(name) for name in "abc"} == expected
    info = facts["selector"]
    assert info["new"] + info["replayed"] == min(budget, 50)


@pytest.mark.parametrize("own", [
    {"selector": "random", "new_only": True}, {"selector": "random"}, {"selector": "density", "new_only": True},
])  # fmt: skip
def test_a_pruner_gets_the_cluster_of_every_sample_whatever_the_selector_saw(
    folder: Path, tmp_path: Path, own: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from liit.lifelong import choosing

    continuum = loaded(folder, "method=p", methods={"p": own | {"pruner": "semantic"}})
    columns = choosing._columns

    def with_embedding(pool: Pool, candidates: Candidates) -> dict[str, Any]:
        vectors = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
        return {**columns(pool, candidates), "embedding": vectors}

    monkeypatch.setattr(choosing, "_columns", with_embedding)
    sources, _ = choose(continuum, "p", tmp_path)
    assert (set(sources) == {"c"}) is own.get("new_only", False)
    ids, labels = choosing.read_labels(tmp_path / "labels.parquet")
    assert ids == _Pool().ids_
    assert set(labels) <= {0, 1, 2}


def test_a_share_of_a_quarter_is_rounded_half_up(folder: Path, tmp_path: Path) -> None:
    own = {"q": {"selector": "random", "replay": {"share": 0.25, "selector": "random"}}}
    sources, _ = choose(loaded(folder, "budget=10", methods=own), "q", tmp_path)
    assert np.sum(np.asarray(sources) != "c") == 3


def test_another_step_draws_others_and_the_same_step_the_same(folder: Path, tmp_path: Path) -> None:
    continuum = loaded(folder, "budget=16")
    pool, method = _Pool(), get_method("half-replay")
    drawn = {}
    for number, out in ((2, "a"), (2, "b"), (3, "c")):
        select_step(method, continuum, pool, Candidates(pool.ids_, [n > 39 for n in range(50)]), number, tmp_path / out)
        drawn[out] = (tmp_path / out / "selection.parquet").read_bytes()
    assert drawn["a"] == drawn["b"] != drawn["c"]


def test_a_method_of_the_file_runs_with_its_selectors_its_pruner_and_its_hook(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_continuum(tmp_path / "c", model, steps=2, method="mine", methods=OWN, pruning={"pool_size": 30})
    said = here(capsys, "run", path, "--out", tmp_path / "out")
    assert (said.code, said.err) == (0, "")
    assert re.search(r"^mine +0\.\d+", said.out, flags=re.M)
    stages = json.loads((tmp_path / "out/run.json").read_text())["stages"]
    assert [entry["pool_size"] for entry in stages if entry["stage"] == "prune"] == [30, 30]
    first, second = (json.loads(file.read_text()) for file in sorted((tmp_path / "out").glob("steps/0*/train.json")))
    assert (first["samples"], second["samples"]) == (BUDGET, BUDGET)
    assert (first["hooks"]["ewc"]["penalty"], list(second["hooks"])) == (0, ["ewc"])
    chosen = pq.read_table(tmp_path / "out/steps/02-beta/selection.parquet")["id"].to_pylist()
    assert sum("alpha" in sample for sample in chosen) == BUDGET // 4  # the share for old samples
