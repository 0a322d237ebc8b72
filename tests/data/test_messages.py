"""The `messages` format, from files that `datasets` itself wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from liit.data.ingest import ingest
from liit.data.pool import Pool
from liit.data.sample import Message

datasets = pytest.importorskip("datasets")


def part(text: str | None = None) -> dict[str, Any]:
    return {"type": "image", "text": None} if text is None else {"type": "text", "text": text}


def turn(role: str, *parts: dict[str, Any]) -> dict[str, Any]:
    return {"role": role, "content": list(parts)}


@pytest.fixture
def pool(tmp_path: Path) -> Pool:
    return Pool.create(tmp_path / "pool")


@pytest.fixture
def rows(tmp_path: Path, make_image) -> list[dict[str, Any]]:
    pictures = [str(make_image(tmp_path / f"{n}.png", seed=n)) for n in range(2)]
    answer = turn("assistant", part("ok"))
    return [
        {"id": "text", "images": [], "messages": [turn("user", part("2 + 2?")), answer]},
        {"id": "one", "images": pictures[:1], "messages": [turn("user", part(), part("What?")), answer]},
        {"id": "two", "images": pictures, "messages": [turn("user", part(), part(" or "), part(), part("?")), answer]},
        {
            "id": "turns",
            "images": pictures[1:],
            "messages": [
                turn("system", part("Réponds court.")),
                turn("user", part("色は？"), part()),
                turn("assistant", part("赤です。")),
                turn("user", part("Точно?")),
                turn("assistant", part("نعم")),
            ],
        },
    ]


def embedded(rows: list[dict[str, Any]]) -> Any:
    """A dataset that holds the images by value; a copy, for `datasets` names the file of an image that has one."""
    return datasets.Dataset.from_list(
        [row | {"images": [Image.open(path).copy() for path in row["images"]]} for row in rows],
        features=image_features(),
    )


def image_features() -> Any:
    content = [{"type": datasets.Value("string"), "text": datasets.Value("string")}]
    return datasets.Features(
        {
            "id": datasets.Value("string"),
            "images": [datasets.Image()],
            "messages": [{"role": datasets.Value("string"), "content": content}],
        }
    )


def check_texts(pool: Pool) -> None:
    text, one, two, turns = pool.take(["text", "one", "two", "turns"])
    assert text.messages == (Message("user", "2 + 2?"), Message("assistant", "ok"))
    assert one.messages[0].text == "<image>What?"
    assert two.messages[0].text == "<image> or <image>?"
    assert [m.text for m in turns.messages] == ["Réponds court.", "色は？<image>", "赤です。", "Точно?", "نعم"]
    assert [len(sample.images) for sample in (text, one, two, turns)] == [0, 1, 2, 1]


def test_parquet_with_embedded_images(pool, tmp_path, rows) -> None:
    embedded(rows).to_parquet(tmp_path / "d.parquet")
    for picture in tmp_path.glob("*.png"):
        picture.unlink()  # the bytes are in the file
    report = ingest(pool, tmp_path / "d.parquet", "messages", "s")
    assert (report.added, report.quarantined) == (4, 0)
    check_texts(pool)
    [two] = pool.take(["two"])
    assert [image.open().size for image in two.images] == [(8, 8), (8, 8)]
    assert two.images[0].held
    assert len(two.raw) < 1000  # the bytes are kept once, not again in the row's text
    assert json.loads(two.raw)["images"][0]["bytes"]["sha256"] == two.images[0].sha256


def test_embedded_bytes_and_files_have_the_same_content_hash(pool, tmp_path, rows) -> None:
    embedded(rows).to_parquet(tmp_path / "d.parquet")
    ingest(pool, tmp_path / "d.parquet", "messages", "s")
    datasets.Dataset.from_list(rows).to_json(tmp_path / "d.jsonl")
    report = ingest(pool, tmp_path / "d.jsonl", "messages", "s")
    assert (report.added, report.duplicates, report.quarantined) == (0, 4, 0)


@pytest.mark.parametrize("lines", [True, False])
def test_json_with_paths(pool, tmp_path, rows, lines: bool) -> None:
    path = tmp_path / "d.json"
    datasets.Dataset.from_list(rows).to_json(path, lines=lines)
    assert ingest(pool, path, "messages", "s").added == 4
    check_texts(pool)


def test_string_contents_mean_the_same_as_parts(pool, tmp_path, rows) -> None:
    plain = []
    for row in rows:
        texts = [(m["role"], "".join(p["text"] or "<image>" for p in m["content"])) for m in row["messages"]]
        plain.append(row | {"messages": [{"role": role, "content": text} for role, text in texts]})
    datasets.Dataset.from_list(plain).to_parquet(tmp_path / "d.parquet")
    assert ingest(pool, tmp_path / "d.parquet", "messages", "s").added == 4
    check_texts(pool)


def test_images_nobody_placed_go_before_the_first_question(pool, tmp_path, make_image) -> None:
    make_image(tmp_path / "a.png")
    talk = [("system", "s"), ("user", "What?"), ("assistant", "a cat"), ("user", "Sure?"), ("assistant", "yes")]
    row = {"id": "1", "images": ["a.png"], "messages": [{"role": role, "content": text} for role, text in talk]}
    (tmp_path / "d.json").write_text(json.dumps([row]))
    ingest(pool, tmp_path / "d.json", "messages", "s", strict=True)
    assert [m.text for m in pool.take(["1"])[0].messages] == ["s", "<image>What?", "a cat", "Sure?", "yes"]


@pytest.mark.parametrize(
    ("reason", "change"),
    [
        ("image-tags", {"images": ["a.png", "a.png"]}),
        ("image-tags", {"images": []}),
        ("bad-images", {"images": [{"bytes": "text"}]}),
        ("bad-images", {"images": [3]}),
        ("image-missing", {"images": ["no.png"]}),
        ("bad-messages", {"messages": "hi"}),
        ("bad-messages", {"messages": [turn("user", {"type": "video"})]}),
        ("bad-messages", {"messages": [{"role": "user", "content": None}]}),
        ("bad-images", {"messages": [turn("user", {"type": "image", "url": "a.png"})]}),
        ("bad-role", {"messages": [turn("tool", part("x"))]}),
    ],
)
def test_bad_rows_are_set_aside(pool, tmp_path, make_image, reason: str, change: dict[str, Any]) -> None:
    make_image(tmp_path / "a.png")
    row = {"id": "1", "images": ["a.png"], "messages": [turn("user", part(), part("?")), turn("assistant", part("!"))]}
    (tmp_path / "d.json").write_text(json.dumps([row | change]))
    assert ingest(pool, tmp_path / "d.json", "messages", "s").reasons == {reason: 1}


def test_an_undecodable_embedded_image_is_set_aside(pool, tmp_path) -> None:
    rows = [
        {"id": str(n), "images": [{"bytes": b"broken", "path": "x"}], "messages": [turn("user", part())]}
        for n in range(2)
    ]
    for row in rows:
        row["messages"].append(turn("assistant", part("!")))
    datasets.Dataset.from_list(rows, features=None).to_parquet(tmp_path / "d.parquet")
    assert ingest(pool, tmp_path / "d.parquet", "messages", "s").reasons == {"image-undecodable": 2}


def test_a_pool_of_embedded_images_can_be_written_as_llava_json(pool, tmp_path, rows) -> None:
    embedded(rows).to_parquet(tmp_path / "d.parquet")
    ingest(pool, tmp_path / "d.parquet", "messages", "s")
    (tmp_path / "out").mkdir()
    pool.to_llava_json(tmp_path / "out" / "rows.json", pool.ids())
    for path in (tmp_path / "out" / "rows-images").iterdir():
        Image.open(path).verify()
    other = Pool.create(tmp_path / "other")
    assert ingest(other, tmp_path / "out" / "rows.json", "llava-json", "s").added == 4
    assert [s.content_hash for s in other.take(other.ids())] == [s.content_hash for s in pool.take(pool.ids())]
