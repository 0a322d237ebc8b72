"""Each stage as a command, from files to files: what it writes, and what it prints for people and for scripts."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from tiny import QUESTIONS, ROWS, Said, here, listing, write_continuum

from liit.data.pool import Pool

Say = Callable[..., Said]


@pytest.fixture(scope="module")
def home(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the tests below leave what the next ones start from."""
    root = tmp_path_factory.mktemp("stages")
    write_continuum(root / "c", model, steps=2)
    return root


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Say:
    return lambda *arguments: here(capsys, *arguments)


@pytest.fixture
def facts(say: Say) -> Callable[..., Any]:
    """Runs a command with --json; what it printed, which must be JSON and nothing else."""

    def run(*arguments: str | Path) -> Any:
        said = say(*arguments, "--json")
        assert said.code == 0, said

        def refuse(name: str) -> None:
            raise AssertionError(f"{name} is not JSON")

        return json.loads(said.out, parse_constant=refuse)

    return run


@pytest.fixture(scope="module")
def ready(home: Path) -> Path:
    """Pool, features and selection, made by the commands."""
    from liit.cli import stage_commands as stage

    stage.ingest(home / "c/alpha.json", home / "pool", source="one")
    stage.ingest(home / "c/beta.json", home / "pool")
    config = home / "c/continuum.yaml"
    stage.extract(config, home / "pool", home / "features", features="gradient,embedding,el2n,entropy")
    stage.select(
        "adapt-inf", home / "pool", 16, home / "selection", features=home / "features",
        options=["k=3", "experts=[el2n, entropy]"],
    )  # fmt: skip
    return home


def test_help_lists_every_command_in_whole_sentences(say: Say) -> None:
    said = say("--help")
    assert (said.code, said.err) == (0, "")
    commands = said.out.partition("Commands:")[2].splitlines()[1:]
    assert {line.split()[0] for line in commands if line.strip()} >= {
        "demo", "run", "report", "methods", "ingest", "extract", "select", "prune", "train", "evaluate",
    }  # fmt: skip
    assert "..." not in said.out.partition("Commands:")[2]
    for line in commands:
        if line.strip():
            assert say(line.split()[0], "--help").code == 0


def test_methods_lists_methods_and_selectors(say: Say, facts: Callable[..., Any]) -> None:
    from liit.lifelong.methods import METHODS
    from liit.selection import selectors
    from liit.training.hooks import hooks

    found = facts("methods")
    assert [entry["name"] for entry in found["methods"]] == list(METHODS)
    assert [entry["name"] for entry in found["selectors"]] == list(selectors())
    assert [entry["name"] for entry in found["hooks"]] == list(hooks())
    assert all(entry["description"] for entries in found.values() for entry in entries)
    said = say("methods").out
    for name in (*METHODS, *selectors(), *hooks()):
        assert f"  {name} " in said


def test_ingest_counts_and_a_second_time_changes_nothing(home: Path, say: Say, facts: Callable[..., Any]) -> None:
    arguments = ("ingest", home / "c/alpha.json", "--pool", home / "twice")
    first = facts(*arguments)
    assert (first["added"], first["quarantined"], first["duplicates"]) == (ROWS, 0, 0)
    assert Pool.open(home / "twice").columns(["source"])["source"].unique().to_pylist() == ["alpha"]
    said = say(*arguments)
    assert "added: 0\n" in said.out
    assert f"duplicates: {ROWS}\n" in said.out
    assert (len(Pool.open(home / "twice")), Pool.open(home / "twice").version) == (ROWS, first["version"])


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--format", "lava-json"], "lava-json"),
        (["--images", "nowhere"], "nowhere"),
        (["--strict"], "line"),
    ],
)
def test_an_ingest_that_is_refused_leaves_no_pool(home: Path, say: Say, options: list[str], expected: str) -> None:
    rows = json.loads((home / "c/alpha.json").read_text())
    (home / "c/bad.json").write_text(json.dumps([rows[0], {**rows[1], "image": "images/gone.png"}]))
    before = listing(home)
    said = say("ingest", home / "c/bad.json", "--pool", home / "pools/new", *options)
    assert said.code == 2
    assert expected in said.err
    assert listing(home) == before


def test_extract_goes_on_where_it_was_and_keeps_checkpoints_apart(
    ready: Path, say: Say, facts: Callable[..., Any]
) -> None:
    arguments = ("extract", "--config", ready / "c/continuum.yaml", "--pool", ready / "pool", "--out", ready / "few")
    first = facts(*arguments, "--features", "el2n,log_perplexity")
    assert (first["rows"], first["refused"], first["features"]) == (2 * ROWS, 0, ["el2n", "log_perplexity"])
    before = listing(ready / "few")
    assert facts(*arguments, "--features", "el2n,log_perplexity") == first
    assert listing(ready / "few") == before
    said = say(*arguments, "--features", "el2n,log_perplexity", "--set", "lora.r=2")
    assert said.code == 2
    assert "another checkpoint" in said.err
    assert "unknown feature 'elephant'" in say(*arguments, "--features", "elephant").err
    other = facts(*arguments, "--features", "el2n,log_perplexity", "--set", "lora.r=2", "--refresh")
    assert other["checkpoint"] != first["checkpoint"]
    assert other["rows"] == first["rows"]


