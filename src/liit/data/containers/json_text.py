"""JSON text: a list of objects, or one object per line; every row with its own text to the letter."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from liit.data.containers.rows import MAX_ROW, Fetch, HeldImage, Meter, Row
from liit.errors import InputError

LINES = (".jsonl", ".ndjson")

_CHUNK = 1 << 20
_SPACE = re.compile(r"[ \t\n\r]*")
# A string cannot contain a line break in JSON, so a quote that is never closed is one bad token, not the rest of the
# file.
_TOKEN = re.compile(r'"[^"\\\n]*+(?:\\.[^"\\\n]*+)*+"|["{}\[\],]')
_DECODE: Callable[[str, int], tuple[Any, int]] = json.JSONDecoder().raw_decode

# Where a row holds a base64 image, its text in the pool has this and the image's hash; the same letters in the user's
# text get a second colon, so that every text comes back as it was.
_MARK = "liit-image:"
_MARKED = re.compile(_MARK + r"(?:([0-9a-f]{64})|:)")


class JsonText:
    """The container of `.json` and `.jsonl` files."""

    name = "json"
    suffixes = (".json", *LINES)

    def read(self, path: Path, meter: Meter) -> Iterator[Row]:
        """Stream the rows; a broken row costs one row, a cut list is an error. Blank lines are not rows."""
        try:
            # Bytes that are not UTF-8 become lone surrogates, found and named row by row.
            with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="\n") as file:
                first = _first_character(file)
                file.seek(0)
                if first is None:
                    raise InputError(f"path: dataset file {str(path)!r} is empty; expected rows")
                if path.suffix in LINES or first == "{":
                    yield from _lines(file, path, meter, sniff=path.suffix not in LINES)
                elif first == "[":
                    yield from _array(file, path, meter)
                else:
                    raise InputError(
                        f"path: {str(path)!r} starts with {first!r}; expected a JSON list '[...]', JSON lines, "
                        ".parquet or .tar"
                    )
        except OSError as error:
            raise InputError(f"path: dataset file {str(path)!r} cannot be read: {error}") from error

    def schema(self, path: Path) -> bytes | None:
        """Nothing: a row's text says everything about it."""
        return None

    def keep(self, row: Row, images: Sequence[HeldImage]) -> str:
        """The row's own text, with its base64 images named by their hashes."""
        text = row.text.replace(_MARK, _MARK + ":") if _MARK in row.text else row.text
        for image in images:
            if image.base64:
                text = text.replace(image.base64, _MARK + image.sha256)
        return text

    def writer(self, path: Path, schema: bytes | None) -> JsonWriter:
        """Start a file: JSON lines or a list, after the name."""
        return JsonWriter(path, lines=path.suffix in LINES)


class JsonWriter:
    """Writes rows as JSON lines or as a list with one row per line."""

    def __init__(self, path: Path, lines: bool) -> None:
        self._file = path.open("w", encoding="utf-8", newline="")
        self._lines, self._rows = lines, 0
        self._file.write("" if lines else "[\n")

    def raw(self, text: str, fetch: Fetch) -> None:
        """Write a row to the letter; in JSON lines, line breaks between its tokens become spaces."""
        if _MARK in text:
            text = _MARKED.sub(lambda m: _base64(fetch(m[1])) if m[1] else _MARK, text)
        self._write(text)

    def value(self, row: Mapping[str, Any], images: Sequence[tuple[str, bytes]] = ()) -> None:
        """Write a row."""
        assert not images, "JSON has nothing beside its rows"
        self._write(json.dumps(row, ensure_ascii=False))

    def _write(self, text: str) -> None:
        if self._rows:
            self._file.write("\n" if self._lines else ",\n")
        # A JSON string holds no line break, so these are between tokens.
        self._file.write(text.replace("\r", " ").replace("\n", " ") if self._lines else text)
        self._rows += 1

    def close(self) -> None:
        """Finish the file."""
        self._file.write(("\n" if self._rows else "") if self._lines else "\n]\n" if self._rows else "]\n")
        self._file.close()


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _first_character(file: TextIO) -> str | None:
    while chunk := file.read(4096):
        if text := chunk.strip():
            return text[0]
    return None


def _row(number: int, line: int, text: str) -> Row:
    if bad := _not_utf8(number, line, text):
        return bad
    try:
        return Row(number, line, text, json.loads(text))
    except (ValueError, RecursionError) as error:
        return Row(number, line, text, error=("not-json", " ".join(str(error).split())[:200]))


def _not_utf8(number: int, line: int, text: str) -> Row | None:
    if not text.isascii():
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            shown = text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
            return Row(number, line, shown, error=("not-utf8", f"byte {error.start} of the row is not UTF-8"))
    return None


def _lines(file: TextIO, path: Path, meter: Meter, sniff: bool) -> Iterator[Row]:
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
        if number % 256 == 1:
            meter.bytes = file.buffer.tell()
        yield row


def _array(file: TextIO, path: Path, meter: Meter) -> Iterator[Row]:
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
        value, end = (None, None) if at >= len(text) else (None, at) if text[at] == "]" else _row_end(text, at)
        if end is None:
            if ended:
                raise broken("ends before its list is closed")
            if len(text) - at > MAX_ROW:
                raise broken(f"has a row longer than {MAX_ROW} characters")
            more = file.read(wanted)
            meter.bytes = file.buffer.tell()
            wanted, ended = wanted * 2, not more  # doubling keeps a very long row linear in its length
            text, at = text[at:] + more, 0
            continue
        wanted = _CHUNK
        if text[at] == "]":
            if text[at + 1 :].strip() or any(chunk.strip() for chunk in iter(lambda: file.read(_CHUNK), "")):
                raise broken("has text after its list")
            return
        number += 1
        own = text[at:end].rstrip(" \t\r\n")
        if value is None:
            yield _row(number, line, own)
        else:
            yield _not_utf8(number, line, own) or Row(number, line, own, value)
        line += text.count("\n", at, end)
        at = end + 1 if text[end] == "," else end


def _skip_space(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return match.end() if match else at


def _row_end(text: str, at: int) -> tuple[Any, int | None]:
    """The row that starts at `at`: its value if it has one, and where the `,` or `]` after it is, if that is known."""
    try:
        value, end = _DECODE(text, at)
        after = _skip_space(text, end)
        if after < len(text) and text[after] in ",]":
            return value, after
    except (ValueError, RecursionError):
        pass
    # Cut by the buffer, or broken: brackets alone find the end, so that one broken row costs one row.
    depth = 0
    for token in _TOKEN.finditer(text, at):
        mark = token.group()
        if depth == 0 and mark in ",]":
            return None, token.start()
        if mark == '"' and text.find("\n", token.end()) < 0:
            return None, None  # a string that is cut by the buffer looks like one that is never closed
        depth += (mark in "{[") - (mark in "}]")
    return None, None
