from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from liit.data.ingest import IngestReport, ingest
from liit.data.pool import Pool
from liit.data.sample import Message
from liit.errors import InputError


@pytest.fixture
def pool(tmp_path: Path) -> Pool:
    return Pool.create(tmp_path / "pool")


def put(pool: Pool, tmp_path: Path, rows: list[Any], **options: Any) -> IngestReport:
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(rows), encoding="utf-8")
    return ingest(pool, path, "llava-json", "s", **options)


def test_text_only_two_images_turns_and_languages_survive_to_the_letter(pool, tmp_path, make_image, llava_row) -> None:
    first, second = make_image(tmp_path / "a.png"), make_image(tmp_path / "b.png", seed=1)
    talk = llava_row("talk", "a.png", "qu’est-ce que c’est ?", "ein Köder 🎣", skill="naming")
    talk["conversations"] += [{"from": "human", "value": "その色は？"}, {"from": "gpt", "value": "  赤\n"}]
    talk["conversations"].insert(0, {"from": "system", "value": "קצר"})
    report = put(pool, tmp_path, [llava_row(7), llava_row("two", ["a.png", "b.png"]), talk])
    assert (report.added, report.quarantined, report.rows) == (3, 0, 3)
    text, two, long = pool.take(["7", "two", "talk"])
    assert text.images == ()
    assert [image.path for image in two.images] == [str(first), str(second)]
    assert two.messages[0] == Message("user", "<image>\n<image>\nWhat is it?")
    assert [message.role for message in long.messages] == ["system", "user", "assistant", "user", "assistant"]
    assert [message.text for message in long.messages[2:]] == ["ein Köder 🎣", "その色は？", "  赤\n"]
    assert (long.skill, long.source, long.format) == ("naming", "s", "llava-json")
    assert long.images[0].open().size == (8, 8)


BAD: dict[str, list[dict[str, Any]]] = {
    "image-missing": [{"image": "no.png"}, {"image": "a.png/x.png"}],
    "image-not-a-file": [{"image": "folder"}],
    "image-undecodable": [{"image": "broken.png"}, {"image": "empty.png"}],
    "image-outside-root": [{"image": "../outside.png"}, {"image": "/etc/hostname"}],
    "image-is-url": [{"image": "https://host/a.png"}],
    "image-tags": [{"image": ["a.png", "a.png"]}, {"image": None}, {"image": []}, {"image": ""}],
    "bad-images": [{"image": 5}, {"image": ["a.png", None]}, {"image": {"url": "a.png"}}],
    "bad-id": [{"id": ""}, {"id": 1.5}, {"id": True}, {"id": ["a"]}],
    "bad-text": [{"id": "\ud800"}, {"skill": "a\0"}],
    "bad-skill": [{"skill": ["a"]}, {"skill": False}],
    "bad-messages": [{"conversations": None}, {"conversations": []}, {"conversations": ["hi"]}, {"conversations": {}}],
}


@pytest.mark.parametrize("reason", BAD)
def test_bad_fields_are_set_aside_under_their_reason(pool, tmp_path, make_image, llava_row, reason: str) -> None:
    make_image(tmp_path / "a.png")
    make_image(tmp_path.parent / "outside.png")
    (tmp_path / "folder").mkdir()
    (tmp_path / "broken.png").write_bytes(b"\x89PNG broken")
    (tmp_path / "empty.png").write_bytes(b"")
    rows = [llava_row(f"r{n}", "a.png") | change for n, change in enumerate(BAD[reason])]
    report = put(pool, tmp_path, rows)
    assert report.reasons == {reason: len(rows)}
    assert (report.added, len(pool)) == (0, 0)
    aside = pool.quarantine().to_pylist()
    assert [json.loads(row["raw"]) for row in aside] == rows
    assert {row["source"] for row in aside} == {"s"}
    assert [row["number"] for row in aside] == list(range(1, len(rows) + 1))


TALKS = [
    ("roles-not-alternating", [("gpt", "hi")]),
    ("roles-not-alternating", [("human", "a"), ("human", "b"), ("gpt", "c")]),
    ("roles-not-alternating", [("human", "a"), ("system", "b"), ("gpt", "c")]),
    ("no-answer", [("human", "a")]),
    ("no-answer", [("system", "a")]),
    ("no-answer", [("human", "a"), ("gpt", "b"), ("human", "c")]),
    ("no-answer", [("human", "a"), ("gpt", " \n")]),
    ("bad-role", [("bot", "a"), ("gpt", "b")]),
    ("bad-role", [(None, "a"), ("gpt", "b")]),
    ("bad-messages", [("human", None), ("gpt", "b")]),
    ("image-in-answer", [("human", "a"), ("gpt", "<image>")]),
    ("image-tags", [("human", "what does <image> do in HTML?"), ("gpt", "b")]),
    ("bad-text", [("human", "a"), ("gpt", "\udfff")]),
]