def test_gradients_along_adams_steps_from_the_training_before(ready: Path, say: Say, facts: Callable[..., Any]) -> None:
    common = ("--config", ready / "c/continuum.yaml", "--pool", ready / "pool")
    state, adapter = ready / "adam.safetensors", ready / "adam-adapter"
    chosen = ("--selection", ready / "selection/selection.parquet")
    facts("train", *common, *chosen, "--out", adapter, "--optimizer-state", state)
    extract = ("extract", *common, "--features", "gradient", "--adapter", adapter, "--out", ready / "stepped")
    assert facts(*extract, "--optimizer-state", state)["rows"] == 2 * ROWS
    said = say(*extract)
    assert said.code == 2
    assert "another optimizer of gradient" in said.err
    said = say(*extract, "--optimizer-state", ready / "nothing")
    assert said.code == 2
    assert "optimizer_state: there is no file" in said.err


def test_select_explains_and_writes_the_user_s_own_rows_back(ready: Path, facts: Callable[..., Any]) -> None:
    out = ready / "chosen"
    found = facts(
        "select", "adapt-inf", "--pool", ready / "pool", "--features", ready / "features", "--budget", "10",
        "--out", out, "--option", "k=3", "--option", "experts=[el2n, entropy]", "--write", ready / "chosen.json",
    )  # fmt: skip
    assert (found["budget"], found["trained"], found["candidates"], found["without_features"]) == (10, 10, 80, 0)
    table = pq.read_table(out / "selection.parquet")
    ids = set(table["id"].to_pylist())
    assert len(ids) == 10
    assert set(table["source"].to_pylist()) <= {"one", "beta"}
    assert pq.read_table(out / "labels.parquet").num_rows == 2 * ROWS
    assert json.loads((out / "selection.json").read_text())["selector"]["k"] == 3
    text = (ready / "chosen.json").read_text()
    own = "".join((ready / f"c/{name}.json").read_text() for name in ("alpha", "beta"))
    written = text.removeprefix("[\n").removesuffix("\n]\n").split(",\n{")
    rows = [row if number == 0 else "{" + row for number, row in enumerate(written)]
    assert [json.loads(row)["id"] for row in rows] == [i for i in Pool.open(ready / "pool").ids() if i in ids]
    assert all(row in own for row in rows)  # to the letter, spaces and line breaks included


def test_select_by_source_needs_no_features(ready: Path, facts: Callable[..., Any]) -> None:
    facts("select", "random-balanced", "--pool", ready / "pool", "--budget", "10", "--out", ready / "balanced")
    sources = pq.read_table(ready / "balanced/selection.parquet")["source"].to_pylist()
    assert sorted(sources) == ["beta"] * 5 + ["one"] * 5


def test_select_leaves_samples_without_features_out_and_counts_them(ready: Path, facts: Callable[..., Any]) -> None:
    shutil.copytree(ready / "pool", ready / "larger")
    rows = json.loads((ready / "c/alpha.json").read_text())[:3]
    (ready / "c/more.json").write_text(json.dumps([{**row, "id": f"more-{row['id']}"} for row in rows]))
    facts("ingest", ready / "c/more.json", "--pool", ready / "larger")
    found = facts(
        "select", "el2n", "--pool", ready / "larger", "--features", ready / "features", "--budget", "500",
        "--out", ready / "most",
    )  # fmt: skip
    assert (found["pool_size"], found["without_features"], found["trained"]) == (2 * ROWS + 3, 3, 2 * ROWS)


def test_train_and_evaluate_on_files(ready: Path, facts: Callable[..., Any]) -> None:
    config = ready / "c/continuum.yaml"
    arguments = ("--config", config, "--pool", ready / "pool", "--selection", ready / "selection/selection.parquet")
    trained = facts("train", *arguments, "--out", ready / "adapter")
    assert (trained["samples"], trained["optimizer_steps"]) == (16, 2)
    first = (ready / "adapter/adapter_model.safetensors").read_bytes()
    facts("train", *arguments, "--out", ready / "further", "--adapter", ready / "adapter")
    assert (ready / "further/adapter_model.safetensors").read_bytes() != first
    facts("train", *arguments, "--out", ready / "adapter")  # an adapter is replaced, by the same bytes
    assert (ready / "adapter/adapter_model.safetensors").read_bytes() == first

    answers = []
    for name, options in (("base", ()), ("tuned", ("--adapter", ready / "adapter"))):
        found = facts("evaluate", "--config", config, "--out", ready / name, *options)
        assert list(found["scores"]) == ["alpha-colour", "alpha-count", "beta-colour", "beta-count"]
        document = json.loads((ready / name / "evaluation.json").read_text())
        assert found["scores"] == {skill: result["score"] for skill, result in document["skills"].items()}
        answers.append((ready / name / "predictions.jsonl").read_text())
        assert len(answers[-1].splitlines()) == 4 * QUESTIONS
    assert answers[0] != answers[1]


