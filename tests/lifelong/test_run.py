"""A whole run of every method, and what it leaves on disk."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from tiny import BUDGET, QUESTIONS, ROWS, STEPS, differing, features, write_continuum

import liit
from liit.config import load_config
from liit.data.pool import Pool
from liit.lifelong.methods import METHODS
from liit.lifelong.rundir import RunDirectory

SKILLS = [f"{step}-{skill}" for step in STEPS for skill in ("colour", "count")]
POOL_SIZE = 50
STAGES = ("ingest", "extract", "select", "train", "evaluate")

Make = Callable[..., Path]


@pytest.fixture(scope="session")
def make(continuum: Path, tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Runs of the continuum by method, each made once; tests must not change them."""
    runs: dict[tuple[str, ...], Path] = {}

    def run(method: str, *overrides: str, again: int = 0) -> Path:
        key = (method, *overrides, str(again))
        if key not in runs:
            out = tmp_path_factory.mktemp("run") / "out"
            liit.run(continuum, out, overrides=[f"method={method}", *overrides])
            runs[key] = out
        return runs[key]

    return run


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def steps(run: Path) -> list[Path]:
    return [run / "steps" / f"{number:02d}-{name}" for number, name in enumerate(STEPS, start=1)]


def selected(step: Path) -> list[str]:
    return pq.read_table(step / "selection.parquet")["id"].to_pylist()


def origin(ids: list[str]) -> set[str]:
    return {sample.split("-")[1] for sample in ids}


def test_a_run_makes_every_file_and_no_other(make: Make) -> None:
    run = make("lite-adapt-inf")
    assert {path.name for path in run.iterdir()} == {
        "run.json", "continuum.yaml", "timings.jsonl", "pool", "evaluation", "steps", "lock",
    }  # fmt: skip
    assert {path.name for path in (run / "steps").iterdir()} == {"00-base", *(step.name for step in steps(run))}
    assert {path.name for path in (run / "steps/00-base").iterdir()} == {"evaluation.json", "predictions.jsonl"}
    for step in steps(run):
        assert {path.name for path in step.iterdir()} == {
            "ingest.json", "features", "selection.parquet", "selection.json", "labels.parquet", "train.json", "adapter",
            "evaluation.json", "predictions.jsonl", "prune.json", "pruned.parquet",
        }  # fmt: skip
        assert {"adapter_model.safetensors", "adapter_config.json"} <= {p.name for p in (step / "adapter").iterdir()}
    assert not [path for path in run.rglob("*") if path.suffix in (".part", ".pkl", ".pt", ".bin")]


def test_the_documentation_names_every_file_and_no_other(make: Make) -> None:
    everything = ("methods.every.selector=gist", "methods.every.hooks=[{name: ewc}]", "queries.kind=file",
                  "queries.path=alpha.json")  # fmt: skip
    runs = [make("lite-adapt-inf"), make("every", *everything)]
    page = (Path(__file__).parents[2] / "docs/run-directory.md").read_text(encoding="utf-8")
    top, step = (
        re.findall(r"^\| `([^`]+)` \|", table, flags=re.MULTILINE) for table in page.split("In the folder of a step")
    )
    for roots, named in ((runs, set(top) - {"report.html"}), ([steps(run)[0] for run in runs], set(step))):
        found = {f"{path.name}/" if path.is_dir() else path.name for root in roots for path in root.iterdir()}
        assert found == named  # the command writes the report


def test_run_json_and_timings_list_every_stage_once_in_order(make: Make) -> None:
    run = make("adapt-inf")
    state = read(run / "run.json")
    expected = [(0, "evaluate"), *((number, stage) for number in (1, 2, 3) for stage in STAGES)]
    assert [(entry["step"], entry["stage"]) for entry in state["stages"]] == expected
    assert (state["name"], state["method"], state["seed"], state["steps"]) == ("tiny", "adapt-inf", 3, list(STEPS))
    assert state["liit"] == liit.__version__
    timings = [json.loads(line) for line in (run / "timings.jsonl").read_text().splitlines()]
    assert [(row["step"], row["stage"]) for row in timings] == expected
    assert all(row["seconds"] >= 0 for row in timings)
    assert "seconds" not in (run / "run.json").read_text()