@pytest.mark.parametrize(("reason", "turns"), TALKS)
def test_bad_conversations_are_set_aside_under_their_reason(pool, tmp_path, reason: str, turns: list[Any]) -> None:
    row = {"id": "x", "conversations": [{"from": who, "value": text} for who, text in turns]}
    assert put(pool, tmp_path, [row]).reasons == {reason: 1}


def test_rows_without_id_get_one_from_their_content(pool, tmp_path, llava_row) -> None:
    rows = [llava_row(None, question="a"), llava_row(None, question="b"), llava_row(None, question="a")]
    del rows[0]["id"]
    report = put(pool, tmp_path, rows)
    assert (report.added, report.duplicates) == (2, 1)
    assert all(len(id) == 32 for id in pool.ids())


def test_the_same_content_under_another_id_is_kept_and_counted(pool, tmp_path, make_image, llava_row) -> None:
    make_image(tmp_path / "a.png")
    (tmp_path / "copy.png").write_bytes((tmp_path / "a.png").read_bytes())
    report = put(pool, tmp_path, [llava_row("1", "a.png"), llava_row("2", "copy.png"), llava_row("3", "a.png", "Why?")])
    assert (report.added, report.same_content) == (3, 1)


def test_an_id_with_other_content_is_set_aside_or_renamed(pool, tmp_path, llava_row) -> None:
    rows = [llava_row("1", question="a"), llava_row("1", question="b"), llava_row(1, question="c")]
    report = put(pool, tmp_path, rows)
    assert (report.added, report.reasons) == (1, {"id-conflict": 2})
    for expected in (2, 0):
        report = put(pool, tmp_path, rows, id_conflict="rename")
        assert (report.added, report.renamed, report.duplicates) == (expected, expected, 3 - expected)
    assert [id.split("~")[0] for id in pool.ids()] == ["1", "1", "1"]


def test_strict_stops_at_the_first_bad_row_and_adds_nothing(pool, tmp_path, llava_row) -> None:
    rows = [llava_row("1"), llava_row("2", "no.png"), llava_row("3", "no.png")]
    with pytest.raises(InputError, match=r"rows\.json.*row 2.*image-missing.*no\.png") as caught:
        put(pool, tmp_path, rows, strict=True)
    assert "\n" not in str(caught.value)
    assert (pool.version, len(pool), pool.quarantine().num_rows) == (1, 0, 0)
    assert not list((tmp_path / "pool" / "samples.lance" / "data").glob("*"))


def test_allow_outside_and_image_root_are_honoured(pool, tmp_path, make_image, llava_row) -> None:
    make_image(tmp_path / "elsewhere" / "a.png")
    assert put(pool, tmp_path, [llava_row("1", "a.png")], image_root=tmp_path / "elsewhere").added == 1
    (tmp_path / "empty").mkdir()
    rows = [llava_row("2", "../elsewhere/a.png")]
    assert put(pool, tmp_path, rows, image_root=tmp_path / "empty").reasons == {"image-outside-root": 1}
    assert put(pool, tmp_path, rows, image_root=tmp_path / "empty", allow_outside=True).added == 1


def test_reading_a_file_again_changes_nothing(pool, tmp_path, llava_row) -> None:
    rows = [llava_row("1"), llava_row("2", "no.png"), "text", llava_row("1", question="other")]
    first = put(pool, tmp_path, rows)
    again = put(pool, tmp_path, rows)
    assert (first.added, first.quarantined, again.added, again.duplicates, again.quarantined) == (1, 3, 0, 1, 3)
    assert (again.version, pool.quarantine().num_rows) == (first.version, 3)


def test_a_key_makes_the_work_happen_once(pool, tmp_path, llava_row) -> None:
    first = put(pool, tmp_path, [llava_row("1"), llava_row("2", "no.png")], key="step 1")
    assert put(pool, tmp_path, [llava_row("3")], key="step 1") == first
    assert put(pool, tmp_path, [llava_row("1")], key="step 2").version == first.version + 1
    pool.restore(1)
    assert put(pool, tmp_path, [llava_row("1")], key="step 1").added == 1


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"format": "lava-json"}, "format.*llava-json"),
        ({"path": "nowhere.json"}, "path.*nowhere"),
        ({"image_root": "/nowhere"}, "image_root"),
        ({"id_conflict": "x"}, "id_conflict"),
        ({"source": ""}, "source"),
    ],
)
def test_wrong_arguments_are_named(pool, tmp_path, change: dict[str, Any], names: str) -> None:
    (tmp_path / "d.json").write_text("[]")
    arguments = {"path": tmp_path / "d.json", "format": "llava-json", "source": "s", **change}
    with pytest.raises(InputError, match=names):
        ingest(pool, **arguments)
