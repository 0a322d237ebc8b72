"""`liit compare` on a tiny continuum: what is shared changes no byte, and what is done is not done again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from tiny import BUDGET, PowerCut, cut_after, differing, here, write_continuum

import liit
from liit.errors import InputError
from liit.lifelong import ahead, compare, sharing, stages
from liit.lifelong.compare_compute import enlarged_budgets, most_expensive, stage_costs
from liit.lifelong.loop import run
from liit.lifelong.parallel import Job
from liit.lifelong.rundir import finite, read_timings

EARLY = (
    "features.embedding_layer=0"  # so that lite's passes are those of adapt-inf: of two layers the middle is the last
)
METHODS = ("adapt-inf", "lite-adapt-inf")
OTHER_HOOK = 'methods={"mine": {"selector": "random", "hooks": [{"name": "ewcc"}]}}'


def in_this_process(jobs: Sequence[Job], at_once: int, show: Callable[[str], None], threads: int) -> None:
    """The jobs' command lines, here and one after the other: the libraries are loaded already."""
    for job in jobs:
        given = job.arguments
        settings = [text for flag, text in pairwise(given) if flag == "--set"]
        out, shared = (given[given.index(name) + 1] for name in ("--out", "--shared"))
        run(given[1], out, overrides=settings, shared=Path(shared))
        show(f"{job.label}: done")


@pytest.fixture(autouse=True)
def one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare, "run_jobs", in_this_process)
    monkeypatch.setattr(ahead, "in_processes", lambda work, continuum, rows, processes: work(continuum, rows))


