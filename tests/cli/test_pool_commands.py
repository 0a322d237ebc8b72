"""`liit pool` and `liit ingest`: what they print for people and for scripts, and how they refuse."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from tiny import Said, here

from liit.data.pool import Pool

Say = Callable[..., Said]


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Say:
    return lambda *arguments: here(capsys, *arguments)


@pytest.fixture
def facts(say: Say) -> Callable[..., Any]:
    def run(*arguments: str | Path) -> Any:
        said = say(*arguments, "--json")
        assert (said.code, said.err) == (0, ""), said
        return json.loads(said.out)

    return run


@pytest.fixture
def pool(tmp_path: Path, llava_dataset, say: Say) -> Path:
    """Versions 2: ten rows; 3: without two of them."""
    path = llava_dataset(10)
    assert say("ingest", path, "--pool", tmp_path / "pool", "--source", "one", "-m", "the first").code == 0
    why = pa.table({"id": ["3", "4"], "cluster": [7, 7], "neighbour": ["1", None], "similarity": [0.9, None]})
    Pool.open(tmp_path / "pool").remove(["3", "4"], step=1, neighbours=why, message="cut")
    return tmp_path / "pool"


def test_log_lists_the_versions_newest_first(pool: Path, say: Say, facts) -> None:
    lines = say("pool", "log", pool).out.splitlines()
    assert [(line.split()[0], line.split()[2], line.split()[3]) for line in lines] == [
        ("3", "remove", "8"), ("2", "ingest", "10"), ("1", "create", "0"),
    ]  # fmt: skip
    assert lines[1].endswith("the first")
    assert [commit["version"] for commit in facts("pool", "log", pool)] == [3, 2, 1]


def test_diff_says_what_went_and_why(pool: Path, say: Say, facts) -> None:
    said = say("pool", "diff", pool, "2").out
    assert "version 2: 10 samples; version 3: 8 samples" in said
    assert "removed: 2 (one 2)\n  - 3  step 1, cluster 7, near 1 (0.900)\n  - 4  step 1, cluster 7\n" in said
    found = facts("pool", "diff", pool, "2", "3")
    assert [row["id"] for row in found["removed"]] == ["3", "4"]
    assert (found["rows"], found["added"]) == ([10, 8], [])
    many = say("pool", "diff", pool, "1", "2").out
    assert "added: 10 (one 10)" in many


def test_restore_brings_rows_back_until_gc(pool: Path, say: Say, facts) -> None:
    assert facts("pool", "restore", pool, "2") == {"version": 4, "restored": 2, "samples": 10}
    assert "restore version 2" in say("pool", "log", pool).out
    assert facts("pool", "restore", pool, "3")["samples"] == 8
    freed = facts("pool", "gc", pool)
    assert (freed["freed"] > 0, freed["version"]) == (True, 6)
    said = say("pool", "restore", pool, "2")
    assert (said.code, said.out) == (2, "")
    assert "was freed by a gc" in said.err
    assert say("pool", "log", pool).out.count("(freed)") == 5


def test_show_counts_a_pool_and_finds_a_sample_wherever_it_is(pool: Path, tmp_path: Path, say: Say, facts) -> None:
    (tmp_path / "bad.jsonl").write_text('{"id": "bad"}\n{"id": "worse", "conversations": 1}\n')
    assert facts("ingest", tmp_path / "bad.jsonl", "--pool", pool)["reasons"] == {"bad-messages": 2}
    found = facts("pool", "show", pool)
    assert (found["samples"], found["removed"], found["set_aside"]) == (8, 2, 2)
    assert found["sources"] == {"one": 8}
    assert facts("pool", "show", pool, "0")["state"] == "in the pool"
    assert facts("pool", "show", pool, "3")["neighbour"] == "1"
    assert facts("pool", "show", pool, "worse")["line"] == 2
    assert "bad.jsonl:2  bad-messages  worse" in say("pool", "show", pool, "--quarantine").out
    assert len(say("pool", "show", pool, "--quarantine", "--json").out.splitlines()) == 2


def test_write_gives_the_rows_back_and_another_format_when_asked(pool: Path, tmp_path: Path, facts) -> None:
    rows = json.loads((tmp_path / "d.json").read_text())
    found = facts("pool", "write", pool, tmp_path / "out.json")
    assert (found["rows"], found["verbatim"]) == (8, 8)
    assert json.loads((tmp_path / "out.json").read_text()) == [row for row in rows if row["id"] not in ("3", "4")]
    assert facts("pool", "write", pool, tmp_path / "all.tar", "--to", "webdataset", "--version", "2")["rows"] == 10


def test_select_writes_the_chosen_rows_in_the_format_asked_for(pool: Path, tmp_path: Path, facts) -> None:
    arguments = ("--pool", pool, "--budget", "3", "--out", tmp_path / "chosen")
    found = facts("select", "random", "--to", "llava-json", tmp_path / "out.json", *arguments)
    assert found["written"] == {"rows": 3, "verbatim": 3, "converted": 0, "images": 0}
    text = (tmp_path / "d.json").read_text()
    for row in json.loads((tmp_path / "out.json").read_text()):
        assert f'"id": "{row["id"]}"' in text
    found = facts("select", "random", tmp_path / "out.parquet", "--to", "sharegpt", *arguments)
    assert found["written"]["converted"] == 3


def test_a_pool_with_embedded_images_can_be_moved(tmp_path: Path, llava_dataset, facts) -> None:
    path = llava_dataset(6)
    facts("ingest", path, "--pool", tmp_path / "pool", "--embed-images")
    shutil.move(tmp_path / "pool", tmp_path / "moved")
    shutil.rmtree(tmp_path / "images")
    assert facts("pool", "show", tmp_path / "moved", "5")["images"][0]["held"] is True
    assert [s.images[0].open().size for s in Pool.open(tmp_path / "moved").take(["0", "5"])] == [(8, 8)] * 2


def test_ingest_says_what_evaluation_data_the_pool_has(pool: Path, tmp_path: Path, llava_row, say: Say, facts) -> None:
    rows = json.loads((tmp_path / "d.json").read_text())
    (tmp_path / "eval.json").write_text(json.dumps([rows[0], llava_row("new", "images/0.png", "Else?"), {"id": "x"}]))
    (tmp_path / "more.jsonl").write_text(json.dumps(llava_row("more", None, "More?")))
    arguments = ("ingest", tmp_path / "more.jsonl", "--pool", pool, "--against", tmp_path / "eval.json")
    found = facts(*arguments)
    assert (found["added"], found["evaluation_rows_unread"]) == (1, 1)
    assert (found["leaks"]["leaked_rows"], found["leaks"]["leaked_images"]) == (1, 1)
    said = say(*arguments).out
    assert "eval.json: 1 of 2 rows, 1 of 1 images; first: row of '0' in training row '0'" in said
    (tmp_path / "apart").mkdir()
    (tmp_path / "eval.json").rename(tmp_path / "apart/eval.json")
    apart = (*arguments[:-1], tmp_path / "apart/eval.json")
    assert facts(*apart)["evaluation_rows_unread"] == 3  # their images are not there
    assert facts(*apart, "--against-images", tmp_path)["leaks"]["leaked_rows"] == 1
    (tmp_path / "clean.json").write_text(json.dumps([llava_row("n", None, "New?")]))
    assert "leaks: none in 1 rows" in say(*arguments[:-1], tmp_path / "clean.json").out


def test_options_of_ingest_do_what_they_say(tmp_path: Path, make_image, llava_row, facts) -> None:
    make_image(tmp_path / "elsewhere" / "a.png")
    (tmp_path / "d").mkdir()
    rows = [llava_row("1", "../elsewhere/a.png", topic="t"), llava_row("2", None, topic="t"), llava_row("2", None, "?")]
    (tmp_path / "d" / "d.json").write_text(json.dumps(rows))
    found = facts("ingest", tmp_path / "d", "--pool", tmp_path / "a")
    assert found["reasons"] == {"id-conflict": 1, "image-outside-root": 1}
    options = ("--allow-outside", "--rename", "--skill-key", "topic", "--source", "s")
    found = facts("ingest", tmp_path / "d", "--pool", tmp_path / "b", *options)
    assert (found["added"], found["renamed"], found["quarantined"]) == (3, 1, 0)
    assert facts("pool", "show", tmp_path / "b")["skills"] == {"(unlabelled)": 1, "t": 2}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["pool", "log", "nowhere"], "does not exist"),
        (["pool", "diff", "pool", "1", "99"], "expected 1 to 3"),
        (["pool", "restore", "pool", "0"], "expected 1 to 3"),
        (["pool", "gc", "pool", "--keep", "-1"], "keep: expected"),
        (["pool", "show", "pool", "nobody"], "'nobody' is not in the pool"),
        (["pool", "write", "pool", "out.csv"], "does not suit llava-json"),
        (["pool", "write", "pool", "out.json", "--to", "lava"], "format: unknown format 'lava'; did you mean"),
        (["ingest", "d.json", "--pool", "new", "--format", "webdataset"], "comes as tar"),
        (["ingest", "no-*.tar", "--pool", "new", "--format", "webdataset"], "no file is named like"),
        (["ingest", "d.json", "--pool", "new", "--against", "no.json"], "no.json"),
    ],
)
def test_wrong_input_is_one_line_and_changes_nothing(
    pool: Path, say: Say, monkeypatch: pytest.MonkeyPatch, arguments: list[str], expected: str
) -> None:
    monkeypatch.chdir(pool.parent)
    said = say(*arguments)
    assert (said.code, said.out) == (2, ""), said
    assert expected in said.err
    assert said.err.count("\n") == 1
    assert not Path("new").exists()
    assert Pool.open(pool).version == 3
