"""Valid rows and files, and what goes wrong with them: seeded, so that a failure can be looked at again."""

from __future__ import annotations

import copy
import io
import json
import os
import random
import struct
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

GOOD = ("a.png", "b.jpg", "sub/c.webp")
BAD = (
    "gone.png", "empty.png", "text.png", "cut.png", "cut.jpg", "bomb.png", "chunk.png", "frames.gif", "vector.svg",
    "folder.png", "pipe.png", "loop.png", "outside.png", "../outside.png", "/etc/passwd", "", "a.png/", "A.PNG",
    "http://x/a.png", "data:image/png;base64,AAAA", "a\0.png", "\udcff.png", "é.png", "x" * 3000, "./a.png", "~/a.png",
)  # fmt: skip
ODD: list[Any] = [
    None, True, 0, -1, 10**400, -0.0, 1e308, float("nan"), float("inf"), "", " ", "<image>", "<image><image>",
    "<IMAGE>", "<image", "a\0b", "\ud800", "\x1b[2J", "\u202e", "é" * 3, "x" * 3000, "a\n", [], {}, [None], [[]],
    "human", "gpt", "assistant", {"from": "human", "value": "x"}, {"role": "user", "content": "x"}, {"type": "image"},
    {"bytes": "x", "path": "a.png"}, ["a.png"] * 40, *BAD,
]  # fmt: skip
KEYS = (
    "id",
    "image",
    "images",
    "value",
    "role",
    "from",
    "content",
    "conversations",
    "messages",
    "system",
    "skill",
    "é",
    "",
)


