"""What a person sees who wrote a continuum file with a mistake in it, and that right ones are read as written."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from liit.config import Continuum, load_config
from liit.errors import InputError

GOOD = """\
name: pictures
budget: 100
model: {path: builtin:demo}
training:
  learning_rate: 2e-4
  epochs: 2
steps:
  - name: colours
    train:
      - {path: colours.json, images: images}
      - {path: more.json, source: elsewhere}
    evaluation:
      - {skill: colour, path: eval.json, metric: exact-match}
  - name: counts
    train: [{path: counts.json, format: messages}]
    evaluation: [{skill: no, path: eval.json, metric: numeric}]
unseen:
  - {skill: boxes, path: eval.json, metric: box-iou}
"""


@pytest.fixture
def good(tmp_path: Path) -> Path:
    for name in ("colours.json", "more.json", "counts.json", "eval.json"):
        (tmp_path / name).write_text("[]")
    (tmp_path / "images").mkdir()
    path = tmp_path / "good.yaml"
    path.write_text(GOOD)
    return path


def message_for(good: Path, old: str, new: str) -> str:
    """Change one thing in the good file and return the error, less the file's folder."""
    text = GOOD.replace(old, new, 1)
    assert text != GOOD
    good.write_text(text)
    with pytest.raises(InputError) as caught:
        load_config(good)
    assert "\n" not in str(caught.value)
    return str(caught.value).replace(f"{good.parent}/", "")


def test_values_and_defaults_are_read(good: Path) -> None:
    continuum = load_config(good)
    assert (continuum.name, continuum.budget, continuum.seed, continuum.method) == ("pictures", 100, 0, "adapt-inf")
    assert continuum.training.learning_rate == 2e-4
    assert continuum.training.epochs == 2
    assert continuum.lora.r == 128
    assert [step.name for step in continuum.steps] == ["colours", "counts"]
    assert continuum.selection.k_grid == (5, 10, 15, 20, 25, 30, 35, 40, 45, 50)


