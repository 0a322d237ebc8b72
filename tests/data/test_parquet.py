"""Parquet of any layout, and the way back: the same columns, types, metadata and values."""

from __future__ import annotations

import datetime as dt
import decimal
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from liit.data.ingest import ingest
from liit.errors import InputError

datasets = pytest.importorskip("datasets")


def talk(n: int) -> list[dict[str, str]]:
    return [{"from": "human", "value": f"<image>\nWhat {n}?"}, {"from": "gpt", "value": "猫"}]


def test_the_layout_is_told_by_the_columns(pool, tmp_path: Path, pictures) -> None:
    image = {"bytes": pictures[0].read_bytes(), "path": "a.png"}
    layouts: dict[str, dict[str, Any]] = {
        "onevision": {"id": "1", "image": image, "conversations": talk(1), "data_source": "x"},
        "hf": {"images": [image], "messages": [{"role": "user", "content": "?"},
                                               {"role": "assistant", "content": "!"}]},
        "cauldron": {"images": [image], "texts": [{"user": "a", "assistant": "b", "source": "s"},
                                                  {"user": "c", "assistant": "d", "source": "s"}]},
        "m3it": {"instruction": "a", "inputs": "b", "outputs": "c", "image_base64_str": []},
    }  # fmt: skip
    for name, row in layouts.items():
        datasets.Dataset.from_list([row]).to_parquet(tmp_path / f"{name}.parquet")
        report = ingest(pool, tmp_path / f"{name}.parquet", "parquet", name)
        assert (report.added, report.reasons) == (1, {}), name
    assert [len(s.images) for s in pool.take(pool.ids())] == [1, 1, 1, 0]
    assert pool.take(pool.ids())[2].messages[0].text == "<image>a"
    pq.write_table(pa.table({"question": ["x"]}), tmp_path / "other.parquet")
    assert ingest(pool, tmp_path / "other.parquet", "parquet", "s").reasons == {"bad-messages": 1}


def odd_table(image: bytes) -> pa.Table:
    """Rows with every type JSON has no word for, nested too."""
    rows = 3
    when = dt.datetime(2024, 5, 6, 7, 8, 9, 123456)
    columns: dict[str, pa.Array] = {
        "id": pa.array(["a", "b", "c"]),
        "image": pa.array([{"bytes": image, "path": "a.png"}] * rows),
        "conversations": pa.array([talk(n) for n in range(rows)]),
        "when": pa.array([when] * rows, pa.timestamp("ns", tz="Europe/Oslo")),
        "day": pa.array([when.date(), None, when.date()], pa.date32()),
        "time": pa.array([when.time()] * rows, pa.time64("us")),
        "took": pa.array([dt.timedelta(days=3, microseconds=5)] * rows, pa.duration("us")),
        "price": pa.array([decimal.Decimal("1.50")] * rows, pa.decimal128(9, 2)),
        "small": pa.array([0.1, float("nan"), float("inf")], pa.float32()),
        "huge": pa.array([2**63 + 5] * rows, pa.uint64()),
        "kind": pa.array(["x", "y", None]).dictionary_encode(),
        "audio": pa.array([b"\0\xff" * 300, b"", None], pa.large_binary()),
        "nested": pa.array([[{"at": when, "tag": b"\1"}], [], None],
                           pa.list_(pa.struct([("at", pa.timestamp("ms")), ("tag", pa.binary())]))),
        "map": pa.array([[("k", 1)], [], None], pa.map_(pa.string(), pa.int8())),
        "empty": pa.nulls(rows),
        "wide": pa.array(["w"] * rows, pa.large_string()),
    }  # fmt: skip
    return pa.table(columns).replace_schema_metadata({"note": "mine"})


def test_rows_come_back_with_their_columns_types_and_values(pool, tmp_path: Path, pictures) -> None:
    table = odd_table(pictures[0].read_bytes())
    pq.write_table(table, tmp_path / "d.parquet")
    table = pq.read_table(tmp_path / "d.parquet")  # what Parquet itself keeps of it
    assert ingest(pool, tmp_path / "d.parquet", "parquet", "s").added == 3
    json.loads(pool.take(["b"])[0].raw)
    report = pool.write(tmp_path / "out.parquet", ["c", "a"], "parquet")
    assert (report.rows, report.verbatim, report.converted) == (2, 2, 0)
    back = pq.read_table(tmp_path / "out.parquet")
    assert back.schema.equals(table.schema, check_metadata=True)
    wanted = table.take([0, 2])
    for name in back.column_names:
        assert back[name].to_pylist() == wanted[name].to_pylist(), name
    pool.write(tmp_path / "by-layout.parquet", pool.ids(), "parquet")
    other = type(pool).create(tmp_path / "other")
    ingest(other, tmp_path / "by-layout.parquet", "parquet", "s", strict=True)
    assert [s.content_hash for s in other.take(other.ids())] == [s.content_hash for s in pool.take(pool.ids())]


def test_rows_of_two_files_get_the_columns_of_both(pool, tmp_path: Path) -> None:
    plain = [{"from": "human", "value": "?"}, {"from": "gpt", "value": "!"}]
    first = pa.table({"id": ["1"], "conversations": [plain], "score": [1]})
    second = pa.table({"id": ["2"], "conversations": [plain], "score": [0.5], "who": ["me"]})
    for name, table in (("1", first), ("2", second)):
        pq.write_table(table, tmp_path / f"{name}.parquet")
        ingest(pool, tmp_path / f"{name}.parquet", "parquet", "s", strict=True)
    assert pool.write(tmp_path / "out.parquet", pool.ids(), "parquet").verbatim == 2
    assert pq.read_table(tmp_path / "out.parquet").to_pylist() == [
        {"id": "1", "conversations": plain, "score": 1.0, "who": None},
        {"id": "2", "conversations": plain, "score": 0.5, "who": "me"},
    ]
    pq.write_table(pa.table({"id": [3], "conversations": [plain]}), tmp_path / "3.parquet")
    ingest(pool, tmp_path / "3.parquet", "parquet", "s", strict=True)
    with pytest.raises(InputError, match="do not go together"):
        pool.write(tmp_path / "bad.parquet", pool.ids(), "parquet")
    assert not list(tmp_path.glob("*bad*"))


def test_datasets_sees_images_in_converted_rows(pool, tmp_path: Path, talks) -> None:
    pool.add(talks())
    assert pool.write(tmp_path / "out.parquet", pool.ids(), "messages").converted == 4
    data = datasets.load_dataset("parquet", data_files=str(tmp_path / "out.parquet"), cache_dir=str(tmp_path / "cache"))
    rows = data["train"]
    assert [[image.size for image in row["images"]] for row in rows] == [[], [(8, 8)], [(8, 8)] * 2, [(8, 8)]]
    assert [part["type"] for part in rows[2]["messages"][0]["content"]] == ["image", "text", "image", "text"]
