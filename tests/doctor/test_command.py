"""`liit doctor` and what `liit extract` says at its end."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from tiny import ROWS, here


@pytest.fixture
def pool(continuum: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """A pool of the first step's rows."""
    said = here(capsys, "ingest", continuum.parent / "alpha.json", "--pool", tmp_path / "pool")
    assert said.code == 0, said.err
    return tmp_path / "pool"


def test_alone_it_describes_the_machine(capsys: pytest.CaptureFixture[str]) -> None:
    said = here(capsys, "doctor")
    assert said.code == 0
    assert "machine: " in said.out
    assert "packages: liit" in said.out
    found = json.loads(here(capsys, "doctor", "--json").out)
    assert found["machine"]["cores"] >= 1
    assert found["extraction"] is None


def test_a_model_alone_is_sized_without_its_weights(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for file in model.iterdir():
        if file.suffix != ".safetensors":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    found = json.loads(here(capsys, "doctor", "--model", tmp_path, "--set", "lora.r=4", "--json").out)
    assert found["model"]["layers"] == 2
    assert found["model"]["lora_total"] == found["model"]["lora_layer"] * 2


@pytest.mark.parametrize("options", [(), ("--no-run",)])
def test_a_pool_is_predicted(
    model: Path, pool: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, ...]
) -> None:
    said = here(
        capsys, "doctor", "--model", model, "--pool", pool, "--set", "features.dim=64", "--seconds", "0.1", *options
    )
    assert said.code == 0, said.err
    assert f"rows: {ROWS}\n" in said.out
    assert "passes: forward with images, backward through the upper 1 of 2 layers, forward without images" in said.out
    assert ("time: at least" in said.out) == bool(options)


def test_a_continuum_is_predicted_as_json(continuum: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = here(capsys, "doctor", continuum, "--no-run", "--json")
    run = json.loads(said.out)["run"]
    assert [step["pool"] for step in run["steps"]] == [ROWS, 2 * ROWS, 3 * ROWS]
    assert run["disk_bytes"] == run["feature_bytes"] + run["vision_bytes"] + run["adapter_bytes"]


def test_extract_ends_with_prediction_and_fact(
    continuum: Path, pool: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("extract", "--config", continuum, "--pool", pool, "--out", tmp_path / "features")
    said = here(capsys, *arguments)
    assert said.code == 0, said.err
    line = next(line for line in said.out.splitlines() if line.startswith("rows"))
    assert line.split() == ["rows", str(ROWS), str(ROWS), "1.00"]
    assert "fact / predicted" in said.out
    again = json.loads(here(capsys, *arguments, "--json").out)
    assert again["rows"] == ROWS


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--pool", "{tmp}"), "expected a continuum file or --model"),
        (("--set", "lora.r=4"), "expected a continuum file or --model"),
        (("{continuum}", "--model", "{model}"), "one of them"),
        (("{tmp}/nothing.yaml",), "cannot read the continuum file"),
        (("--model", "{model}", "--pool", "{tmp}"), "has no pool in it"),
        (("--model", "{tmp}"), "no configuration and processor"),
        (("--model", "{model}", "--set", "lora.rank=4"), "unknown key 'rank'"),
        (("{continuum}", "--pool", "{pool}", "--features", "perplexity", "--no-run"), "unknown feature 'perplexity'"),
    ],
)
def test_wrong_input_is_one_line_and_code_2(
    continuum: Path,
    model: Path,
    pool: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    expected: str,
) -> None:
    names = {"continuum": continuum, "model": model, "pool": pool, "tmp": tmp_path}
    said = here(capsys, "doctor", *(argument.format(**names) for argument in arguments))
    assert (said.code, said.out) == (2, ""), said
    assert said.err.startswith("liit: error: ")
    assert said.err.count("\n") == 1
    assert expected in said.err


def test_a_model_that_is_larger_than_the_memory_is_warned_of(
    model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from liit.doctor import diagnosis
    from liit.doctor.machine import inspect_machine

    monkeypatch.setattr(
        diagnosis, "inspect_machine", lambda: replace(inspect_machine(), memory_available=1000, gpus=())
    )
    said = here(capsys, "doctor", "--model", model, "--set", "lora.r=4")
    assert said.code == 0
    assert "warning: memory will not suffice" in said.out
    assert json.loads(here(capsys, "doctor", "--model", model, "--set", "lora.r=4", "--json").out)["warnings"]


def test_free_memory_is_looked_at_when_the_model_is_there(
    continuum: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What this process holds by then is part of what a run needs, and no longer free."""
    from liit.doctor import diagnosis

    order: list[str] = []
    look, model = diagnosis.inspect_machine, diagnosis.ModelAtHand
    monkeypatch.setattr(diagnosis, "inspect_machine", lambda: order.append("machine") or look())
    monkeypatch.setattr(diagnosis, "ModelAtHand", lambda *a, **k: order.append("model") or model(*a, **k))
    assert here(capsys, "doctor", continuum, "--seconds", "0.1").code == 0
    assert order == ["model", "machine"]
