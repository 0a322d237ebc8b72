"""The user's own rows come back byte for byte in the user's order, and any pool can be written in any format."""

from __future__ import annotations

import hashlib
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
from conversations import SINGLE

from liit.data.formats import formats
from liit.data.ingest import ingest
from liit.data.pool import Pool
from liit.errors import InputError

SUFFIXES = {
    "llava-json": (".json", ".jsonl", ".parquet"),
    "messages": (".json", ".jsonl", ".parquet"),
    "sharegpt": (".json", ".jsonl", ".parquet"),
    "m3it": (".json", ".jsonl", ".parquet"),
    "webdataset": (".tar",),
    "parquet": (".parquet",),
}
FORMS = [(name, suffix) for name, suffixes in SUFFIXES.items() for suffix in suffixes]


def names_for(format: str) -> tuple[str, ...]:
    return SINGLE if format == "m3it" else ()


def test_every_format_is_here() -> None:
    assert set(formats()) == set(SUFFIXES)


@pytest.mark.parametrize("held", [False, True])
@pytest.mark.parametrize(("format", "suffix"), FORMS)
def test_written_in_any_format_and_read_again_it_is_the_same(
    pool, tmp_path: Path, talks, format: str, suffix: str, held: bool
) -> None:
    samples = talks(*names_for(format), held=held)
    pool.add(samples)
    out = tmp_path / "out"
    out.mkdir()
    report = pool.write(out / f"d{suffix}", [s.id for s in reversed(samples)], format)
    assert (report.rows, report.converted) == (len(samples), len(samples))
    other = Pool.create(tmp_path / "other")
    # Files by reference are named by absolute path, which a reader must be allowed to follow.
    ingest(other, out / f"d{suffix}", format, "s", strict=True, allow_outside=not held)
    found = other.take(other.ids())
    assert [(s.id, s.messages, s.skill) for s in found] == [(s.id, s.messages, s.skill) for s in samples]
    assert [s.content_hash for s in found] == [s.content_hash for s in samples]
    assert all(image.open().size == (8, 8) for s in found for image in s.images)


@pytest.mark.parametrize(("format", "suffix"), [form for form in FORMS if form[1] != ".parquet"])
def test_a_written_file_comes_back_byte_for_byte(pool, tmp_path: Path, talks, format: str, suffix: str) -> None:
    pool.add(talks(*names_for(format), held=True))
    pool.write(tmp_path / f"first{suffix}", pool.ids(), format)
    other = Pool.create(tmp_path / "other")
    ingest(other, tmp_path / f"first{suffix}", format, "s", strict=True)
    report = other.write(tmp_path / f"second{suffix}", reversed(other.ids()), format)
    assert (report.verbatim, report.converted, report.images) == (len(other), 0, 0)
    first, second = (hashlib.sha256((tmp_path / f"{n}{suffix}").read_bytes()) for n in ("first", "second"))
    assert first.digest() == second.digest()


def test_members_of_a_tar_keep_their_names_order_and_bytes(pool, tmp_path: Path, pictures) -> None:
    webdataset = pytest.importorskip("webdataset")
    talk = {"conversations": [{"from": "human", "value": "<image> ?"}, {"from": "gpt", "value": "!"}]}
    with webdataset.TarWriter(str(tmp_path / "d.tar"), encoder=False) as writer:
        for n in range(4):
            writer.write(
                {"__key__": f"dir/{n}", "png": pictures[0].read_bytes(), "cls": b"\xff\x00" * n, "txt": "é".encode(),
                 "json": b" " * n + json.dumps(talk).encode(), "npy": b"\x93NUMPY" * 99}
            )  # fmt: skip
    ingest(pool, tmp_path / "d.tar", "webdataset", "s", strict=True)
    chosen = [pool.ids()[3], pool.ids()[1]]
    assert pool.write(tmp_path / "out.tar", chosen, "webdataset").verbatim == 2
    with tarfile.open(tmp_path / "d.tar") as before, tarfile.open(tmp_path / "out.tar") as after:
        members = [(m.name, before.extractfile(m).read()) for m in before]  # type: ignore[union-attr]
        wanted = [member for member in members if member[0][4] in "13"]
        assert [(m.name, after.extractfile(m).read()) for m in after] == wanted  # type: ignore[union-attr]
    assert [s["__key__"] for s in webdataset.WebDataset(str(tmp_path / "out.tar"), shardshuffle=False)] == [
        "dir/1", "dir/3",
    ]  # fmt: skip


def test_own_and_converted_rows_side_by_side(pool, tmp_path: Path, talks, pictures) -> None:
    raw = '{"image":"pictures/0.png",  "id":"own","conversations":[{"from":"human","value":"<image>"},{"from":"gpt","value":"\\u00e9"}]}'  # noqa: E501
    (tmp_path / "d.jsonl").write_text(raw + "\n")
    pool.add(talks("text"))
    ingest(pool, tmp_path / "d.jsonl", "llava-json", "s", strict=True)
    report = pool.write(tmp_path / "out.jsonl", pool.ids(), "llava-json")
    assert (report.verbatim, report.converted) == (1, 1)
    assert (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()[1] == raw
    report = pool.write(tmp_path / "out.parquet", pool.ids(), "llava-json")
    assert (report.verbatim, report.converted) == (0, 2)


def test_what_a_format_cannot_hold_is_refused_and_leaves_nothing(pool, tmp_path: Path, talks) -> None:
    pool.add(talks())
    (tmp_path / "out").mkdir()
    for name, format, what in (
        ("d.jsonl", "m3it", "'turns'.*one question"),
        ("d.tar", "llava-json", r"\.json.* or \.parquet"),
        ("d.json", "webdataset", r"\.tar"),
        ("d.txt", "llava-json", "does not suit"),
        ("d.tar.gz", "webdataset", "does not suit"),
        ("no/d.json", "llava-json", "no folder"),
        ("d.json", "lava-json", "did you mean 'llava-json'"),
    ):
        with pytest.raises(InputError, match=what) as caught:
            pool.write(tmp_path / "out" / name, pool.ids(), format)
        assert "\n" not in str(caught.value)
    assert list((tmp_path / "out").iterdir()) == []


def test_a_missing_image_is_named_and_no_file_appears(pool, tmp_path: Path, talks, pictures) -> None:
    pool.add(talks("one"))
    pictures[0].unlink()
    with pytest.raises(InputError, match=r"0\.png"):
        pool.write(tmp_path / "out.tar", ["one"], "webdataset")
    assert not list(tmp_path.glob("*out*"))


def test_an_old_version_can_be_written(pool, tmp_path: Path, talks) -> None:
    pool.add(talks())
    version = pool.version
    pool.remove(["two"], step=1)
    pool.at(version).to_llava_json(tmp_path / "old.json", ["two"])
    rows: list[Any] = json.loads((tmp_path / "old.json").read_text())
    assert [row["id"] for row in rows] == ["two"]