def write_images(root: Path) -> None:
    """Images that are good, and every kind of file that is not."""
    (root / "sub").mkdir(parents=True)
    for number, name in enumerate(GOOD):
        Image.new("RGB", (9 + number, 7), (40 * number, 200, 90)).save(root / name)
    for name in ("a.png", "b.jpg"):
        data = (root / name).read_bytes()
        (root / f"cut.{name[2:]}").write_bytes(data[: len(data) // 2])
    (root / "empty.png").touch()
    (root / "text.png").write_text("not an image")
    (root / "bomb.png").write_bytes(png((60_000, 60_000), zlib.compress(bytes(10_000_000))))
    (root / "chunk.png").write_bytes(png((4, 4), b"", extra=(b"zTXt", b"k\0\0" + zlib.compress(bytes(200_000_000), 9))))
    Image.new("L", (5, 5)).save(root / "frames.gif", save_all=True, append_images=[Image.new("L", (5, 5), 9)] * 40)
    (root / "vector.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    (root / "folder.png").mkdir()
    os.mkfifo(root / "pipe.png")
    (root / "loop.png").symlink_to("loop.png")
    outside = root.parent / "outside.png"
    Image.new("RGB", (3, 3)).save(outside)
    (root / "outside.png").symlink_to(outside)
    (root / "é.png").write_bytes((root / "a.png").read_bytes()[:-9])


def png(size: tuple[int, int], pixels: bytes, extra: tuple[bytes, bytes] | None = None) -> bytes:
    """A PNG that says whatever it likes about itself."""
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", *size, 8, 2, 0, 0, 0)),
        *([extra] if extra else ()),
        (b"IDAT", pixels),
        (b"IEND", b""),
    ]
    parts = [struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) inside a value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place for key, inner in list(items) for place in [(value, key), *places(inner)]]


def mutate(row: Any, rng: random.Random) -> Any:
    """Take away, double, rename or replace something in a row, once to three times."""
    row = copy.deepcopy(row)
    for _ in range(rng.randint(1, 3)):
        found = places(row)
        if not found or rng.random() < 0.03:
            return copy.deepcopy(rng.choice(ODD))
        container, key = rng.choice(found)
        kind = rng.randrange(5)
        if kind == 0:
            del container[key]
        elif kind == 1 and isinstance(container, list):
            container.insert(key, copy.deepcopy(container[key]))
        elif kind == 2 and isinstance(container, dict):
            container[rng.choice(KEYS)] = container.pop(key)
        elif kind == 3 and isinstance(container[key], str):
            container[key] = mutate_text(container[key], rng)
        else:
            container[key] = copy.deepcopy(rng.choice(ODD))
    return row


def mutate_text(text: str, rng: random.Random) -> str:
    at = rng.randrange(len(text) + 1)
    return (
        text[:at]
        + rng.choice(["", "<image>", "\0", "\ud83d", "\n", "=", "é", "'", "\\"])
        + text[at + rng.randrange(3) :]
    )


def mutate_line(row: Any, rng: random.Random) -> bytes:
    """One line that is, or nearly is, a row of JSON; never empty, never with a line break."""
    line = bytearray(json.dumps(mutate(row, rng), ensure_ascii=rng.random() < 0.5).encode("utf-8", "surrogatepass"))
    kind = rng.randrange(8)
    if kind == 0:
        line = line[: rng.randrange(1, len(line) + 1)]
    elif kind == 1:
        for _ in range(rng.randint(1, 4)):
            line[rng.randrange(len(line))] = rng.choice([byte for byte in range(256) if byte not in b"\r\n"])
    elif kind == 2:
        depth = rng.choice([10, 2_000, 200_000])
        line = bytearray(b'{"id": 1, "conversations": ' + b"[" * depth + b"]" * rng.choice([0, depth]) + b"}")
    elif kind == 3:
        line = bytearray(b"\xef\xbb\xbf") + line
    elif kind == 4 and line[:1] == b"{":
        line[1:1] = rng.choice(
            [b'"id": "twice", ', b'"id": NaN, ', b'"id": -Infinity, ', b'"id": 1e999, ', b"'id': 1, "]
        )
    elif kind == 5:
        line += rng.choice([b",", b"}", b" null", b"\x00", b"\xff\xfe", b"]", b" // x"])
    return bytes(line).replace(b"\n", b" ").replace(b"\r", b" ").strip() or b"x"


def mutate_bytes(data: bytes, rng: random.Random) -> bytes:
    """A file that was cut, overwritten in places, doubled, or given a piece of its own elsewhere."""
    out = bytearray(data)
    kind = rng.randrange(5)
    if kind == 0:
        return bytes(out[: rng.randrange(len(out))])
    if kind == 1:
        start = rng.randrange(len(out))
        del out[start : start + rng.randrange(1, 600)]
    elif kind == 2:
        start, to = rng.randrange(len(out)), rng.randrange(len(out))
        out[to:to] = out[start : start + rng.randrange(1, 600)]
    else:
        for _ in range(rng.randint(1, 6)):
            at = rng.randrange(len(out))
            out[at : at + rng.choice([1, 1, 4])] = rng.randbytes(rng.choice([1, 1, 4]))
    return bytes(out)


def mutate_json(path: Path, data: bytes, rows: int, rng: random.Random) -> int:
    """Write rows, four of five mutated, as JSON lines or a list; how many there are."""
    good = json.loads(data) if data[:1] == b"[" else [json.loads(line) for line in data.splitlines()]
    chosen = [copy.deepcopy(rng.choice(good)) for _ in range(rows)]
    for number, row in enumerate(chosen):
        row["id"] = f"r{number}"
    if path.suffix == ".json":
        text = json.dumps([mutate(row, rng) if rng.random() < 0.8 else row for row in chosen])
        path.write_bytes(text.encode("utf-8", "surrogatepass"))
    else:
        lines = [mutate_line(row, rng) if rng.random() < 0.8 else json.dumps(row).encode() for row in chosen]
        path.write_bytes(b"\n".join(lines) + b"\n")
    return rows


MEMBER_NAMES = (
    "/abs.json", "../up.json", "a/../../b.json", "", ".", ".json", "no-suffix", "é\udcff.json", "x" * 300 + ".json",
    "a//b.json", "__meta__", "a.JSON", "a.json/",
)  # fmt: skip
MEMBER_TYPES = (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE, b"V")


def mutate_tar(path: Path, data: bytes, rows: int, rng: random.Random) -> None:
    """Write a tar in some of whose rows a member has an odd name, kind or content, comes twice, or is missing."""
    with tarfile.open(fileobj=io.BytesIO(data)) as source:
        members = [(member.name, source.extractfile(member).read()) for member in source]  # type: ignore[union-attr]
    good: dict[str, list[tuple[str, bytes]]] = {}
    for name, content in members:
        good.setdefault(name.partition(".")[0], []).append((name.partition(".")[2], content))
    with tarfile.open(path, "w", format=rng.choice([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])) as tar:
        for number in range(rows):
            row = [*rng.choice(list(good.values()))]
            odd = rng.randrange(len(row)) if rng.random() < 0.7 else None
            for place, (kind, content) in enumerate(row):
                if kind == "json":
                    content = json.dumps(json.loads(content) | {"id": f"r{number}"}).encode()
                info = tarfile.TarInfo(f"r{number}.{kind}")
                times = 1
                if place == odd:
                    info, content, times = _odd_member(info, content, rng)
                info.size = len(content)
                for _ in range(times):
                    tar.addfile(info, io.BytesIO(content))


def _odd_member(info: tarfile.TarInfo, content: bytes, rng: random.Random) -> tuple[tarfile.TarInfo, bytes, int]:
    """A member that is not as it should be, and how often it comes."""
    kind = rng.randrange(7)
    if kind == 0:
        info.name = rng.choice(MEMBER_NAMES)
    elif kind == 1:
        info.type, info.linkname, content = rng.choice(MEMBER_TYPES), "/etc/passwd", b""
    elif kind == 2 and info.name.endswith("json"):
        content = mutate_line(json.loads(content), rng)
    elif kind == 3:
        content = mutate_bytes(content, rng)
    elif kind == 4:
        content = b""
    return info, content, rng.choice([0, 2]) if kind == 5 else 1


def odd_columns(rows: int) -> list[Any]:
    """Columns of types that no format has, or not there."""
    import pyarrow as pa

    return [
        pa.array(range(rows)), pa.array([b"\xff\x00"] * rows), pa.array([[1]] * rows), pa.nulls(rows),
        pa.array([float("nan")] * rows), pa.array(["x" * 500] * rows), pa.array([{"a": {"b": [None]}}] * rows),
        pa.array(["a"] * rows).dictionary_encode(), pa.array([[("k", 1)]] * rows, pa.map_(pa.string(), pa.int64())),
    ]  # fmt: skip


def mutate_parquet(path: Path, data: bytes, rows: int, rng: random.Random) -> int:
    """Write a Parquet file with columns that are dropped, renamed, doubled, emptied or of another type; its rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(io.BytesIO(data))
    table = table.take([rng.randrange(table.num_rows) for _ in range(rows)])
    table = table.set_column(table.column_names.index("id"), "id", pa.array([f"r{number}" for number in range(rows)]))
    for _ in range(rng.randint(1, 2)):
        at = rng.randrange(table.num_columns)
        name, column = table.column_names[at], table.column(at)
        kind = rng.randrange(10)
        if kind == 0 and table.num_columns > 1:
            table = table.remove_column(at)
        elif kind == 1:
            table = table.rename_columns([rng.choice(KEYS) if n == at else c for n, c in enumerate(table.column_names)])
        elif kind == 2:
            table = table.set_column(at, name, pa.nulls(rows, column.type))
        elif kind == 3:
            table = table.append_column(rng.choice(KEYS), column)
        elif kind == 4:
            table = table.set_column(at, name, rng.choice(odd_columns(rows)))
        elif not pa.types.is_map(column.type):  # Arrow ends the process when the entry of a map is nothing
            values = [_alike(value, rng) if rng.random() < 0.5 else value for value in column.to_pylist()]
            try:
                table = table.set_column(at, name, pa.array(values, column.type))
            except (pa.ArrowException, UnicodeEncodeError):  # no such value in a column of this type
                continue
    pq.write_table(
        table, path, compression=rng.choice(["snappy", "zstd", "none"]), row_group_size=rng.choice([3, 1000])
    )
    return rows


def _alike(value: Any, rng: random.Random) -> Any:
    """A value of the same type, or nothing."""
    if rng.random() < 0.2:
        return None
    if isinstance(value, str):
        return rng.choice(
            [
                mutate_text(value, rng).encode("utf-8", "replace").decode(),
                *(v for v in ODD if isinstance(v, str) and v.isascii()),
            ]
        )
    if isinstance(value, bytes):
        return mutate_bytes(value, rng) if value else b""
    if isinstance(value, list):
        return rng.choice([[], value * 2, value[:1], [_alike(item, rng) for item in value]])
    return {key: _alike(item, rng) for key, item in value.items()} if isinstance(value, dict) else value


MUTATORS: dict[str, Callable[[Path, bytes, int, random.Random], int | None]] = {
    "json": mutate_json,
    "parquet": mutate_parquet,
    "tar": mutate_tar,
}


def mutate_file(kind: str, path: Path, data: bytes, rows: int, rng: random.Random) -> int | None:
    """Write a file of mutated rows.

    Args:
        kind: of file. One that has no mutator above has its bytes mutated, until it has one.
        path: the file.
        data: a good file of that kind.
        rows: how many are wanted.
        rng: makes it repeatable.

    Returns:
        How many rows it has, where that is certain.
    """
    if kind in MUTATORS:
        return MUTATORS[kind](path, data, rows, rng)
    path.write_bytes(mutate_bytes(data, rng))
    return None
