"""The `sharegpt` format, from files that `datasets` wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from conversations import TALKS

from liit.data.ingest import ingest

datasets = pytest.importorskip("datasets")
NAMES = {"user": "human", "assistant": "gpt", "system": "system"}


def row(name: str, keys: tuple[str, str] = ("from", "value"), names: dict[str, str] = NAMES) -> dict[str, Any]:
    count, turns = TALKS[name]
    talk = [{keys[0]: names[role], keys[1]: text} for role, text in turns]
    return {
        "id": name,
        "conversations": talk,
        "images": [f"pictures/{n}.{'png' if n == 0 else 'jpg'}" for n in range(count)],
    }


def check(pool, talks) -> None:
    found = pool.take(list(TALKS))
    assert [s.messages for s in found] == [s.messages for s in talks()]
    assert [s.content_hash for s in found] == [s.content_hash for s in talks()]


@pytest.mark.parametrize("suffix", [".json", ".jsonl", ".parquet"])
def test_files_of_datasets(pool, tmp_path: Path, talks, suffix: str) -> None:
    data = datasets.Dataset.from_list([row(name) for name in TALKS])
    path = tmp_path / f"d{suffix}"
    data.to_parquet(path) if suffix == ".parquet" else data.to_json(path, lines=suffix == ".jsonl")
    report = ingest(pool, path, "sharegpt", "s")
    assert (report.added, report.reasons) == (4, {})
    check(pool, talks)


def test_role_and_content_a_system_field_and_other_names_mean_the_same(pool, tmp_path: Path, talks) -> None:
    names = {"user": "user", "assistant": "model", "system": "system"}
    rows = [row(name, ("role", "content"), names) for name in TALKS]
    rows[3]["system"] = rows[3]["conversations"].pop(0)["content"]
    (tmp_path / "d.json").write_text(json.dumps(rows))
    assert ingest(pool, tmp_path / "d.json", "sharegpt", "s").added == 4
    check(pool, talks)


def test_one_image_as_a_path_and_images_nobody_placed(pool, tmp_path: Path, pictures) -> None:
    rows = [row("one"), row("two")]
    rows[0]["image"] = rows[0].pop("images")[0]
    rows[1]["conversations"][0]["value"] = "Which?"
    (tmp_path / "d.json").write_text(json.dumps(rows))
    assert ingest(pool, tmp_path / "d.json", "sharegpt", "s").added == 2
    assert pool.take(["two"])[0].messages[0].text == "<image><image>Which?"


@pytest.mark.parametrize(
    ("reason", "change"),
    [
        ("bad-role", {"conversations": [{"from": "function_call", "value": "f()"}]}),
        ("bad-messages", {"conversations": "hi"}),
        ("bad-messages", {"system": 5}),
        ("bad-images", {"images": [5]}),
        ("image-tags", {"images": []}),
    ],
)
def test_bad_rows_are_set_aside(pool, tmp_path: Path, pictures, reason: str, change: dict[str, Any]) -> None:
    (tmp_path / "d.json").write_text(json.dumps([row("one") | change]))
    assert ingest(pool, tmp_path / "d.json", "sharegpt", "s").reasons == {reason: 1}
