from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from synthetic_runs import CONTINUUM, write_runs

from liit.errors import InputError
from liit.report.reading import load_run, load_runs


def copy(run: Path, tmp_path: Path, name: str = "copy") -> Path:
    return Path(shutil.copytree(run, tmp_path / name))


def test_matrix_has_the_base_model_first_and_the_steps_that_introduce_skills(run_paths: list[Path]) -> None:
    run = load_run(run_paths[0])
    assert run.continuum.steps == tuple(CONTINUUM)
    assert run.scores.shape == (len(CONTINUUM) + 1, len(run.continuum.skills))
    introduced = dict(zip(run.continuum.skills, run.continuum.introduced.tolist(), strict=True))
    assert (introduced["naming"], introduced["describing"], introduced["riddles"]) == (1, 2, 0)
    base = json.loads((run_paths[0] / "steps" / "00-base" / "evaluation.json").read_text())["skills"]
    assert run.scores[0, run.continuum.skills.index("count")] == base["count"]["score"]
    assert run.finished


def test_final_pool_is_what_pruning_left(run_paths: list[Path]) -> None:
    runs = {run.method: run for run in load_runs(run_paths)}
    lite = runs["lite-adapt-inf"]
    pruned = sum(step.pruned.num_rows for step in lite.steps if step.pruned is not None)
    assert pruned > 0
    assert lite.final_pool_size == runs["adapt-inf"].final_pool_size - pruned


def test_pool_of_a_step_is_the_version_it_selected_from(run_paths: list[Path]) -> None:
    lite = load_run(run_paths[1])
    for step in lite.steps:
        assert step.selection is not None
        assert step.selection.labels is not None
        assert len(step.pool) == step.pool_size
        assert set(step.selection.labels) == set(step.pool)


def test_a_run_that_stopped_early_is_read_as_far_as_it_got(run_paths: list[Path], tmp_path: Path) -> None:
    path = copy(run_paths[2], tmp_path)
    for step in sorted((path / "steps").iterdir())[4:]:
        shutil.rmtree(step)
    run = load_run(path)
    assert not run.finished
    assert np.isnan(run.scores[4:]).all()
    assert not np.isnan(run.scores[:4]).any()
    assert run.final_rows == {}


def test_runs_of_one_method_are_told_apart(run_paths: list[Path], tmp_path: Path) -> None:
    path = copy(run_paths[2], tmp_path)
    assert [run.label for run in load_runs([run_paths[2], path])] == ["replay (replay)", "replay (copy)"]
    state = json.loads((path / "run.json").read_text())
    (path / "run.json").write_text(json.dumps({**state, "seed": 7}))
    assert [run.label for run in load_runs([run_paths[2], path])] == ["replay (seed 0)", "replay (seed 7)"]


def test_what_is_not_a_run_is_refused_in_one_line(run_paths: list[Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a run directory"):
        load_run(tmp_path)
    with pytest.raises(InputError, match="runs: none given"):
        load_runs([])
    path = copy(run_paths[2], tmp_path)
    (path / "timings.jsonl").write_text('{"step": 1, "stage"')
    with pytest.raises(InputError, match="line 1, is not JSON"):
        load_run(path)
    (path / "continuum.yaml").unlink()
    with pytest.raises(InputError, match="cannot be read"):
        load_run(path)


def test_runs_of_different_continua_are_refused(run_paths: list[Path], tmp_path: Path) -> None:
    other = write_runs(tmp_path, rows=200, methods=("replay",), hostile="-b")
    with pytest.raises(InputError, match="report them apart"):
        load_runs([run_paths[0], *other])
