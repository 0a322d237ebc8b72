"""Other families than LLaVA in a run: the model section reaches the model, and a step goes from rows to accuracies."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from families import FAMILIES, save_family
from tiny import QUESTIONS, ROWS, write_continuum

from liit.config import load_config
from liit.lifelong.workbench import Workbench
from liit.model.vision import Pixels, VisionCache


def test_model_section_reaches_the_processor_and_switches_the_vision_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIIT_CACHE", str(tmp_path / "cache"))
    model = save_family("qwen2.5-vl", tmp_path / "model")
    path = write_continuum(tmp_path / "data", model, steps=1)
    options = "model.image_options={max_pixels: 3136, min_pixels: 784}"
    bench = Workbench(load_config(path, [options]))
    size = bench.vlm.processor.image_processor.size
    assert (size["shortest_edge"], size["longest_edge"]) == (784, 3136)
    assert isinstance(bench.vision, VisionCache)
    assert isinstance(Workbench(load_config(path, ["model.vision_cache=false"])).vision, Pixels)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_a_step_runs_from_rows_to_accuracies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, family: str) -> None:
    import liit

    monkeypatch.setenv("LIIT_CACHE", str(tmp_path / "cache"))
    model = save_family(family, tmp_path / "model")
    path = write_continuum(tmp_path / "data", model, steps=1)
    path.write_text(path.read_text().replace("max_length: 128", "max_length: 512"))
    liit.run(path, out=tmp_path / "run")
    step = tmp_path / "run" / "steps" / "01-alpha"
    assert (step / "adapter" / "adapter_model.safetensors").is_file()
    assert (step / "evaluation.json").is_file()
    predictions = [json.loads(line) for line in (step / "predictions.jsonl").read_text().splitlines()]
    assert len(predictions) == 2 * QUESTIONS
    assert json.loads((step / "ingest.json").read_text())["added"] == ROWS
