"""What a pool knows already: an index on disk, so that a writer's memory does not grow with the pool.

One SQLite file, `known.sqlite`, maps 16-byte digests: ids to contents (samples and removed samples), contents to the
source that had them first, and lists the images and the quarantined rows. About 150 bytes of disk per sample; memory is
SQLite's page cache, `_CACHE`, and up to `_WAITING` rows of each kind that are on their way, some 50 MB.

It is a cache of what the tables say. It names the commit it belongs to; when that is not the newest one, because a
writer was killed or rows were removed or restored, it is made again from the tables. So it is when its bytes have
changed, which SQLite does not see: the sum of a file of up to `_SUMMED` bytes is kept beside it. Only writers use it,
one at a time.
"""

from __future__ import annotations

import errno
import hashlib
import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from liit.data.commits import Commit
from liit.data.tables import open_table
from liit.errors import InputError

Kind = Literal["ids", "contents", "pruned", "images", "aside"]

NAME = "known.sqlite"
_KINDS: tuple[Kind, ...] = ("ids", "contents", "pruned", "images", "aside")
_CACHE = 64 << 20
_PAGE = 4096
_WAITING = 1 << 17
_SUMMED = 1 << 28
_ASK = 512
_QUESTION = {kind: f"SELECT key, value FROM {kind} WHERE key IN ({', '.join('?' * _ASK)})" for kind in _KINDS}  # noqa: S608 (our names)