@pytest.fixture(scope="module")
def short(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_continuum(tmp_path_factory.mktemp("compared"), model, steps=1, pruning={"pool_size": 30})


@pytest.fixture(scope="module")
def compared(short: Path, tmp_path_factory: pytest.TempPathFactory) -> compare.Comparison:
    """One seed of two methods, with what is added to them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compare, "run_jobs", in_this_process)
        patch.setattr(ahead, "in_processes", lambda work, continuum, rows, processes: work(continuum, rows))
        return compare.compare(short, METHODS, 1, tmp_path_factory.mktemp("out") / "compare", overrides=[EARLY])


@pytest.fixture(scope="module")
def alone(short: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that takes most over from others, by itself."""
    out = tmp_path_factory.mktemp("alone") / "run"
    liit.run(short, out, overrides=[EARLY, "method=lite-adapt-inf", "seed=3"])
    return out


def taken(run: Path) -> list[tuple[int, str, str]]:
    return [(row["step"], row["stage"], row["shared"]) for row in read_timings(run) if "shared" in row]


def test_a_run_that_took_over_what_others_did_is_the_run_that_did_all(
    compared: compare.Comparison, alone: Path
) -> None:
    lite = compared.out / "runs/lite-adapt-inf/seed-3"
    by = "adapt-inf/seed-3"
    assert taken(lite) == [(0, "evaluate", by), (1, "extract", by), (1, "train", by), (1, "evaluate", by)]
    assert differing(lite, alone) == []


def test_a_run_that_did_them_for_others_is_the_run_by_itself(
    compared: compare.Comparison, short: Path, tmp_path: Path
) -> None:
    liit.run(short, tmp_path / "run", overrides=[EARLY, "method=adapt-inf", "seed=3"])
    adapt = compared.out / "runs/adapt-inf/seed-3"
    assert taken(adapt) == []
    assert differing(adapt, tmp_path / "run") == []


def test_cut_off_while_it_takes_over_it_ends_as_undisturbed(
    compared: compare.Comparison, alone: Path, short: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: set[Any] = set()

    def cut(name: str) -> None:
        inner = getattr(sharing, name)

        def call(source: Path, target: Path, *more: Any) -> None:
            for moment in ("before", "after"):
                if moment == "after":
                    inner(source, target, *more)
                if (moment, target.name, source) not in seen:
                    seen.add((moment, target.name, source))
                    (target.parent / "adapter.training").mkdir(exist_ok=True)  # as if it had begun by itself
                    (target.parent / "adapter.training/state").write_bytes(b"")
                    raise PowerCut

        monkeypatch.setattr(sharing, name, call)

    cut("_copy")
    cut("copy_columns")
    for _ in range(30):
        try:
            run(short, tmp_path / "run", overrides=[EARLY, "method=lite-adapt-inf"], shared=compared.out / "shared")
            break
        except PowerCut:
            continue
    assert len(seen) == 2 * (2 + 1 + 2 + 2), "each file and folder that is taken over, before and after"
    assert len(taken(tmp_path / "run")) == 4
    assert differing(tmp_path / "run", alone) == []


def test_a_shared_extraction_that_another_run_goes_on_with_costs_what_both_did(
    compared: compare.Comparison, short: Path, tmp_path: Path
) -> None:
    place, first, other = tmp_path / "shared", tmp_path / "adapt-inf", tmp_path / "lite"
    place.mkdir()
    shutil.copy(compared.out / "shared/columns.json", place)
    with cut_after(stages, "extract_step"):
        run(short, first, overrides=[EARLY, "method=adapt-inf"], shared=place)
    for method, out in (("lite-adapt-inf", other), ("adapt-inf", first)):
        run(short, out, overrides=[EARLY, f"method={method}"], shared=place)
    undisturbed = extraction(compared.out / "runs/adapt-inf/seed-3")
    assert extraction(first) >= undisturbed
    assert extraction(other) >= undisturbed
    assert not list(tmp_path.rglob("*spent.json*"))


def extraction(run: Path) -> int:
    return next(row["flops"] for row in read_timings(run) if row["stage"] == "extract")


def test_other_inputs_are_never_taken_over(compared: compare.Comparison, short: Path, tmp_path: Path) -> None:
    other = ["method=replay", "seed=4", "training.learning_rate=0.05", "evaluation.max_new_tokens=3", "budget=4"]
    run(short, tmp_path / "run", overrides=other, shared=compared.out / "shared")
    assert taken(tmp_path / "run") == []


def test_every_comparison_has_both_random_methods_the_reference_and_equal_compute(
    compared: compare.Comparison,
) -> None:
    result = compared.result
    labels = [row["label"] for row in result["rows"]]
    assert result["added"] == ["replay", "random-balanced", "multitask"]
    assert labels == [*METHODS, "replay", "random-balanced", "replay@equal-compute", "random-balanced@equal-compute",
                      "multitask"]  # fmt: skip
    assert [row["label"] for row in result["rows"] if row["is_reference"]] == ["multitask"]
    written = json.loads((compared.out / "compare.json").read_text())
    assert written["rows"][0]["average_accuracy"] == result["rows"][0]["average_accuracy"]
    extracted = next(row for row in written["shared"] if row["stage"] == "extract")
    assert (extracted["step"], extracted["times"]) == (1, 1)
    assert compare.in_words([extracted]).startswith("shared: step 1 extract once (")
    text = (compared.out / "compare.txt").read_text()
    assert all(label in text for label in labels)
    assert "random-balanced@equal-compute" in (compared.out / "report.html").read_text(encoding="utf-8")


def test_a_random_method_at_equal_compute_costs_what_selection_and_training_cost(
    compared: compare.Comparison,
) -> None:
    donor = compared.result["equal_compute"]["donor"]
    (budgets,) = compared.result["equal_compute"]["budgets"].values()
    random, selecting = (stage_costs(compared.out / f"runs/{name}/seed-3", 1) for name in ("replay", donor))
    assert set(random.selection) == {0}
    for step, budget in enumerate(budgets):
        price = random.training[step] / BUDGET
        assert 0 <= selecting.selection[step] - (budget - BUDGET) * price < price


def test_the_same_again_does_nothing_and_a_later_seed_takes_what_is_there(
    compared: compare.Comparison, short: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[str] = []
    monkeypatch.setattr(compare, "run_jobs", lambda jobs, *_: started.extend(job.label for job in jobs))
    again = compare.compare(short, METHODS, 1, compared.out, overrides=[EARLY])
    assert started == []
    assert finite(again.result["rows"]) == finite(compared.result["rows"])
    plan = compare.make_plan(liit.load_config(short, [EARLY]), [*METHODS, "sequential"], 2, compared.out)
    todo = [(member.label, member.seed) for member in plan.members() if not plan.finished(member)]
    assert todo == [("adapt-inf", 4), ("lite-adapt-inf", 4), ("multitask", 4), ("sequential", 3), ("sequential", 4),
                    ("replay", 4), ("random-balanced", 4)]  # fmt: skip


def test_runs_added_later_have_the_threads_of_the_first_start(
    short: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever number of cores, of runs side by side, or of runs that are left the later start has."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(ahead, "keep_vision_states", lambda continuum, place, processes: 0)
    asked: list[int] = []
    said: list[str] = []

    def stopped(jobs: Sequence[Job], at_once: int, show: Callable[[str], None], threads: int) -> None:
        (tmp_path / "out/runs/replay/seed-3").mkdir(parents=True, exist_ok=True)
        asked.append(threads)
        raise PowerCut

    monkeypatch.setattr(compare, "run_jobs", stopped)
    for cores, jobs in ((8, 2), (8, 4), (2, None)):
        monkeypatch.setattr("liit.lifelong.parallel.cores", lambda cores=cores: cores)
        with pytest.raises(PowerCut):
            compare.compare(short, ["replay"], 1, tmp_path / "out", jobs=jobs, show=said.append)
    monkeypatch.setenv("OMP_NUM_THREADS", "6")
    with pytest.raises(PowerCut):
        compare.compare(short, ["replay"], 1, tmp_path / "out", show=said.append)
    assert asked == [4, 4, 4, 4]
    assert json.loads((tmp_path / "out/plan.json").read_text())["threads"] == 4
    note = "each run has 4 threads, as when the comparison began; begun now it would be "
    assert [line.removeprefix(note) for line in said if line.startswith(note)] == ["2", "1", "6"]


@pytest.mark.parametrize("threads", [0, "2", True])
def test_a_plan_with_a_wrong_number_of_threads_is_refused(
    compared: compare.Comparison, short: Path, tmp_path: Path, threads: object
) -> None:
    plan = json.loads((compared.out / "plan.json").read_text())
    (tmp_path / "plan.json").write_text(json.dumps({**plan, "threads": threads}))
    with pytest.raises(InputError, match=r"names .* threads, expected a number from 1 on"):
        compare.compare(short, ["replay"], 1, tmp_path, overrides=[EARLY])


def test_budgets_at_equal_compute_are_what_the_operations_buy() -> None:
    assert enlarged_budgets([10, 20], [10, 20], [100.0, 400.0], [55.0, 0.0]) == (15, 20)
    assert most_expensive({"a": [1.0, 3.0], "b": [2.0, 1.0], "c": [0.0, 0.0]}) == "a"
    assert most_expensive({"c": [0.0]}) is None


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--methods", "adapt-ing"], "did you mean 'adapt-inf'?"),
        (["--methods", " , "], "methods: got none"),
        (["--methods", "replay", "--seeds", "0"], "--seeds: got 0, expected at least 1"),
        (["--methods", "replay", "--set", "budgte=3"], "did you mean 'budget'?"),
        (["--methods", "replay", "--csv", "/nowhere/table.csv"], "--csv: there is no folder /nowhere"),
        (["--methods", "replay", "--csv", "/"], "--csv: / is a folder or cannot be written"),
        (["--methods", "lite-adapt-inf", "--set", "pruning.pool_size=null"], "set pruning.pool_size to a number"),
        (["--methods", "gist"], "steps[0].dev, or set queries.kind to replay or file"),
        (
            ["--methods", "ewc", "--set", "lora.adapter=merge"],
            "ewc: hooks: ewc cannot be used with lora.adapter: merge",
        ),
        (["--methods", "mine", "--set", OTHER_HOOK], "mine: unknown hook 'ewcc'"),
        (["--methods", "replay", "--set", "training.report_to=[trackio]"], "report_to: trackio is not installed"),
    ],
)
def test_wrong_options_are_one_line_and_write_nothing(
    short: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
    options: list[str], expected: str,
) -> None:  # fmt: skip
    monkeypatch.setattr("liit.training.arguments.find_spec", lambda package: None)
    said = here(capsys, "compare", short, "--out", tmp_path / "out", *options)
    assert (said.code, said.out) == (2, ""), said
    assert expected in said.err
    assert said.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_directory_of_something_else_is_refused(
    compared: compare.Comparison, short: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = here(capsys, "compare", short, "--methods", "replay", "--out", compared.out, "--set", "budget=5")
    assert said.code == 2
    assert "belongs to a comparison on another continuum (its settings or its steps differ)" in said.err
    (tmp_path / "out").mkdir()
    (tmp_path / "out/photo.png").write_bytes(b"")
    said = here(capsys, "compare", short, "--methods", "replay", "--out", tmp_path / "out")
    assert said.code == 2
    assert "exists and is not a comparison" in said.err
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["photo.png"]
    for out, problem in (("out/photo.png", "exists and is not a comparison"), ("out/photo.png/c", "cannot make")):
        said = here(capsys, "compare", short, "--methods", "replay", "--out", tmp_path / out)
        assert (said.code, said.err.count("\n")) == (2, 1)
        assert problem in said.err
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["photo.png"]


@pytest.mark.parametrize("begun", [False, True])
def test_a_run_that_is_refused_takes_nothing_with_it_that_has_begun(
    short: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begun: bool
) -> None:
    def refuse(jobs: Sequence[Job], at_once: int, show: Callable[[str], None], threads: int) -> None:
        if begun:
            (tmp_path / "out/runs/replay/seed-3").mkdir(parents=True)
            (tmp_path / "out/runs/replay/seed-3/run.json").write_text("{}")
        raise InputError("model.path: not there")

    monkeypatch.setattr(compare, "run_jobs", refuse)
    monkeypatch.setattr(ahead, "keep_vision_states", lambda continuum, place, processes: 0)
    with pytest.raises(InputError, match=r"model\.path"):
        compare.compare(short, ["replay"], 1, tmp_path / "out")
    assert (tmp_path / "out/runs/replay/seed-3/run.json").is_file() == begun
    assert (tmp_path / "out").exists() == begun


@pytest.mark.slow
def test_the_command_runs_side_by_side_says_what_it_found_and_goes_on(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.undo()  # real processes
    path = write_continuum(tmp_path / "c", model, steps=2)
    arguments = ("compare", path, "--methods", "sequential", "--out", tmp_path / "out", "--csv", tmp_path / "table.csv")
    said = here(capsys, *arguments, "--seeds", "1", "--no-reference")
    assert (said.code, said.err) == (0, "")
    assert "sequential 3: step 2 beta, train: " in said.out
    assert "taken over from" in said.out
    again = here(capsys, *arguments, "--seeds", "2", "--no-reference")
    assert "3 of 6 runs are complete" in again.out
    assert "sequential 4: step 2 beta, train: " in again.out
    assert "sequential 3: " not in again.out
    assert "- No method is shown to end above random replay" in again.out
    assert (tmp_path / "table.csv").read_text() == (tmp_path / "out/compare.csv").read_text()
