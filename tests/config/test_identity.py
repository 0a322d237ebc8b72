"""A continuum written into a run directory is the same continuum, and its hash says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from liit.config import config_sha256, dump_config, load_config

TEXT = """\
name: x
budget: 10
model: {path: org/model}
steps:
  - {name: one, train: [{path: a.json}], evaluation: [{skill: "no", path: e.json, metric: exact-match}]}
  - {name: two, train: [{path: b.json, images: i, source: "1e3"}]}
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "x.yaml").write_text(TEXT)
    return tmp_path / "x.yaml"


def test_dumped_continuum_reads_back_from_another_folder(path: Path, tmp_path: Path) -> None:
    continuum = load_config(path, ["selection.k=7", "training.autocast=bfloat16"], check_files=False)
    copy = tmp_path / "elsewhere" / "continuum.yaml"
    copy.parent.mkdir()
    copy.write_text(dump_config(continuum))
    again = load_config(copy, check_files=False)
    assert again == continuum
    assert config_sha256(again) == config_sha256(continuum)
    assert dump_config(again) == dump_config(continuum)


def test_writing_out_a_default_changes_nothing(path: Path) -> None:
    plain = load_config(path, check_files=False)
    spelt_out = load_config(
        path, ["seed=0", "training.learning_rate=0.0002", "steps.0.train.0.source=one"], check_files=False
    )
    assert config_sha256(plain) == config_sha256(spelt_out)


@pytest.mark.parametrize(
    "override", ["evaluation.batch_size=3", "features.batch_tokens=77", "features.share_beginnings=false"]
)
def test_what_only_changes_speed_keeps_the_identity(path: Path, override: str) -> None:
    plain, changed = (load_config(path, overrides, check_files=False) for overrides in ([], [override]))
    assert plain != changed
    assert config_sha256(plain) == config_sha256(changed)


@pytest.mark.parametrize(
    "override",
    [
        "method=replay",
        "seed=1",
        "budget=11",
        "training.batch_size=8",
        "features.dim=4096",
        "evaluation.max_new_tokens=5",
        "steps.0.train.0.path=c.json",
        "steps.1.name=three",
        "model.path=org/other",
    ],
)
def test_what_changes_results_changes_the_identity(path: Path, override: str) -> None:
    plain, changed = (load_config(path, overrides, check_files=False) for overrides in ([], [override]))
    assert config_sha256(plain) != config_sha256(changed)
