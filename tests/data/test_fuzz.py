"""Mutated rows and files: never anything but an `InputError`, and every row in the pool, in quarantine, or counted."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from liit.data.ingest import IngestReport, ingest
from liit.data.pool import Pool
from liit.data.validate import REASONS
from liit.errors import InputError

ODD: list[Any] = [
    None, True, 0, -1, 10**400, 1.5, float("nan"), float("inf"), "", " ", "<image>", "<image><image>", "a\0b", "\ud800",
    "é" * 3, "../a.png", "/etc/passwd", "a.png", "b.png", "x" * 3000, "a\n", [], {}, [None], [[]], ["a.png"] * 2,
    {"from": "human", "value": "x"}, {"role": "user", "content": "x"}, {"bytes": "x", "path": "a.png"}, "human", "gpt",
]  # fmt: skip


def llava(number: int) -> dict[str, Any]:
    turns = [("human", f"<image>\nWhat {number}?"), ("gpt", "a"), ("human", "Sure?"), ("gpt", "yes")]
    talk = [{"from": who, "value": text} for who, text in turns]
    return {"id": f"r{number}", "image": "a.png", "skill": "s", "conversations": talk}


def messages(number: int) -> dict[str, Any]:
    question = [{"type": "image"}, {"type": "text", "text": f"What {number}?"}]
    talk = [{"role": "user", "content": question}, {"role": "assistant", "content": "a"}]
    return {"id": f"r{number}", "images": ["a.png"], "skill": "s", "messages": talk}


MAKERS: dict[str, Callable[[int], dict[str, Any]]] = {"llava-json": llava, "messages": messages}


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) inside a value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place for key, inner in list(items) for place in [(value, key), *places(inner)]]


def mutate(row: Any, rng: np.random.Generator) -> Any:
    row = copy.deepcopy(row)
    for _ in range(rng.integers(1, 4)):
        found = places(row)
        if not found or rng.random() < 0.05:
            return copy.deepcopy(ODD[rng.integers(len(ODD))])
        container, key = found[rng.integers(len(found))]
        kind = rng.integers(4)
        if kind == 0:
            del container[key]
        elif kind == 1 and isinstance(container, list):
            container.insert(key, copy.deepcopy(container[key]))
        elif kind == 2 and isinstance(container, dict):
            container[str(rng.choice(["id", "image", "images", "value", "role", "é"]))] = container.pop(key)
        else:
            container[key] = copy.deepcopy(ODD[rng.integers(len(ODD))])
    return row


@pytest.fixture
def pool(tmp_path: Path, make_image) -> Pool:
    make_image(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"broken")
    return Pool.create(tmp_path / "pool")


def check_counts(pool: Pool, report: IngestReport, rows: int) -> None:
    assert report.rows == rows == report.added + report.quarantined + report.duplicates + report.pruned
    assert len(pool) == len(pool.ids()) == len(set(pool.ids())) == report.added
    assert pool.quarantine().num_rows == report.quarantined == sum(report.reasons.values())
    assert set(report.reasons) <= set(REASONS)
    for batch in pool.scan(64):
        for sample in batch:
            assert [image.open().mode for image in sample.images] == ["RGB"] * len(sample.images)


@pytest.mark.parametrize("format", MAKERS)
@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
def test_mutated_rows_are_in_the_pool_or_in_quarantine(pool: Pool, tmp_path: Path, format: str, suffix: str) -> None:
    rng = np.random.default_rng([7, len(format), len(suffix)])
    rows = [mutate(MAKERS[format](n), rng) if n % 5 else MAKERS[format](n) for n in range(400)]
    path = tmp_path / f"rows{suffix}"
    path.write_text(json.dumps(rows) if suffix == ".json" else "\n".join(map(json.dumps, rows)), encoding="utf-8")
    report = ingest(pool, path, format, "fuzz")
    check_counts(pool, report, 400)
    assert report.added >= 80
    assert len(report.reasons) >= 10
    again = ingest(pool, path, format, "fuzz")
    assert (again.added, again.reasons, again.version) == (0, report.reasons, report.version)


@pytest.mark.parametrize("format", MAKERS)
def test_mutated_lines_are_in_the_pool_or_in_quarantine(pool: Pool, tmp_path: Path, format: str) -> None:
    rng = np.random.default_rng([8, len(format)])
    lines = []
    for number in range(400):
        line = bytearray(json.dumps(MAKERS[format](number)), "utf-8")
        for _ in range(rng.integers(0, 3)):
            # Never a line break, so that the number of rows is known.
            line[rng.integers(1, len(line))] = rng.choice([byte for byte in range(256) if byte not in b"\r\n"])
        lines.append(bytes(line))
    (tmp_path / "rows.jsonl").write_bytes(b"\n".join(lines))
    check_counts(pool, ingest(pool, tmp_path / "rows.jsonl", format, "fuzz"), 400)


def test_mutated_list_files_are_read_or_refused_whole(pool: Pool, tmp_path: Path) -> None:
    rng = np.random.default_rng(9)
    text = json.dumps([llava(n) for n in range(5)], indent=1).encode()
    refused = 0
    for number in range(90):
        data = bytearray(text)
        for _ in range(rng.integers(1, 4)):
            at = rng.integers(len(data))
            data[at : at + rng.integers(0, 3)] = rng.bytes(rng.integers(0, 3))
        data = data[: rng.integers(len(data))] if number % 3 == 0 else data
        (tmp_path / "rows.json").write_bytes(data)
        before = (pool.version, len(pool), pool.quarantine().num_rows)
        try:
            report = ingest(pool, tmp_path / "rows.json", "llava-json", f"fuzz {number}")
        except InputError:
            refused += 1
            assert (pool.version, len(pool), pool.quarantine().num_rows) == before
        else:
            assert report.rows == report.added + report.quarantined + report.duplicates
            assert (len(pool), pool.quarantine().num_rows) == (before[1] + report.added, before[2] + report.quarantined)
    assert 30 <= refused < 90


def test_mutated_parquet_is_read_or_refused_whole(pool: Pool, tmp_path: Path) -> None:
    rng = np.random.default_rng(10)
    image = (tmp_path / "a.png").read_bytes()
    rows = [messages(n) | {"images": [{"bytes": image, "path": None}]} for n in range(20)]
    for row in rows:
        row["messages"] = [
            {"role": m["role"], "content": "<image>x" if m["role"] == "user" else "y"} for m in row["messages"]
        ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "good.parquet")
    good = (tmp_path / "good.parquet").read_bytes()
    for number in range(100):
        data = bytearray(good)
        for _ in range(rng.integers(1, 5)):
            data[rng.integers(len(data))] = rng.integers(256)
        data = data[: rng.integers(len(data))] if number % 4 == 0 else data
        (tmp_path / "rows.parquet").write_bytes(data)
        before = len(pool)
        try:
            report = ingest(pool, tmp_path / "rows.parquet", "messages", f"fuzz {number}")
            assert report.rows == report.added + report.quarantined + report.duplicates
            assert len(pool) == before + report.added
        except InputError:
            assert len(pool) == before
