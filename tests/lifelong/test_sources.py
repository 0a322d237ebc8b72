"""Datasets of a continuum in other formats: tars, embedded images, folders, leaks of what is trained on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import yaml
from tiny import ROWS, write_continuum

from liit.data.ingest import ingest
from liit.data.pool import Pool
from liit.lifelong.loop import run


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def as_shards(root: Path, name: str) -> None:
    """A step's file as two WebDataset shards, its rows in the same order."""
    pool = Pool.create(root / f"pool-{name}")
    ingest(pool, root / f"{name}.json", "llava-json", name, strict=True)
    (root / name).mkdir()
    for part in range(2):
        pool.write(root / name / f"{part}.tar", pool.ids()[part * ROWS // 2 :][: ROWS // 2], "webdataset")


def test_a_run_on_tars_and_embedded_images_needs_no_other_file_and_ends_the_same(model: Path, tmp_path: Path) -> None:
    config = write_continuum(tmp_path / "c", model, steps=2, method="sequential")
    plain = run(config, tmp_path / "plain").path
    value = yaml.safe_load(config.read_text())
    as_shards(tmp_path / "c", "alpha")
    value["steps"][0]["train"] = [{"path": "alpha", "format": "webdataset", "source": "source-alpha"}]
    value["steps"][1]["train"][0]["embed_images"] = True
    config.write_text(yaml.safe_dump(value))
    shards = run(config, tmp_path / "shards").path
    for step in ("01-alpha", "02-beta"):
        same = [(path / "steps" / step / "evaluation.json").read_bytes() for path in (plain, shards)]
        assert same[0] == same[1]
        weights = [
            (path / "steps" / step / "adapter/adapter_model.safetensors").read_bytes() for path in (plain, shards)
        ]
        assert weights[0] == weights[1]
    shutil.move(shards / "pool", tmp_path / "moved")
    shutil.rmtree(tmp_path / "c")
    moved = Pool.open(tmp_path / "moved")
    samples = [sample for batch in moved.scan() for sample in batch]
    assert len(samples) == 2 * ROWS
    assert all(image.open().mode == "RGB" for sample in samples for image in sample.images)


def test_evaluation_rows_that_are_trained_on_are_named_in_ingest_json(model: Path, tmp_path: Path) -> None:
    config = write_continuum(tmp_path / "c", model, steps=1, method="sequential")
    questions = read(tmp_path / "c" / "alpha-colour.json")
    rows = read(tmp_path / "c" / "alpha.json")
    (tmp_path / "c" / "alpha.json").write_text(json.dumps([*rows, dict(questions[0], id="leaked")]))
    directory = run(config, tmp_path / "run", overrides=["steps.0.train.0.allow_outside=true"]).path
    found = read(directory / "steps/01-alpha/ingest.json")
    assert (found["leaked_rows"], found["leaked_images"]) == (1, 1)
    assert found["leaks"]["by_skill"]["alpha-colour"]["leaked_rows"] == 1
    assert found["leaks"]["examples"][0]["training"] == "leaked"
    assert found["same_content_in"] == {}