def test_its_own_continuum_yaml_is_the_same_run(make: Make, continuum: Path) -> None:
    run = make("replay")
    again = load_config(run / "continuum.yaml")
    assert again == load_config(continuum, ["method=replay"])
    assert len(RunDirectory(run, again).stages) == len(read(run / "run.json")["stages"])
    assert yaml.safe_load((run / "continuum.yaml").read_text())["lora"]["dropout"] == 0.05  # defaults are written out


def test_ingest_facts_count_pool_sources_and_skills(make: Make) -> None:
    for number, step in enumerate(steps(make("replay")), start=1):
        facts = read(step / "ingest.json")
        assert (facts["added"], facts["quarantined"], facts["duplicates"]) == (ROWS, 0, 0)
        assert facts["pool_size"] == number * ROWS
        assert facts["sources"] == {f"source-{name}": ROWS for name in STEPS[:number]}
        assert facts["skills"] == {"colour": number * ROWS // 2, "count": number * ROWS // 2}
        assert (facts["leaked_rows"], facts["leaked_images"], facts["refused"]) == (0, 0, {})


@pytest.mark.parametrize("method", [name for name in METHODS if name != "multitask"])
def test_every_step_trains_on_exactly_the_budget(make: Make, method: str) -> None:
    for step in steps(make(method)):
        table = pq.read_table(step / "selection.parquet")
        assert len(set(table["id"].to_pylist())) == table.num_rows == BUDGET
        assert {"id", "row", "cluster", "expert", "score", "rank", "reason", "source", "skill"} == set(
            table.column_names
        )
        facts, trained = read(step / "selection.json"), read(step / "train.json")
        assert (facts["method"], facts["budget"], facts["trained"]) == (method, BUDGET, BUDGET)
        assert (trained["samples"], trained["epochs"], trained["samples_seen"]) == (BUDGET, 1, BUDGET)
        assert trained["optimizer_steps"] == BUDGET // 8
        for row in table.to_pylist():
            assert row["source"] == f"source-{row['id'].split('-')[1]}"
            assert row["skill"] == ("colour", "count")[int(row["id"].split("-")[2]) % 2]


def test_sequential_trains_on_new_rows_only_even_with_a_larger_budget(make: Make) -> None:
    for run, budget in ((make("sequential"), BUDGET), (make("sequential", "budget=60"), ROWS)):
        for name, step in zip(STEPS, steps(run), strict=True):
            ids = selected(step)
            assert len(ids) == budget
            assert origin(ids) == {name}


def test_replay_trains_on_old_and_new_rows(make: Make) -> None:
    first, second, third = steps(make("replay"))
    assert origin(selected(first)) == {"alpha"}
    assert origin(selected(second)) == {"alpha", "beta"}
    assert origin(selected(third)) == set(STEPS)


def test_multitask_trains_once_at_the_end_on_everything(make: Make) -> None:
    run = make("multitask", "training.multitask_epochs=2")
    *early, last = steps(run)
    for step in early:
        assert {path.name for path in step.iterdir()} == {"ingest.json"}
    assert sorted(selected(last)) == sorted(Pool.open(run / "pool").ids())
    facts = read(last / "train.json")
    assert (facts["samples"], facts["epochs"], facts["samples_seen"]) == (3 * ROWS, 2, 6 * ROWS)
    assert facts["optimizer_steps"] == 2 * 3 * ROWS // 8
    assert [(s["step"], s["stage"]) for s in read(run / "run.json")["stages"]] == [
        (0, "evaluate"), (1, "ingest"), (2, "ingest"), (3, "ingest"), (3, "select"), (3, "train"), (3, "evaluate"),
    ]  # fmt: skip


def test_clusters_experts_and_labels_cover_the_whole_pool(make: Make) -> None:
    for number, step in enumerate(steps(make("adapt-inf")), start=1):
        labels, info = pq.read_table(step / "labels.parquet").to_pydict(), read(step / "selection.json")["selector"]
        assert len(set(labels["id"])) == number * ROWS
        assert info["k"] in (2, 3)
        assert [point["k"] for point in info["curve"]] == [2, 3]
        sizes = {entry["cluster"]: entry["size"] for entry in info["clusters"]}
        assert sizes == {cluster: labels["cluster"].count(cluster) for cluster in set(labels["cluster"])}
        assert sum(entry["budget"] for entry in info["clusters"]) == BUDGET
        cluster_of = dict(zip(labels["id"], labels["cluster"], strict=True))
        expert_of = {entry["cluster"]: entry["expert"] for entry in info["clusters"]}
        for row in pq.read_table(step / "selection.parquet").to_pylist():
            assert row["cluster"] == cluster_of[row["id"]]
            assert row["expert"] == expert_of[row["cluster"]]


def test_features_are_of_the_whole_pool_and_of_the_step_s_checkpoint(make: Make) -> None:
    stores = [step / "features" for step in steps(make("adapt-inf"))]
    columns = {"id", "gradient", "log_perplexity", "el2n", "entropy", "image_grounding", "grad_norm"}
    assert [set(features(store)) for store in stores] == [columns] * 3
    from liit.features.store import FeatureStore

    opened = [FeatureStore(store) for store in stores]
    assert [len(store["id"]) for store in opened] == [ROWS, 2 * ROWS, 3 * ROWS]
    assert opened[2]["gradient"].shape == (3 * ROWS, 64)
    checkpoints = [store.key.model["checkpoint"] for store in opened]
    assert len(set(checkpoints)) == 3  # each step looks at the pool with the model that the last step left
    first = opened[1].view(list(opened[0]["id"]))
    assert (first["log_perplexity"] != opened[0]["log_perplexity"]).all()


def test_lite_cuts_the_pool_after_every_step_and_never_trains_on_what_it_cut(make: Make) -> None:
    run = make("lite-adapt-inf")
    pool = Pool.open(run / "pool")
    ledger = {row["id"]: row for row in pool.ledger().to_pylist()}
    gone: set[str] = set()
    size = 0
    for number, step in enumerate(steps(run), start=1):
        assert not gone & set(selected(step))
        labels = pq.read_table(step / "labels.parquet").to_pydict()
        assert not gone & set(labels["id"])
        size = min(POOL_SIZE, size + ROWS)
        facts, pruned = read(step / "prune.json"), pq.read_table(step / "pruned.parquet").to_pylist()
        assert (facts["pool_size"], facts["pruned"], facts["before"]) == (size, len(pruned), size + len(pruned))
        assert len(pool.at(facts["pool_version"])) == size
        cluster_of = dict(zip(labels["id"], labels["cluster"], strict=True))
        order = {sample: place for place, sample in enumerate(labels["id"])}
        for row in pruned:
            assert cluster_of[row["neighbour"]] == cluster_of[row["id"]] == row["cluster"]
            assert order[row["neighbour"]] < order[row["id"]]
            assert row["similarity"] <= 1 + 1e-6
            kept = ledger[row["id"]]
            assert (kept["step"], kept["neighbour"], kept["similarity"]) == (
                str(number), row["neighbour"], row["similarity"],
            )  # fmt: skip
        gone |= {row["id"] for row in pruned}
    assert len(gone) == 3 * ROWS - POOL_SIZE
    assert gone == set(ledger)
    assert not gone & set(pool.ids())
    assert len(pool) == POOL_SIZE


def test_every_checkpoint_is_measured_on_all_skills_seen_or_not(make: Make) -> None:
    run = make("replay")
    for number, folder in enumerate([run / "steps/00-base", *steps(run)]):
        document = read(folder / "evaluation.json")
        rows = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
        assert document["step"] == number
        assert list(document["skills"]) == SKILLS
        for skill, result in document["skills"].items():
            own = [row for row in rows if row["skill"] == skill]
            assert result["n"] == len(own) == QUESTIONS
            assert result["score"] == pytest.approx(sum(row["score"] for row in own) / QUESTIONS)
            assert result["wrong_format"] == sum(row["wrong_format"] for row in own)
            assert result["metric"] == ("numeric" if skill.endswith("count") else "exact-match")
        assert {row["reference"] for row in rows if row["skill"].endswith("count")} == {"1", "2", "3", "4", "5"}


def test_training_goes_on_from_the_adapter_of_the_last_step(make: Make, continuum: Path) -> None:
    from liit.lifelong.stages import train_step
    from liit.lifelong.workbench import Workbench, derived_seed

    run = make("replay")
    bench = Workbench(load_config(continuum, ["method=replay"]))
    pool = Pool.open(run / "pool")
    first, second, _ = steps(run)
    weights = (second / "adapter/adapter_model.safetensors").read_bytes()
    outcomes = {}
    for start in (first / "adapter", None):
        out = run.parent / f"again-{start is None}"
        train_step(bench, start, pool.take(selected(second)), out, seed=derived_seed(3, 2, "train"))
        outcomes[start] = (out / "adapter_model.safetensors").read_bytes()
    assert outcomes[first / "adapter"] == weights != outcomes[None]


def test_training_twice_from_the_same_start_gives_the_same_adapter(make: Make, continuum: Path, tmp_path: Path) -> None:
    """The weights in memory have moved on after the first: they must not be taken for the start of the second."""
    from liit.lifelong.stages import train_step
    from liit.lifelong.workbench import Workbench

    bench = Workbench(load_config(continuum))
    samples = Pool.open(make("replay") / "pool").take(selected(steps(make("replay"))[0]))
    for start in (None, steps(make("replay"))[0] / "adapter"):
        for name in ("one", "two"):
            train_step(bench, start, samples, tmp_path / name, seed=1)
        weights = [(tmp_path / name / "adapter_model.safetensors").read_bytes() for name in ("one", "two")]
        assert weights[0] == weights[1]


def test_a_budget_larger_than_the_pool_trains_on_all_and_says_so(continuum: Path, tmp_path: Path) -> None:
    from liit.lifelong.progress import Reporter

    class Notes(Reporter):
        def __init__(self) -> None:
            self.notes: list[str] = []

        def note(self, text: str) -> None:
            self.notes.append(text)

    said = Notes()
    liit.run(continuum, tmp_path / "out", overrides=["method=replay", "budget=100"], reporter=said)
    assert [len(selected(step)) for step in steps(tmp_path / "out")] == [ROWS, 2 * ROWS, 100]
    about = [note for note in said.notes if "budget" in note]
    assert about == [
        f"the budget of 100 is larger than the pool: training on all {size} samples" for size in (ROWS, 2 * ROWS)
    ]


@pytest.mark.parametrize("method", METHODS)
def test_the_same_seed_gives_the_same_bytes_in_another_directory(make: Make, method: str) -> None:
    assert differing(make(method), make(method, again=1)) == []


def test_another_seed_gives_another_selection_and_other_weights(make: Make) -> None:
    changed = differing(make("replay"), make("replay", "seed=4"))
    for step in (f"steps/{step.name}" for step in steps(make("replay"))):
        assert {f"{step}/selection.parquet", f"{step}/adapter/adapter_model.safetensors"} <= set(changed)


def test_settings_of_speed_alone_do_not_change_the_selection(make: Make) -> None:
    """By the scores that spread: EL2N and entropy of an untrained model differ by less than a bin is to rounding."""
    experts = "selection.experts=[log_perplexity, image_grounding, grad_norm]"
    one = make("adapt-inf", experts)
    other = make("adapt-inf", experts, "evaluation.batch_size=5", "features.batch_tokens=64")
    for step in steps(one):
        assert selected(step) == selected(other / "steps" / step.name)


def test_text_only_rows_and_rows_too_long_go_through_every_method(model: Path, tmp_path: Path) -> None:
    path = write_continuum(tmp_path / "c", model, steps=2)
    rows = [
        {"id": f"text-{n}", "conversations": [{"from": "human", "value": f"Say {n}" * (60 if n < 2 else 1)},
                                              {"from": "gpt", "value": str(n)}]}
        for n in range(ROWS)
    ]  # fmt: skip
    (path.parent / "beta.json").write_text(json.dumps(rows))
    liit.run(path, tmp_path / "out", overrides=["method=lite-adapt-inf"])
    _, second = steps(tmp_path / "out")[:2]
    facts = read(second / "ingest.json")
    assert set(facts["refused"]) == {"text-0", "text-1"}
    assert all("max_length" in reason for reason in facts["refused"].values())
    labelled = pq.read_table(second / "labels.parquet")["id"].to_pylist()
    assert len(labelled) == 2 * ROWS - 2
    assert not {"text-0", "text-1"} & set(labelled)
    assert "NaN" not in (second / "selection.json").read_text()