def test_paths_start_from_the_folder_of_the_file(good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    train = load_config(good).steps[0].train
    assert train[0].path == good.parent / "colours.json"
    assert train[0].images == good.parent / "images"
    assert train[1].images is None


def test_paths_of_a_relative_continuum_file_are_absolute(good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(good.parent)
    assert load_config("good.yaml") == load_config(good)


def test_source_is_the_step_unless_named(good: Path) -> None:
    assert [item.source for step in load_config(good).steps for item in step.train] == [
        "colours",
        "elsewhere",
        "counts",
    ]


def test_a_skill_may_be_called_no(good: Path) -> None:
    assert load_config(good).steps[1].evaluation[0].skill == "no"


@pytest.mark.parametrize(
    ("path", "expected"), [("llava-hf/llava-1.5-7b-hf", None), ("./here", "here"), ("/abs", "/abs")]
)
def test_model_ids_stay_and_model_folders_become_absolute(good: Path, path: str, expected: str | None) -> None:
    continuum = load_config(good, [f"model.path={path}"], check_files=False)
    assert continuum.model.path == (path if expected is None else str(good.parent / expected))


MISTAKES = {
    "misspelt key": (
        ("budget: 100", "bugdet: 100"),
        "good.yaml, line 2: unknown key 'bugdet' in the top level; did you mean 'budget'? (and 1 more)",
    ),
    "misspelt nested key": (
        ("  epochs: 2", "  epoch: 2"),
        "good.yaml, line 6: unknown key 'epoch' in 'training'; did you mean 'epochs'?",
    ),
    "misspelt key in a list": (
        ("images: images", "imges: images"),
        "good.yaml, line 10: unknown key 'imges' in 'steps.0.train.0'; did you mean 'images'?",
    ),
    "key twice": (
        ("budget: 100", "budget: 100\nname: again"),
        "good.yaml, line 3: key 'name' is given twice (first on line 1)",
    ),
    "missing key": (
        ("budget: 100\n", ""),
        "good.yaml, line 1: missing key 'budget' in the top level: samples trained on at each step",
    ),
    "missing key in a list": (
        ("metric: numeric", "format: messages"),
        "good.yaml, line 16: missing key 'metric' in 'steps.1.evaluation.0': how an answer is compared with ",
    ),
    "budget not positive": (("budget: 100", "budget: 0"), "good.yaml, line 2: budget: got 0, expected greater than 0"),
    "budget not a number": (
        ("budget: 100", "budget: lots"),
        "good.yaml, line 2: budget: got 'lots', expected a whole number",
    ),
    "budget a truth value": (
        ("budget: 100", "budget: true"),
        "good.yaml, line 2: budget: got true, expected a whole number",
    ),
    "budget empty": (("budget: 100", "budget:"), "good.yaml, line 2: budget: got nothing, expected a whole number"),
    "epochs negative": (
        ("epochs: 2", "epochs: -1"),
        "good.yaml, line 6: training.epochs: got -1, expected greater than 0",
    ),
    "epochs a fraction": (
        ("epochs: 2", "epochs: 2.5"),
        "good.yaml, line 6: training.epochs: got 2.5, expected a whole number",
    ),
    "learning rate infinite": (
        ("2e-4", ".inf"),
        "good.yaml, line 5: training.learning_rate: got Infinity, expected a finite number",
    ),
    "unknown method": (
        ("budget: 100", "budget: 100\nmethod: adaptinf"),
        "good.yaml, line 3: method: unknown method 'adaptinf'; did you mean 'adapt-inf'? (known: adapt-inf, ",
    ),
    "unknown metric": (
        ("metric: numeric", "metric: numerical"),
        "good.yaml, line 16: steps.1.evaluation.0.metric: unknown metric 'numerical'; did you mean 'numeric'? (known: ",
    ),
    "unknown format": (
        ("format: messages", "format: message"),
        "good.yaml, line 15: steps.1.train.0.format: unknown format 'message'; did you mean 'messages'? (known: ",
    ),
    "unknown optimizer": (
        ("epochs: 2", "optimizer: adam"),
        "good.yaml, line 6: training.optimizer: got 'adam', expected 'adamw' or 'muon'; did you mean 'adamw'?",
    ),
    "unknown expert": (
        ("training:", "selection: {experts: [el2n, entrpy]}\ntraining:"),
        "good.yaml, line 4: selection.experts.1: unknown expert 'entrpy'; did you mean 'entropy'? (known: ",
    ),
    "unknown way to choose an expert": (
        ("training:", "selection: {expert: rank}\ntraining:"),
        "good.yaml, line 4: selection.expert: unknown way to choose an expert 'rank'; did you mean 'rank-average'?",
    ),
    "unknown built-in model": (
        ("builtin:demo", "builtin:dmeo"),
        "good.yaml, line 3: model.path: unknown built-in model 'builtin:dmeo'; did you mean 'builtin:demo'? (known: ",
    ),
    "value for a section": (
        ("{path: builtin:demo}", "builtin:demo"),
        "good.yaml, line 3: model: got 'builtin:demo', expected keys",
    ),
    "wrong item in a union": (
        ("training:", "features: {layers: [1, two]}\ntraining:"),
        "good.yaml, line 4: features.layers: got 'two', expected a whole number",
    ),
    "wrong value for a union": (
        ("training:", "features: {layers: last}\ntraining:"),
        "good.yaml, line 4: features.layers: got 'last', expected 'middle' or 'all' or a whole number or a list",
    ),
    "number for a name": (
        ("name: counts", "name: 2"),
        "good.yaml, line 14: steps.1.name: got 2, expected text (put it in quotes)",
    ),
    "path for a name": (
        ("name: counts", "name: a/b"),
        "good.yaml, line 14: steps.1.name: got 'a/b', expected a name that can be part",
    ),
    "step name twice": (
        ("name: counts", "name: Colours"),
        "good.yaml, line 14: step name 'Colours' is taken by step 1; names must differ",
    ),
    "skill twice": (
        ("skill: boxes", "skill: colour"),
        "good.yaml, line 18: skill 'colour' is measured twice; give each skill one entry",
    ),
    "no steps": (("steps:", "steps: []\nunused:"), "good.yaml, line 8: unknown key 'unused' in the top level"),
    "no data": (
        ("train: [{path: counts.json, format: messages}]", "train: []"),
        "good.yaml, line 15: steps.1.train: got an empty list, expected at least one item",
    ),
    "pruning without a size": (
        ("budget: 100", "budget: 100\nmethod: lite-adapt-inf"),
        "good.yaml, line 3: lite-adapt-inf prunes the pool and needs its size: set pruning.pool_size to a number",
    ),
    "missing file": (
        ("counts.json", "count.json"),
        "good.yaml, line 15: there is no file count.json; paths start from the continuum file's folder",
    ),
    "missing evaluation file": (
        ("box-iou", "box-iou, images: images, path: x.json"),
        "good.yaml, line 18: key 'path' is given twice",
    ),
    "missing image folder": (
        ("images: images", "images: image"),
        "good.yaml, line 10: there is no folder image; paths start from",
    ),
    "missing model folder": (("builtin:demo", "./model"), "good.yaml, line 3: there is no folder model with a model"),
    "not YAML": (("budget: 100", "budget: [100"), "good.yaml, line 3: this is not plain YAML: "),
    "code in a tag": (
        ("budget: 100", "budget: !!python/name:os.system"),
        "good.yaml, line 2: this is not plain YAML: ",
    ),
}


@pytest.mark.parametrize(("change", "expected"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_gets_one_clear_line(good: Path, change: tuple[str, str], expected: str) -> None:
    message = message_for(good, *change)
    assert message.startswith(expected)


def test_importing_the_configuration_is_light() -> None:
    code = "import sys, liit.config; print(sorted({'torch', 'transformers', 'lance', 'scipy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_a_file_that_is_missing_or_not_text_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere\.yaml: cannot read the continuum file: No such file"):
        load_config(tmp_path / "nowhere.yaml")
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"bytes\.yaml: cannot read the continuum file: it is not UTF-8 text"):
        load_config(tmp_path / "bytes.yaml")


@pytest.mark.parametrize("text", ["", "just words", "- a\n- list\n"])
def test_a_file_without_keys_says_what_was_expected(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(InputError, match=r"x\.yaml, line 1: expected keys and values"):
        load_config(tmp_path / "x.yaml")


def test_files_need_not_exist_when_not_checked(good: Path) -> None:
    for path in good.parent.glob("*.json"):
        path.unlink()
    assert load_config(good, check_files=False).budget == 100


class TestOverrides:
    @staticmethod
    def load(good: Path, *overrides: str) -> Continuum:
        return load_config(good, overrides)

    def test_replace_values_at_any_depth(self, good: Path) -> None:
        continuum = self.load(
            good,
            "training.epochs=3",
            "steps.0.name=first",
            "lora.target_modules=[q_proj, v_proj]",
            "seed=7",
            "method=replay",
        )
        assert continuum.training.epochs == 3
        assert continuum.training.learning_rate == 2e-4
        assert continuum.steps[0].name == "first"
        assert continuum.lora.target_modules == ("q_proj", "v_proj")
        assert (continuum.seed, continuum.method) == (7, "replay")

    def test_the_last_one_wins(self, good: Path) -> None:
        assert self.load(good, "seed=1", "seed=2").seed == 2

    def test_an_empty_section_of_the_file_can_be_filled(self, good: Path) -> None:
        good.write_text(GOOD.replace("budget: 100", "budget: 100\nlora:"))
        assert self.load(good, "lora.r=4").lora.r == 4

    def test_paths_start_from_the_folder_of_the_file(self, good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir("/")
        assert self.load(good, "steps.1.train.0.path=more.json").steps[1].train[0].path == good.parent / "more.json"

    @pytest.mark.parametrize(
        ("override", "expected"),
        [
            ("training.epoch=3", "unknown key 'epoch' in 'training'; did you mean 'epochs'?"),
            ("trainig.epochs=3", "unknown key 'trainig' in the top level; did you mean 'training'?"),
            ("training.epochs=-3", "training.epochs: got -3, expected greater than 0"),
            ("training.epochs=", "training.epochs: got nothing, expected a whole number"),
            ("training.epochs", "expected key=value, for example training.epochs=3"),
            ("training..epochs=3", "expected key=value, for example training.epochs=3"),
            (
                "steps.2.name=x",
                "there is no '2' to set in 'steps.2.name': what it should be part of is a list of 2, counted",
            ),
            ("budget.x=3", "there is no 'x' to set in 'budget.x': what it should be part of is 100"),
            ("steps.0.train.0.path=no.json", "there is no file"),
            ("name=[", "line 1: this is not plain YAML"),
        ],
    )
    def test_a_mistake_names_the_override(self, good: Path, override: str, expected: str) -> None:
        with pytest.raises(InputError) as caught:
            self.load(good, override)
        text = str(caught.value)
        assert text.startswith(f"--set {override}")
        assert text.removeprefix(f"--set {override}").lstrip(":, ").startswith(expected)
