"""WebDataset tars: the members that share a key are one row; several shards are several files.

A member's key is its name up to the first dot after the last slash, and the rest of the name, in small letters, says
what it is (`dir/0001.img0.jpg` has key `dir/0001` and kind `img0.jpg`), as in the `webdataset` library. A row's value
is a mapping of `__key__` and kinds to bytes.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import tarfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Self, cast

from liit.data.containers.rows import MAX_ROW, Fetch, HeldImage, Meter, Row
from liit.errors import InputError

KEY = "__key__"

_ABOUT_OTHERS = (
    tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK,
)  # fmt: skip
_MAX_HEADER = 1 << 20


class Tar:
    """The container of `.tar`, `.tar.gz` and `.tgz` files."""

    name = "tar"
    suffixes = (".tar", ".tar.gz", ".tgz")

    def read(self, path: Path, meter: Meter) -> Iterator[Row]:
        """Stream the rows. Members that lead outside, or are no files, spoil their row; a cut tar is an error."""
        number = 0
        try:
            with (
                path.open("rb") as disk,
                _unpacked(path, disk) as file,
                tarfile.open(fileobj=file, mode="r:", tarinfo=_Header, errors="surrogateescape") as tar,
            ):
                for row in _rows(tar):
                    number = row.number
                    meter.bytes = disk.tell()
                    yield row
                while file.read(1 << 20):  # to the end, where gzip has its checksum
                    pass
        except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile, UnicodeDecodeError, OverflowError) as error:
            detail = " ".join(str(error).split())[:200] or type(error).__name__
            raise InputError(
                f"path: {str(path)!r} is cut or damaged after row {number} ({detail}); expected a whole tar"
            ) from error
        except OSError as error:
            raise InputError(f"path: dataset file {str(path)!r} cannot be read: {error}") from error

    def schema(self, path: Path) -> bytes | None:
        """Nothing: a row's text names its members."""
        return None

    def keep(self, row: Row, images: Sequence[HeldImage]) -> str:
        """The row as JSON: its key and members in their order; text as text, images by their hash."""
        held = {image.sha256 for image in images}
        members = [[kind, _kept(data, held)] for kind, data in row.value.items() if kind != KEY]
        return json.dumps({"key": row.value[KEY], "members": members}, ensure_ascii=False)

    def writer(self, path: Path, schema: bytes | None) -> TarWriter:
        """Start a file."""
        return TarWriter(path)


class TarWriter:
    """Writes rows as members; with fixed owner, mode and time, so that equal rows give equal files."""

    def __init__(self, path: Path) -> None:
        self._tar = tarfile.open(path, "w", format=tarfile.PAX_FORMAT)  # noqa: SIM115 (closed by close)

    def raw(self, text: str, fetch: Fetch) -> None:
        """Write a row with the members it had."""
        row = json.loads(text)
        for kind, kept in row["members"]:
            self._member(f"{row['key']}.{kind}", _restored(kept, fetch))

    def value(self, row: Mapping[str, Any], images: Sequence[tuple[str, bytes]] = ()) -> None:
        """Write a row: `row["__key__"]` names it, the rest becomes its `json` member."""
        rest = {name: value for name, value in row.items() if name != KEY}
        self._member(f"{row[KEY]}.json", json.dumps(rest, ensure_ascii=False).encode("utf-8"))
        for kind, data in images:
            self._member(f"{row[KEY]}.{kind}", data)

    def _member(self, name: str, data: bytes) -> None:
        info = tarfile.TarInfo(name)
        info.size = len(data)
        self._tar.addfile(info, io.BytesIO(data))
        self._tar.members = []  # type: ignore[attr-defined]  # see _rows

    def close(self) -> None:
        """Finish the file."""
        self._tar.close()


def _unpacked(path: Path, disk: BinaryIO) -> BinaryIO:
    if path.suffix in (".gz", ".tgz"):
        return cast(BinaryIO, gzip.GzipFile(fileobj=disk))  # its checksum tells a cut file
    return disk


def _rows(tar: tarfile.TarFile) -> Iterator[Row]:
    number = size = 0
    row: dict[str, Any] = {}
    error: tuple[str, str] | None = None
    while True:
        member = tar.next()
        tar.members = []  # type: ignore[attr-defined]  # tarfile keeps every header otherwise: memory without bound
        if member is not None and (member.isdir() or PurePosixPath(member.name).name.startswith("__")):
            continue  # folders, and webdataset's notes about the whole file
        key, kind = _split(member.name) if member is not None else ("", "")
        if row and (member is None or key != row[KEY] or kind in row):
            number += 1
            yield Row(number, number, _shown(row) if error else "", row, error)
            row, error, size = {}, None, 0
        if member is None:
            return
        row.setdefault(KEY, key)
        problem = _problem(member, key)
        size += member.size
        if problem is None and size > MAX_ROW:
            problem = ("row-too-large", f"the row has {size} bytes, more than {MAX_ROW}")
        file = None if problem else tar.extractfile(member)
        row[kind] = b"" if file is None else file.read()
        if file is not None and len(row[kind]) < member.size:
            raise tarfile.ReadError("unexpected end of data")
        error = error or problem


def _split(name: str) -> tuple[str, str]:
    folder, slash, base = name.rpartition("/")
    stem, _, kind = base.partition(".")
    return folder + slash + stem, kind.lower()


def _problem(member: tarfile.TarInfo, key: str) -> tuple[str, str] | None:
    name = member.name.encode("utf-8", "backslashreplace").decode("utf-8")
    path = PurePosixPath(member.name)
    if path.is_absolute() or ".." in path.parts:
        return "member-outside", f"member {name[:200]!r} leads out of the tar"
    if not member.isreg():
        return "member-not-a-file", f"member {name[:200]!r} is a link or a device, not a file"
    try:
        key.encode("utf-8")
    except UnicodeEncodeError:
        return "not-utf8", f"the name of member {name[:200]!r} is not UTF-8"
    return None


class _Header(tarfile.TarInfo):
    """A member's header; a tar that is cut or damaged between two members is an error, which tarfile does not mind."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        header = super().frombuf(buf, encoding, errors)
        # tarfile reads these whole, and in a packed tar a few bytes may stand for gigabytes.
        if header.type in _ABOUT_OTHERS and header.size > _MAX_HEADER:
            raise tarfile.HeaderError(f"it has {header.size} bytes of names and notes, more than {_MAX_HEADER}")
        return header

    @classmethod
    def fromtarfile(cls, tar: tarfile.TarFile) -> Self:
        try:
            return super().fromtarfile(tar)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]  # the end mark, a block of zeros
            raise
        except tarfile.EmptyHeaderError as error:  # type: ignore[attr-defined]
            raise tarfile.ReadError("the end mark is missing") from error
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(f"a header is damaged: {error}") from error


def _kept(data: bytes, held: set[str]) -> dict[str, Any]:
    if len(data) > 64 and (sha256 := hashlib.sha256(data).hexdigest()) in held:
        return {"sha256": sha256, "bytes": len(data)}
    try:
        return {"text": data.decode("utf-8")}
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(data).decode("ascii")}


def _restored(kept: Mapping[str, Any], fetch: Fetch) -> bytes:
    if "sha256" in kept:
        return fetch(kept["sha256"])
    return base64.b64decode(kept["base64"]) if "base64" in kept else str(kept["text"]).encode("utf-8")


def _shown(row: Mapping[str, Any]) -> str:
    members = [[kind, len(data)] for kind, data in row.items() if kind != KEY]
    text = json.dumps({"key": row[KEY], "members": members}, ensure_ascii=False)
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
