"""Wrong input: one clear line on the error stream, exit code 2, and nothing half-written."""

from __future__ import annotations

import json
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny import BUDGET, ROWS, Said, command, environment, here, listing, write_continuum

Run = Callable[..., Said]


@pytest.fixture
def place(model: Path, tmp_path: Path) -> Path:
    """A folder with a small continuum in it."""
    write_continuum(tmp_path / "c", model, steps=1, method="replay")
    return tmp_path


@pytest.fixture
def refused(place: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command that must be refused; its line."""

    def run(*arguments: str | Path) -> str:
        before = listing(place)
        said = here(capsys, *arguments)
        assert listing(place) == before
        assert (said.code, said.out) == (2, ""), said
        assert said.err.startswith("liit: error: ")
        assert said.err.count("\n") == 1
        return said.err

    return run


def change(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("budget: 16", "budgte: 16", "unknown key 'budgte' in the top level; did you mean 'budget'?"),
        ("batch_size: 8", "batchsize: 8", "unknown key 'batchsize' in 'training'; did you mean 'batch_size'?"),
        ("budget: 16", "budget: 0", "budget: got 0, expected greater than 0"),
        ("budget: 16", "budget: -5", "budget: got -5, expected greater than 0"),
        ("method: replay", "method: adapt-ing", "unknown method 'adapt-ing'; did you mean 'adapt-inf'?"),
        ("path: alpha.json", "path: alhpa.json", "there is no file"),
        ("path: alpha-count.json", "path: nothing.json", "there is no file"),
        ("images: .", "images: pictures", "there is no folder"),
        ("metric: numeric", "metric: numerical", "did you mean 'numeric'?"),
    ],
)
def test_a_mistake_in_the_file_is_named_with_its_line(
    place: Path, refused: Run, old: str, new: str, expected: str
) -> None:
    file = place / "c/continuum.yaml"
    change(file, old, new)
    line = next(n for n, text in enumerate(file.read_text().splitlines(), start=1) if new in text)
    said = refused("run", file, "--out", place / "out")
    assert f"continuum.yaml, line {line}: " in said or f"continuum.yaml line {line}: " in said, said
    assert expected in said


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("- a\n- b\n", "expected keys and values"),
        ("", "expected keys and values"),
        ("name: [", "continuum.yaml"),
        ("name: a\n\tbudget: 3\n", "continuum.yaml"),
    ],
)
def test_a_file_that_is_no_mapping_is_refused(place: Path, refused: Run, text: str, expected: str) -> None:
    (place / "c/continuum.yaml").write_text(text)
    assert expected in refused("run", place / "c/continuum.yaml", "--out", place / "out")


def test_a_continuum_file_that_is_not_there_or_a_folder_is_refused(place: Path, refused: Run) -> None:
    assert "nothing.yaml" in refused("run", place / "nothing.yaml", "--out", place / "out")
    assert "Is a directory" in refused("run", place / "c", "--out", place / "out")


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("trainig.epochs=3", "did you mean 'training'?"),
        ("training.epochs", "expected key=value"),
        ("budget=many", "expected a whole number"),
        ("steps.7.name=x", "counted from 0"),
    ],
)
def test_a_mistake_in_an_override_is_named(place: Path, refused: Run, setting: str, expected: str) -> None:
    said = refused("run", place / "c/continuum.yaml", "--out", place / "out", "--set", setting)
    assert f"--set {setting}" in said
    assert expected in said


def test_an_unknown_method_on_the_command_line_is_named(place: Path, refused: Run) -> None:
    said = refused("run", place / "c/continuum.yaml", "--out", place / "out", "--method", "replya")
    assert "did you mean 'replay'?" in said


@pytest.mark.parametrize("content", ["nothing", "a config", "no weights"])
def test_a_model_that_cannot_be_loaded_leaves_nothing(place: Path, refused: Run, model: Path, content: str) -> None:
    broken = place / "broken"
    if content == "no weights":
        shutil.copytree(model, broken)
        (broken / "model.safetensors").unlink()
    else:
        broken.mkdir()
    if content == "a config":
        (broken / "config.json").write_text('{"model_type": "no-such-model"}')
    said = refused("run", place / "c/continuum.yaml", "--out", place / "runs/out", "--set", f"model.path={broken}")
    assert "model.path: cannot load" in said
    missing = place / "missing"
    assert "there is no folder" in refused(
        "run", place / "c/continuum.yaml", "--out", place / "runs/out", "--set", f"model.path={missing}"
    )


def test_a_bad_evaluation_row_is_named_and_leaves_nothing(place: Path, refused: Run) -> None:
    change(place / "c/alpha-colour.json", "eval-alpha-0.png", "eval-alpha-gone.png")
    said = refused("run", place / "c/continuum.yaml", "--out", place / "out")
    assert "alpha-colour.json" in said
    assert "eval-alpha-gone.png" in said


@pytest.fixture
def done(place: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """A finished run."""
    said = here(capsys, "run", place / "c/continuum.yaml", "--out", place / "out")
    assert (said.code, said.err) == (0, "")
    return place / "out"


def test_a_directory_of_another_run_is_refused_and_says_in_what_it_differs(
    place: Path, refused: Run, done: Path
) -> None:
    file = place / "c/continuum.yaml"
    for settings, expected in [
        (["method=sequential"], "method 'replay', not 'sequential'"),
        (["seed=9"], "seed 3, not 9"),
        (["name=other"], "name 'tiny', not 'other'"),
        (["budget=7", "training.epochs=2"], "its budget, training differ"),
    ]:
        options = [part for setting in settings for part in ("--set", setting)]
        said = refused("run", file, "--out", done, *options)
        assert f"{done} belongs to another run ({expected})" in said


def test_a_directory_that_is_no_run_is_refused(place: Path, refused: Run) -> None:
    file = place / "c/continuum.yaml"
    (place / "photos").mkdir()
    (place / "photos/cat.png").write_bytes(b"cat")
    for out in (place / "photos", place / "c", file):
        assert f"{out} exists and is not a run" in refused("run", file, "--out", out)


def test_a_folder_with_only_the_continuum_file_is_not_written_over(place: Path, refused: Run) -> None:
    alone = place / "alone"
    alone.mkdir()
    text = (place / "c/continuum.yaml").read_text().replace("path: alpha", f"path: {place}/c/alpha")
    (alone / "continuum.yaml").write_text(text.replace("images: .", f"images: {place}/c"))
    assert "exists and is not a run" in refused("run", alone / "continuum.yaml", "--out", alone)


@pytest.mark.parametrize("state", ["", "[]", "{}", '{"stages": [], "format": 99}', "\xff"])
def test_a_damaged_run_json_is_refused(place: Path, refused: Run, state: str) -> None:
    (place / "out").mkdir()
    (place / "out/run.json").write_bytes(state.encode("latin-1"))
    assert "out: " in refused("run", place / "c/continuum.yaml", "--out", place / "out")


def test_a_place_where_nothing_can_be_made_is_refused(place: Path, refused: Run) -> None:
    (place / "file").write_text("")
    for out in (place / "file/out", Path("/proc/no/out")):
        assert f"cannot make {out}" in refused("run", place / "c/continuum.yaml", "--out", out)


def test_a_dataset_that_is_no_json_is_named(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "c/alpha.json").write_text("<html>")
    said = here(capsys, "run", place / "c/continuum.yaml", "--out", place / "out")
    assert said.code == 2
    assert "alpha.json" in said.err
    assert said.err.count("\n") == 1
    # The base model was measured before the data was read; the corrected file goes on from there.
    assert [s["stage"] for s in json.loads((place / "out/run.json").read_text())["stages"]] == ["evaluate"]


def test_rows_without_their_image_are_set_aside_and_counted(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in (0, 3, 4):
        (place / f"c/images/train-alpha-{number}.png").unlink()
    said = here(capsys, "run", place / "c/continuum.yaml", "--out", place / "out")
    assert said.code == 0
    assert f"{ROWS - 6} samples added, pool of {ROWS - 6}; 6 rows set aside (image-missing 6)" in said.out
    facts = json.loads((place / "out/steps/01-alpha/ingest.json").read_text())
    assert (facts["added"], facts["quarantined"], facts["reasons"]) == (ROWS - 6, 6, {"image-missing": 6})
    assert json.loads((place / "out/steps/01-alpha/train.json").read_text())["samples"] == BUDGET


def test_a_step_of_which_no_row_is_left_is_one_line(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.move(place / "c/images", place / "c/pictures")
    shutil.copytree(place / "c/pictures", place / "c/images")
    for picture in (place / "c/images").glob("train-*"):
        picture.unlink()
    for method in ("replay", "sequential", "adapt-inf", "multitask"):
        said = here(capsys, "run", place / "c/continuum.yaml", "--out", place / method, "--method", method)
        assert said.code == 2
        assert f"step 1 (alpha): nothing to train on with {method}: 0 samples added" in said.err
        assert f"{ROWS} rows set aside (image-missing {ROWS})" in said.err
        assert said.err.count("\n") == 1


def test_a_training_that_is_spoiled_is_one_line_and_leaves_no_adapter(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("run", place / "c/continuum.yaml", "--out", place / "out", "--set", "training.learning_rate=1e30")
    said = here(capsys, *arguments, "--set", "training.save_steps=1")
    assert said.code == 2
    assert re.fullmatch(
        r"liit: error: step 1 \(alpha\): train: the loss is not finite \(nan\) by optimizer step 2 of 2; "
        r"try a training.learning_rate below 1e\+30\n",
        said.err,
    ), said.err
    left = {file.name for file in (place / "out/steps/01-alpha").iterdir()}
    assert left == {"ingest.json", "selection.json", "selection.parquet"}
    stages = json.loads((place / "out/run.json").read_text())["stages"]
    assert [entry["stage"] for entry in stages] == ["evaluate", "ingest", "select"]


def test_a_budget_larger_than_the_pool_is_said(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for method, what in (("replay", "pool"), ("sequential", "new data")):
        said = here(
            capsys, "run", place / "c/continuum.yaml", "--out", place / method, "--method", method, "--set", "budget=99"
        )
        assert said.code == 0
        assert f"the budget of 99 is larger than the {what}: training on all {ROWS} samples" in said.out
        assert json.loads((place / method / "steps/01-alpha/train.json").read_text())["samples"] == ROWS


@pytest.mark.parametrize(
    "arguments", [["rnu"], ["run"], ["run", "c.yaml"], ["run", "c.yaml", "--out"], ["run", "--no-such-option"]]
)
def test_a_wrong_command_line_has_code_2_and_no_traceback(
    capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    said = here(capsys, *arguments)
    assert (said.code, said.out) == (2, "")
    assert "Error: " in said.err
    assert "Traceback" not in said.err


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="needs Linux")
@pytest.mark.parametrize("limit", [3000, 10_000])
def test_a_disk_that_fills_up_is_one_line_and_the_run_goes_on_once_there_is_room(
    place: Path, capsys: pytest.CaptureFixture[str], limit: int
) -> None:
    """No file may grow beyond a limit: to the program that looks like a disk that is full."""
    arguments = ("run", place / "c/continuum.yaml", "--out", place / "out")
    process = subprocess.Popen(
        command(*arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment()
    )
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (limit, limit))
    said, errors = process.communicate(timeout=120)
    assert process.returncode == 1, said + errors
    # SQLite has one word for every write that fails; which library meets the limit depends on the machine.
    assert re.match(r"liit: error: (File too large|(.* error|File too large) \(disk I/O error\)): /\S+;", errors)
    assert errors.count("\n") == 1
    assert here(capsys, *arguments).code == 0


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="needs Linux")
def test_a_full_disk_is_recognised_whichever_library_meets_it(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(FULL_DISK)
    done = subprocess.run(
        [sys.executable, script, tmp_path], capture_output=True, text=True, env=environment(), timeout=120
    )
    assert done.stdout.splitlines() == ["text File too large", "parquet File too large", "weights File too large"], done


# In a process of its own, for a limit once lowered cannot be raised; and never on /dev/full, which root may replace.
FULL_DISK = """
import resource, sys
from pathlib import Path
import numpy as np, pyarrow as pa, pyarrow.parquet as pq
from safetensors.numpy import save_file
from liit.cli.app import disk_problem
folder, values = Path(sys.argv[1]), np.random.default_rng(0).normal(size=1000)
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
for name, write in {
    "text": lambda: (folder / "a").write_text("a" * 1000),
    "parquet": lambda: pq.write_table(pa.table({"a": values}), folder / "b"),
    "weights": lambda: save_file({"a": values}, folder / "c"),
}.items():
    try:
        write()
    except Exception as error:
        print(name, (disk_problem(error) or repr(error)).partition(":")[0], flush=True)
"""


def test_a_bug_is_not_taken_for_a_full_disk() -> None:
    from liit.cli.app import disk_problem

    assert disk_problem(ValueError("list index out of range")) is None
