"""The `webdataset` format, from shards that the `webdataset` library wrote."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
from conversations import TALKS

from liit.data.containers import read_rows
from liit.data.ingest import ingest
from liit.errors import InputError

webdataset = pytest.importorskip("webdataset")
NAMES = {"user": "human", "assistant": "gpt", "system": "system"}


def row(name: str, pictures: list[Path], **more: Any) -> dict[str, Any]:
    count, turns = TALKS[name]
    talk = {"conversations": [{"from": NAMES[role], "value": text} for role, text in turns], **more}
    kinds = [path.suffix[1:] if count == 1 else f"{n}{path.suffix}" for n, path in enumerate(pictures[:count])]
    images = {kind: path.read_bytes() for kind, path in zip(kinds, pictures, strict=False)}
    return {"__key__": name, **images, "json": talk}


def shard(path: Path, rows: list[dict[str, Any]], **more: Any) -> Path:
    with webdataset.TarWriter(str(path), encoder=False, **more) as writer:
        for row in rows:
            packed = {k: json.dumps(v, ensure_ascii=False).encode() if k == "json" else v for k, v in row.items()}
            writer.write(packed)
    return path


@pytest.mark.parametrize("name", ["d.tar", "d.tar.gz"])
def test_shards_of_the_library(pool, tmp_path: Path, pictures, talks, name: str) -> None:
    shard(tmp_path / name, [row(talk, pictures) for talk in TALKS], compress=name.endswith("gz"))
    report = ingest(pool, tmp_path / name, "webdataset", "s")
    assert (report.added, report.reasons) == (4, {})
    assert [s.content_hash for s in pool.take(list(TALKS))] == [s.content_hash for s in talks()]
    assert [len(s.images) for s in pool.take(list(TALKS))] == [0, 1, 2, 1]
    assert all(image.open().mode == "RGB" for s in pool.take(["two"]) for image in s.images)


def test_a_folder_and_a_pattern_of_shards(pool, tmp_path: Path, pictures) -> None:
    (tmp_path / "shards").mkdir()
    for n in range(3):
        rows = [row("one", pictures, id=f"{n}-{k}") | {"__key__": f"{n:03d}{k}"} for k in range(4)]
        shard(tmp_path / f"shards/train-{n:05d}.tar", rows)
    shard(tmp_path / "shards/test-00000.tar", [row("text", pictures)])
    assert ingest(pool, tmp_path / "shards" / "train-*.tar", "webdataset", "s").added == 12
    assert pool.ids() == [f"{n}-{k}" for n in range(3) for k in range(4)]
    report = ingest(pool, tmp_path / "shards", "webdataset", "s")
    assert (report.rows, report.added, report.duplicates) == (13, 1, 12)


def test_the_json_member_says_the_order_of_its_images(pool, tmp_path: Path, pictures) -> None:
    named = [["1.jpg", "0.png"], ["two.1.jpg", "two.0.png"], ["coco/7.png", "coco/8.jpg"]]
    rows = [row("two", pictures, images=names, id=str(n)) for n, names in enumerate(named)]
    shard(tmp_path / "d.tar", [r | {"__key__": "two" if n < 2 else "x"} for n, r in enumerate(rows)])
    # The same key twice in a row is two rows, as soon as a kind comes again.
    assert ingest(pool, tmp_path / "d.tar", "webdataset", "s").added == 3
    data = [path.read_bytes() for path in pictures]
    assert [[i.read() for i in s.images] for s in pool.take(["0", "1", "2"])] == [data[::-1], data[::-1], data]


@pytest.mark.parametrize(
    ("layout", "text"),
    [
        ({"messages": [{"role": "user", "content": "<image>x"}, {"role": "assistant", "content": "y"}]}, "<image>x"),
        ({"instruction": "x", "outputs": "y"}, "<image>\nx"),
        ({"texts": [{"user": "x", "assistant": "y", "source": "z"}]}, "<image>x"),
    ],
)
def test_other_layouts_in_the_json_member(pool, tmp_path: Path, pictures, layout: dict[str, Any], text: str) -> None:
    shard(tmp_path / "d.tar", [{"__key__": "k", "jpg": pictures[1].read_bytes(), "json": layout}])
    report = ingest(pool, tmp_path / "d.tar", "webdataset", "s")
    assert (report.added, report.reasons) == (1, {})
    assert pool.take(["k"])[0].messages[0].text == text


@pytest.mark.parametrize(
    ("reason", "change"),
    [
        ("bad-messages", {"json": None}),
        ("not-json", {"json": b"{"}),
        ("not-utf8", {"json": b'{"a": "\xff"}'}),
        ("not-an-object", {"json": b"[]"}),
        ("image-undecodable", {"jpg": b"broken"}),
        ("image-tags", {"jpg": None}),
        ("bad-images", {"json": {"conversations": [], "images": ["a", "b", "c"]}}),
    ],
)
def test_bad_rows_are_set_aside(pool, tmp_path: Path, pictures, reason: str, change: dict[str, Any]) -> None:
    bad = {k: v for k, v in (row("one", pictures[1:]) | change).items() if v is not None}
    good = row("text", pictures)
    path = tmp_path / "d.tar"
    with tarfile.open(path, "w") as tar:
        for r in (bad, good):
            for kind, data in r.items():
                if kind != "__key__":
                    add(tar, f"{r['__key__']}.{kind}", data if isinstance(data, bytes) else json.dumps(data).encode())
    report = ingest(pool, path, "webdataset", "s")
    assert (report.added, report.reasons) == (1, {reason: 1})
    assert pool.quarantine()["id"].to_pylist() == ["one"]


def add(tar: tarfile.TarFile, name: str, data: bytes = b"", **more: Any) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for key, value in more.items():
        setattr(info, key, value)
    tar.addfile(info, io.BytesIO(data))


def test_hostile_members_spoil_their_row_and_nothing_is_unpacked(pool, tmp_path: Path, pictures) -> None:
    good = json.dumps(row("text", pictures)["json"]).encode()
    with tarfile.open(tmp_path / "d.tar", "w") as tar:
        add(tar, "../../up.json", good)
        add(tar, "/etc/absolute.json", good)
        add(tar, "link.json", type=tarfile.SYMTYPE, linkname="/etc/passwd")
        add(tar, "hard.json", type=tarfile.LNKTYPE, linkname="../x")
        add(tar, "pipe.json", type=tarfile.FIFOTYPE)
        add(tar, "folder", type=tarfile.DIRTYPE)
        add(tar, "b\udcff.json", good)
        add(tar, "folder/good.json", good)
    before = sorted(tmp_path.iterdir())
    report = ingest(pool, tmp_path / "d.tar", "webdataset", "s")
    assert report.reasons == {"member-not-a-file": 3, "member-outside": 2, "not-utf8": 1}
    assert pool.ids() == ["folder/good"]
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK])
def test_a_name_of_gigabytes_is_not_read(pool, tmp_path: Path, pictures, kind: bytes) -> None:
    shard(tmp_path / "d.tar", [row("one", pictures)])
    bomb = tarfile.TarInfo("k.json")
    bomb.type, bomb.size = kind, 1 << 32
    good = (tmp_path / "d.tar").read_bytes()
    end = -(-len(good.rstrip(b"\0")) // 512) * 512  # without the end mark
    with gzip.open(tmp_path / "d.tar.gz", "wb") as packed:
        packed.write(good[:end] + bomb.tobuf() + bytes(1 << 20))
    with pytest.raises(InputError, match=r"cut or damaged after row 0 .*4294967296 bytes of names"):
        ingest(pool, tmp_path / "d.tar.gz", "webdataset", "s")
    assert len(pool) == 0


def test_a_cut_or_damaged_tar_is_an_error_wherever_it_is_cut(pool, tmp_path: Path, pictures) -> None:
    for name in ("d.tar", "d.tar.gz"):
        rows = [row("one", pictures) | {"__key__": f"k{n}"} for n in range(3)]
        data = shard(tmp_path / name, rows, compress=name.endswith("gz")).read_bytes()
        end = len(data) - 9 if name.endswith("gz") else data.rstrip(b"\0").__len__() // 512 * 512 + 512
        for cut in [*range(1, end, 701), end // 512 * 512 if name == "d.tar" else end]:
            (tmp_path / f"cut-{name}").write_bytes(data[:cut])
            with pytest.raises(InputError, match="cut"):
                ingest(pool, tmp_path / f"cut-{name}", "webdataset", "s")
    data = bytearray((tmp_path / "d.tar").read_bytes())
    data[1024:1536] = b"x" * 512  # a header in the middle
    (tmp_path / "d.tar").write_bytes(data)
    with pytest.raises(InputError, match="damaged"):
        ingest(pool, tmp_path / "d.tar", "webdataset", "s")
    assert (len(pool), pool.version) == (0, 1)


def test_progress_goes_with_the_bytes_of_the_tar(pool, tmp_path: Path) -> None:
    talk = {"conversations": [{"from": "human", "value": "?"}, {"from": "gpt", "value": "!"}]}
    path = shard(tmp_path / "d.tar", [{"__key__": str(n), "json": talk} for n in range(2500)])
    read: list[int] = []
    ingest(pool, path, "webdataset", "s", progress_bytes=read.append)
    assert read == sorted(set(read))
    assert (len(read), read[-1]) == (3, path.stat().st_size)


def test_memory_does_not_grow_with_the_members(tmp_path: Path) -> None:
    import tracemalloc

    def peak(count: int) -> int:
        path = tmp_path / f"{count}.tar"
        with tarfile.open(path, "w") as tar:
            for n in range(count):
                add(tar, f"{n}.json", b"{}")
        tracemalloc.start()
        assert sum(1 for _ in read_rows(path)) == count
        _, top = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return top

    assert peak(2500) < peak(250) + 400_000  # a header takes a kilobyte
