from __future__ import annotations

import json
import os
import time
from importlib.metadata import PackageNotFoundError

import pytest

from liit.demo.continuum import (
    base_mix,
    build,
    build_base_mix,
    build_continuum,
    cached_continuum,
    grounding,
    packages,
    reading,
)
from liit.demo.continuum.rows import Row
from liit.demo.continuum.statistics import blind_score, near_duplicates
from liit.demo.continuum.store import ImageStore
from liit.errors import InputError


def files(root):
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


@pytest.mark.parametrize("builder", [grounding, reading])
def test_same_seed_same_bytes_other_seed_other_pictures(tmp_path, builder):
    rows = [builder.rows(ImageStore(tmp_path / str(i)), seed, "eval") for i, seed in enumerate((0, 0, 1))]
    assert rows[0] == rows[1]
    assert files(tmp_path / "0") == files(tmp_path / "1")
    assert not files(tmp_path / "0").keys() & files(tmp_path / "2").keys()


@pytest.mark.slow
def test_two_builds_are_equal_to_the_byte(built, tmp_path):
    start = time.process_time()
    again = build_continuum(tmp_path / "again").parent
    assert time.process_time() - start < 60
    assert files(again) == files(built.root)


@pytest.mark.slow
def test_base_mix_shares_no_picture_question_concept_or_word_with_the_continuum(built, tmp_path):
    rows = json.loads(build_base_mix(tmp_path / "base").read_text(encoding="utf-8"))
    assert 20_000 <= len(rows) <= 30_000
    assert not {p.name for p in (tmp_path / "base" / "images").iterdir()} & {
        p.name for p in (built.root / "images").iterdir()
    }
    questions = {row["conversations"][0]["value"].removeprefix("<image>\n") for row in rows}
    assert not questions & {row.question for row in built.pool}
    seen = {row["conversations"][1]["value"] for row in rows if "image" in row}
    for skill in ("naming", "word", "number"):
        assert not seen & {row.answer for row in built.pool if row.skill == skill and len(row.answer) > 1}


def test_base_text_contains_every_word_of_the_answers(built):
    from liit.demo.continuum.base_text import text_rows
    from liit.demo.continuum.rows import stream

    text = text_rows(stream(0, "base", "test"), 6000)
    assert len(text) == 6000
    words = {word.strip(",.") for row in text for word in f"{row.question} {row.answer}".split()}
    answers = [row.answer for row in built.pool if not row.answer.startswith("{")]
    assert not {word.strip(",") for answer in answers for word in answer.split()} - words
    assert not {row.question for row in text} & {row.question for row in built.pool}


def test_an_existing_directory_is_not_touched(tmp_path):
    (tmp_path / "mine").write_text("keep")
    for builder in (build_continuum, build_base_mix):
        with pytest.raises(InputError, match="exists and is not an empty directory"):
            builder(tmp_path)
    assert files(tmp_path) == {"mine": b"keep"}


def test_a_missing_package_is_named_with_the_way_to_install_it(tmp_path, monkeypatch):
    def missing(package):
        raise PackageNotFoundError(package)

    monkeypatch.setattr(packages, "version", missing)
    for call in (build_continuum, build_base_mix, cached_continuum):
        with pytest.raises(InputError, match=r"'countryinfo' is missing.*pip install 'liit\[demo\]'"):
            call(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_failed_build_leaves_nothing_behind(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setitem(build.BUILDERS, "easy-vqa", fail)
    with pytest.raises(OSError, match="disk full"):
        build_continuum(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_build_left_is_removed_by_the_next_one_after_a_while(tmp_path, monkeypatch):
    old, new = tmp_path / ".out.part-1", tmp_path / ".out.part-2"
    old.mkdir()
    new.mkdir()
    os.utime(old, (0, 0))
    monkeypatch.setitem(base_mix.QUOTA, "general-naming", (2, 2))
    for skill in base_mix.QUOTA:
        monkeypatch.setitem(base_mix.QUOTA, skill, (2, 2))
    build_base_mix(tmp_path / "out")
    assert not old.exists()
    assert new.exists()


def test_cache_is_keyed_and_used(tmp_path, monkeypatch):
    calls = []

    def fake(out, seed):
        calls.append(seed)
        out.mkdir(parents=True)
        (out / "continuum.yaml").write_text("x")
        return out / "continuum.yaml"

    monkeypatch.setattr(build, "build_continuum", fake)
    first = cached_continuum(tmp_path)
    assert cached_continuum(tmp_path) == first
    assert cached_continuum(tmp_path, seed=1) != first
    monkeypatch.setattr(packages, "version", lambda package: "0")
    assert cached_continuum(tmp_path) != first
    assert calls == [0, 1, 0]
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    assert (tmp_path / "home" / "liit") in cached_continuum().parents


def test_cache_takes_what_another_process_finished_first(tmp_path, monkeypatch):
    def fake(out, seed):
        out.mkdir(parents=True)
        (out / "continuum.yaml").write_text("theirs")
        raise OSError("directory not empty")

    monkeypatch.setattr(build, "build_continuum", fake)
    assert cached_continuum(tmp_path).read_text() == "theirs"


def test_a_picture_belongs_to_one_split(tmp_path):
    from PIL import Image

    store = ImageStore(tmp_path)
    plain = Image.new("RGB", (128, 128))
    name = store.add(plain, "train")
    assert store.add(plain, "train") == name
    assert store.add(plain, "eval") is None
    with pytest.raises(RuntimeError, match="belong to another split"):
        store.draw("eval", lambda: plain)


def test_near_duplicates_count_rewordings_and_redrawings_once():
    rows = [
        Row("naming", "What is this?", "cat", ("a",)),
        Row("naming", "Name this.", "cat", ("a",)),
        Row("category", "Which kind?", "animal", ("a",)),
        Row("naming", "What is this?", "cat", ("b",)),
        Row("naming-outline", "What is this?", "cat", ("c",)),
        Row("naming-outline", "Name this.", "cat", ("c",)),
        Row("naming-outline", "Name this.", "owl", ("d",)),
        Row("facts", "Continent of France?", "Europe"),
        Row("facts", "Continent of Italy?", "Europe"),
    ]
    assert near_duplicates(rows) == {"reworded": 2, "redrawn": 1}


def test_blind_score_answers_by_question_then_by_skill():
    train = [Row("s", "q", "a"), Row("s", "q", "a"), Row("s", "q", "b"), Row("s", "r", "b"), Row("s", "r", "b")]
    test = [Row("s", "q", "a"), Row("s", "r", "a"), Row("s", "new", "b"), Row("s", "new", "a")]
    assert blind_score(train, test, "exact-match") == 0.5
    boxes = [Row("s", "q", f'{{"box":[{i},{i},{i + 50},{i + 50}]}}') for i in (0, 10, 20)]
    assert blind_score(boxes, [Row("s", "q", '{"box":[10,10,60,60]}')], "box-iou") == 1.0
