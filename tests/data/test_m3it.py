"""The `m3it` format, from files that `datasets` wrote."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from liit.data.ingest import ingest
from liit.data.sample import Message

datasets = pytest.importorskip("datasets")


def text_of(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()


@pytest.fixture
def rows(pictures: list[Path]) -> list[dict[str, Any]]:
    first, second = map(text_of, pictures)
    return [
        {"instruction": "画像を説明してください。", "inputs": "短く", "outputs": "猫", "image_base64_str": [first]},
        {"instruction": "Which one?", "inputs": "", "outputs": "the left", "image_base64_str": [first, second]},
        {"instruction": "2 + 2 = ?", "inputs": "", "outputs": "4", "image_base64_str": []},
        {"instruction": "Is <image> older?", "inputs": "", "outputs": "نعم", "image_base64_str": [second]},
    ]


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".parquet"])
def test_files_of_datasets(pool, tmp_path: Path, rows, pictures, suffix: str) -> None:
    data = datasets.Dataset.from_list(rows)
    path = tmp_path / f"d{suffix}"
    data.to_parquet(path) if suffix == ".parquet" else data.to_json(path, lines=suffix == ".jsonl")
    report = ingest(pool, path, "m3it", "s")
    assert (report.added, report.reasons) == (4, {})
    found = pool.take(pool.ids())
    assert [s.messages[0].text for s in found] == [
        "<image>\n画像を説明してください。\n短く", "<image>\n<image>\nWhich one?", "2 + 2 = ?", "Is <image> older?",
    ]  # fmt: skip
    assert found[3].messages[1] == Message("assistant", "نعم")
    assert [image.read() for image in found[1].images] == [path.read_bytes() for path in pictures]
    assert all(len(id) == 32 for id in pool.ids())  # M3IT has no ids: made from the content


def test_an_image_is_in_the_pool_once_and_not_again_in_the_text(pool, tmp_path: Path, make_image) -> None:
    big = text_of(make_image(tmp_path / "big.png", size=(200, 200)))
    rows = [
        {"instruction": f"Question {n}", "outputs": "yes", "image_base64_str": [big], "id": str(n)} for n in range(50)
    ]
    (tmp_path / "d.jsonl").write_text("\n".join(map(json.dumps, rows)))
    ingest(pool, tmp_path / "d.jsonl", "m3it", "s", strict=True)
    assert all(len(s.raw) < 400 for s in pool.take(pool.ids()))
    assert sum(file.stat().st_size for file in pool.path.rglob("*.lance") if file.is_file()) < 2 * len(big)


@pytest.mark.parametrize("spoil", ["newlines", "url-safe escape"])
def test_unusual_base64_comes_back_to_the_letter(pool, tmp_path: Path, pictures, spoil: str) -> None:
    text = text_of(pictures[0])
    text = "\n".join(text[n : n + 76] for n in range(0, len(text), 76)) if spoil == "newlines" else text
    marks = f"liit-image:: what? liit-image:{'a' * 64} liit-image:"  # what the pool puts where images were
    raw = json.dumps({"instruction": marks, "outputs": "x", "image_base64_str": [text]})
    raw = raw.replace("/", "\\/") if spoil != "newlines" else raw
    (tmp_path / "d.jsonl").write_text(raw)
    assert ingest(pool, tmp_path / "d.jsonl", "m3it", "s").added == 1
    pool.write(tmp_path / "out.jsonl", pool.ids(), "m3it")
    assert (tmp_path / "out.jsonl").read_text() == raw + "\n"


@pytest.mark.parametrize(
    ("reason", "change"),
    [
        ("bad-images", {"image_base64_str": ["not base64!"]}),
        ("bad-images", {"image_base64_str": [5]}),
        ("image-undecodable", {"image_base64_str": ["aGVsbG8="]}),
        ("bad-messages", {"instruction": "", "inputs": None}),
        ("bad-messages", {"outputs": None}),
        ("no-answer", {"outputs": " "}),
    ],
)
def test_bad_rows_are_set_aside(pool, tmp_path: Path, rows, reason: str, change: dict[str, Any]) -> None:
    (tmp_path / "d.jsonl").write_text(json.dumps(rows[0] | change))
    assert ingest(pool, tmp_path / "d.jsonl", "m3it", "s").reasons == {reason: 1}