def digest(text: str) -> bytes:
    """16 bytes that stand for an id: the first half of its SHA-256. Two of 10^7 ids agree with odds of 10^-25."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:16]


def half(hexadecimal: str) -> bytes:
    """The first 16 bytes of a hash written in hexadecimal."""
    return bytes.fromhex(hexadecimal[:32])


class KnownRows:
    """The index, open for one writer, who holds the pool's lock.

    Args:
        folder: The pool's directory.
        base: The newest commit.
    """

    def __init__(self, folder: Path, base: Commit) -> None:
        self.folder, self.base = folder, base
        self._file = folder / NAME
        self._sum = folder / f"{NAME}.sum"
        self._waiting: dict[Kind, dict[bytes, Any]] = {kind: {} for kind in _KINDS}

    def __enter__(self) -> KnownRows:
        with _as_os_error(self._file):
            try:
                self._open()
                fresh = self._token() != _token_of(self.folder, self.base) or self._changed()
            except sqlite3.DatabaseError as error:
                if getattr(error, "sqlite_errorcode", 0) & 0xFF not in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
                    raise
                self._db.close()
                fresh = True
            try:
                if fresh:
                    self._rebuild()
                self._db.execute("BEGIN")
            except BaseException:
                self._db.close()
                raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._db.close()  # takes back what was not committed

    def _open(self) -> None:
        self._db = sqlite3.connect(self._file, isolation_level=None, cached_statements=32)
        self._db.execute(f"PRAGMA page_size = {_PAGE}")
        self._db.execute(f"PRAGMA cache_size = {-_CACHE // 1024}")
        self._db.execute("PRAGMA locking_mode = EXCLUSIVE")
        self._db.execute("PRAGMA synchronous = NORMAL")

    def _token(self) -> str:
        try:
            found = self._db.execute("SELECT token FROM belongs").fetchone()
        except sqlite3.OperationalError as error:
            if "no such table" in str(error):
                return ""
            raise
        return str(found[0]) if found else ""

    def _rebuild(self) -> None:
        self._db.close()
        for name in (NAME, f"{NAME}-journal"):
            (self.folder / name).unlink(missing_ok=True)
        self._open()
        self._db.execute("BEGIN")
        self._db.execute("CREATE TABLE belongs (token TEXT)")
        for kind in _KINDS:
            self._db.execute(f"CREATE TABLE {kind} (key BLOB PRIMARY KEY, value) WITHOUT ROWID")
        for ids, contents, sources in self._columns("samples", "id", "content_hash", "source"):
            digests = list(map(half, contents))
            self.put("ids", zip(map(digest, ids), digests, strict=True))
            self.put("contents", zip(digests, sources, strict=True))
        for ids, contents in self._columns("ledger", "id", "content_hash"):
            self.put("pruned", zip(map(digest, ids), map(half, contents), strict=True))
        for (hashes,) in self._columns("images", "sha256"):
            self.put("images", ((half(sha256), None) for sha256 in hashes))
        for (texts,) in self._columns("quarantine", "digest"):
            self.put("aside", ((half(text), None) for text in texts))
        self._commit(self.base)

    def _columns(self, table: str, *names: str) -> Iterator[list[list[str]]]:
        found = open_table(self.folder, table, self.base.tables[table])
        for batch in found.to_batches(columns=list(names), batch_size=1 << 14):
            yield [batch[name].to_pylist() for name in names]

    def find(self, kind: Kind, keys: Iterable[bytes]) -> dict[bytes, Any]:
        """What is known about some keys.

        Args:
            kind: "ids" and "pruned": id to content; "contents": content to source; "images" and "aside": to None.
            keys: Digests.

        Returns:
            The keys that are known, with their values.
        """
        waiting = self._waiting[kind]
        found: dict[bytes, Any] = {}
        wanted = []
        for key in sorted(set(keys)):
            if key in waiting:
                found[key] = waiting[key]
            else:
                wanted.append(key)
        with _as_os_error(self._file):
            for start in range(0, len(wanted), _ASK):
                part = wanted[start : start + _ASK]
                part += [part[-1]] * (_ASK - len(part))  # always the same statement, which SQLite prepares once
                found.update(self._db.execute(_QUESTION[kind], part))
        return found

    def put(self, kind: Kind, pairs: Iterable[tuple[bytes, Any]]) -> None:
        """Remember some pairs; a key that is known keeps its value, only of "pruned" it gets the new one."""
        waiting = self._waiting[kind]
        if kind == "pruned":
            waiting.update(pairs)
        else:
            for key, value in pairs:
                waiting.setdefault(key, value)
        if len(waiting) >= _WAITING:
            with _as_os_error(self._file):
                self._flush(kind)

    def _flush(self, kind: Kind) -> None:
        # Many at once and in order: in a large index each row goes to a page of its own otherwise.
        word = "REPLACE" if kind == "pruned" else "IGNORE"
        rows = sorted(self._waiting[kind].items(), key=lambda pair: pair[0])
        self._db.executemany(f"INSERT OR {word} INTO {kind} VALUES (?, ?)", rows)  # noqa: S608 (our names)
        self._waiting[kind] = {}

    def commit(self, commit: Commit) -> None:
        """Keep what was put; the index belongs to this commit now, whose file has its name already."""
        with _as_os_error(self._file):
            self._commit(commit)
            self._db.execute("BEGIN")

    def _commit(self, commit: Commit) -> None:
        for kind in _KINDS:
            self._flush(kind)
        self._db.execute("DELETE FROM belongs")
        self._db.execute("INSERT INTO belongs VALUES (?)", (_token_of(self.folder, commit),))
        self._db.execute("COMMIT")
        self._sum.unlink(missing_ok=True)
        if self._file.stat().st_size <= _SUMMED:
            self._sum.write_text(self._digest(), encoding="ascii")

    def _changed(self) -> bool:
        return self._sum.is_file() and self._sum.read_text(encoding="ascii", errors="replace") != self._digest()

    def _digest(self) -> str:
        with self._file.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


def _token_of(folder: Path, commit: Commit) -> str:
    data = (folder / "commits" / f"{commit.version:08d}.json").read_bytes()
    return f"1 {commit.version} {hashlib.sha256(data).hexdigest()}"


@contextmanager
def _as_os_error(file: Path) -> Iterator[None]:
    """SQLite's words for a full or failing disk, as the operating system's."""
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code == sqlite3.SQLITE_READONLY or code == sqlite3.SQLITE_CANTOPEN:
            raise InputError(f"pool {str(file.parent)!r} cannot be written to: {file.name}: {error}") from error
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            file.unlink(missing_ok=True)  # so that the next writer makes it again
        number = errno.ENOSPC if code == sqlite3.SQLITE_FULL else _why_not_written(file)
        raise OSError(number, f"{os.strerror(number)} ({error})", str(file)) from error


def _why_not_written(file: Path) -> int:
    """SQLite keeps to itself why the system refused: a limit on the size of files, or the disk."""
    import resource

    limit, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    size = file.stat().st_size if file.is_file() else 0
    return errno.EFBIG if limit != resource.RLIM_INFINITY and size + 2 * _PAGE > limit else errno.EIO


def digests_of(ids: Sequence[str]) -> list[bytes]:
    """`digest` of each id."""
    return list(map(digest, ids))