def test_prune_cuts_the_pool_and_a_second_time_changes_nothing(ready: Path, facts: Callable[..., Any]) -> None:
    shutil.copytree(ready / "pool", ready / "cut")
    arguments = (
        "prune", "--pool", ready / "cut", "--features", ready / "features",
        "--labels", ready / "selection/labels.parquet", "--keep", "60", "--out", ready / "pruned",
    )  # fmt: skip
    found = facts(*arguments)
    assert (found["before"], found["pruned"], found["pool_size"]) == (80, 20, 60)
    assert facts(*arguments) == found
    pruned = set(pq.read_table(ready / "pruned/pruned.parquet")["id"].to_pylist())
    pool = Pool.open(ready / "cut")
    assert set(pool.ledger()["id"].to_pylist()) == pruned
    assert len(pool) == 60
    assert not pruned & set(pool.ids())


REFUSED = [
    (["select", "adapt-inff", "--pool", "pool", "--budget", "5", "--out", "x"], "did you mean 'adapt-inf'"),
    (["select", "random", "--pool", "pool", "--budget", "0", "--out", "x"], "--budget: got 0"),
    (["select", "random", "--pool", "pool", "--budget", "-3", "--out", "x"], "--budget: got -3"),
    (["select", "random", "--pool", "c", "--budget", "5", "--out", "x"], "has no pool in it"),
    (["select", "adapt-inf", "--pool", "pool", "--budget", "5", "--out", "x"], "needs the features gradient"),
    (["select", "random", "--pool", "pool", "--budget", "5", "--out", "x", "--option", "k"], "expected name=value"),
    (["select", "random", "--pool", "pool", "--budget", "5", "--out", "x", "--option", "k=3"], "unknown option 'k'"),
    (["select", "random", "--pool", "pool", "--budget", "5", "--out", "x", "--option", "k=["], "--option k=["),
    (["select", "random", "--pool", "pool", "--budget", "5", "--out", "x", "--to", "csv"], "unknown format 'csv'"),
    (["select", "random", "--pool", "pool", "--budget", "5", "--out", "x", "--write", "no/a.json"], "no folder"),
    (["prune", "--pool", "pool", "--features", "features", "--labels", "no", "--keep", "5", "--out", "x"], "labels: "),
    (["prune", "--pool", "pool", "--features", "features", "--labels", "c", "--keep", "5", "--out", "x"], "labels: "),
    (
        ["prune", "--pool", "pool", "--features", "no", "--labels", "selection/labels.parquet", "--keep", "5",
         "--out", "x"],
        "nothing at",
    ),
    (["prune", "--pool", "pool", "--features", "features", "--labels", "no", "--keep", "0", "--out", "x"], "--keep"),
    (
        ["train", "--config", "c/continuum.yaml", "--pool", "pool", "--selection", "no.parquet", "--out", "x"],
        "selection: cannot read",
    ),
    (
        ["train", "--config", "c/continuum.yaml", "--pool", "pool", "--selection", "selection/selection.parquet",
         "--out", "c"],
        "is not an adapter",
    ),
    (
        ["train", "--config", "c/continuum.yaml", "--pool", "pool", "--selection", "selection/selection.parquet",
         "--out", "x", "--adapter", "features"],
        "adapter: ",
    ),
    (["evaluate", "--config", "c/continuum.yaml", "--out", "x", "--adapter", "c"], "adapter: "),
    (["extract", "--config", "c/continuum.yaml", "--pool", "pool", "--out", "x", "--adapter", "c"], "adapter: "),
    (["extract", "--config", "c/none.yaml", "--pool", "pool", "--out", "x"], "none.yaml"),
    (["ingest", "c/none.json", "--pool", "x"], "does not exist"),
    (["report", "c"], "is not a run directory"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "expected"), REFUSED, ids=[" ".join(a)[:60] for a, _ in REFUSED])
def test_wrong_input_of_a_stage_is_one_line_and_writes_nothing(
    ready: Path, say: Say, monkeypatch: pytest.MonkeyPatch, arguments: list[str], expected: str
) -> None:
    monkeypatch.chdir(ready)
    before = listing(ready)
    said = say(*arguments)
    assert (said.code, said.out) == (2, ""), said
    assert expected in said.err
    assert said.err.startswith("liit: error: ")
    assert said.err.count("\n") == 1
    assert listing(ready) == before
