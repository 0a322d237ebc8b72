"""Files to rows: a JSON list, JSON lines or Parquet, streamed, each row with its place in the file and its own text."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from liit.errors import InputError

MAX_ROW = 1 << 28
"""Longest row in characters (256 Mi); a longer one means that the file is broken."""

_CHUNK = 1 << 20
_SPACE = re.compile(r"[ \t\n\r]*")
# A string cannot contain a line break in JSON, so a quote that is never closed is one bad token, not the rest of the
# file.
_TOKEN = re.compile(r'"[^"\\\n]*+(?:\\.[^"\\\n]*+)*+"|["{}\[\],]')
_DECODE: Callable[[str, int], tuple[Any, int]] = json.JSONDecoder().raw_decode


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a file: `number` from 1, `line` where it starts, its `text`, and its `value` or what is wrong."""

    number: int
    line: int
    text: str
    value: Any = None
    error: tuple[str, str] | None = None


def read_rows(path: Path) -> Iterator[Row]:
    """Stream the rows of a dataset file; its kind follows from the suffix, and for `.json` from the first character.

    Args:
        path: A `.parquet` file, or text: a JSON list of objects, or one JSON object per line.

    Yields:
        Every row, also the ones that are not JSON (with `error` set). Blank lines are not rows.

    Raises:
        InputError: The file is missing, empty, cut in the middle of a row, or neither of these kinds.
    """
    if not path.is_file():
        raise InputError(f"path: dataset file {str(path)!r} does not exist")
    try:
        if path.suffix == ".parquet":
            yield from _parquet(path)
            return
        # Bytes that are not UTF-8 become lone surrogates, found and named row by row.
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="\n") as file:
            first = _first_character(file)
            file.seek(0)
            if first is None:
                raise InputError(f"path: dataset file {str(path)!r} is empty; expected rows")
            if path.suffix in (".jsonl", ".ndjson") or first == "{":
                yield from _lines(file, path, sniff=path.suffix not in (".jsonl", ".ndjson"))
            elif first == "[":
                yield from _array(file, path)
            else:
                raise InputError(
                    f"path: {str(path)!r} starts with {first!r}; expected a JSON list '[...]', JSON lines or .parquet"
                )
    except OSError as error:
        raise InputError(f"path: dataset file {str(path)!r} cannot be read: {error}") from error


def _first_character(file: TextIO) -> str | None:
    while chunk := file.read(4096):
        if text := chunk.strip():
            return text[0]
    return None


def _row(number: int, line: int, text: str) -> Row:
    if not text.isascii():
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            shown = text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
            return Row(number, line, shown, error=("not-utf8", f"byte {error.start} of the row is not UTF-8"))
    try:
        return Row(number, line, text, json.loads(text))
    except (ValueError, RecursionError) as error:
        return Row(number, line, text, error=("not-json", " ".join(str(error).split())[:200]))


def _lines(file: TextIO, path: Path, sniff: bool) -> Iterator[Row]:
    number = line = 0
    while text := file.readline(MAX_ROW + 1):
        line += 1
        if len(text) > MAX_ROW:
            raise InputError(f"path: {str(path)!r} line {line} is longer than {MAX_ROW} characters")
        text = text.strip(" \t\r\n")
        if not text:
            continue
        number += 1
        row = _row(number, line, text)
        if number == 1 and sniff and row.error:
            raise InputError(
                f"path: {str(path)!r} is neither a JSON list nor JSON lines ({row.error[1]}); "
                "name it .jsonl if each line is a row"
            )
        yield row


def _array(file: TextIO, path: Path) -> Iterator[Row]:
    text, line, number = file.read(_CHUNK), 1, 0
    while "[" not in text:  # only space, as the caller knows
        line += text.count("\n")
        text = file.read(_CHUNK)
    at = text.index("[") + 1
    line += text.count("\n", 0, at)
    wanted, ended = _CHUNK, False

    def broken(what: str) -> InputError:
        return InputError(
            f"path: {str(path)!r} {what} (row {number + 1}, line {line}); repair the file or cut it there"
        )

    while True:
        start = _skip_space(text, at)
        line += text.count("\n", at, start)
        at = start
        end = None if at >= len(text) else at if text[at] == "]" else _row_end(text, at)
        if end is None:
            if ended:
                raise broken("ends before its list is closed")
            if len(text) - at > MAX_ROW:
                raise broken(f"has a row longer than {MAX_ROW} characters")
            more = file.read(wanted)
            wanted, ended = wanted * 2, not more  # doubling keeps a very long row linear in its length
            text, at = text[at:] + more, 0
            continue
        wanted = _CHUNK
        if text[at] == "]":
            if text[at + 1 :].strip() or any(chunk.strip() for chunk in iter(lambda: file.read(_CHUNK), "")):
                raise broken("has text after its list")
            return
        number += 1
        yield _row(number, line, text[at:end].rstrip(" \t\r\n"))
        line += text.count("\n", at, end)
        at = end + 1 if text[end] == "," else end


def _skip_space(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return match.end() if match else at


def _row_end(text: str, at: int) -> int | None:
    """Where the row that starts at `at` ends: the `,` or `]` after it; None when that is not in `text` yet."""
    try:
        after = _skip_space(text, _DECODE(text, at)[1])
        if after < len(text) and text[after] in ",]":
            return after
    except (ValueError, RecursionError):
        pass
    # Cut by the buffer, or broken: brackets alone find the end, so that one broken row costs one row.
    depth = 0
    for token in _TOKEN.finditer(text, at):
        mark = token.group()
        if depth == 0 and mark in ",]":
            return token.start()
        if mark == '"' and text.find("\n", token.end()) < 0:
            return None  # a string that is cut by the buffer looks like one that is never closed
        depth += (mark in "{[") - (mark in "}]")
    return None


def _parquet(path: Path) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=256):
                for value in batch.to_pylist():
                    number += 1
                    yield Row(number, number, _to_json(value), value)
    except (pa.ArrowException, OSError, ValueError) as error:
        detail = " ".join(str(error).split())[:200]
        raise InputError(f"path: {str(path)!r} is not readable Parquet after row {number}: {detail}") from error


def _to_json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, default=_plain)


def _plain(value: object) -> object:
    # Long binary values (images) are named by their hash: the pool holds the bytes once, beside the text.
    if isinstance(value, bytes):
        if len(value) > 256:
            return {"sha256": hashlib.sha256(value).hexdigest(), "bytes": len(value)}
        return {"base64": base64.b64encode(value).decode("ascii")}
    return str(value)
