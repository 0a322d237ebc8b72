"""SHA-256 of files that are written once, kept beside them: of the Lance tables, and of adapters.

Lance and safetensors read bytes that have changed on the disk without a word. The sums lie in the folder in
`checksums.sha256`, in the form that `sha256sum -c` reads. A line is added for each new file before a commit names it,
and a file never changes afterwards, so a sum that differs means that the disk, or somebody, has changed it. Files
without a line are not judged: another program may have rewritten the table, or the power failed before the line was on
the disk (a kill cannot lose it).
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from liit.errors import InputError

NAME = "checksums.sha256"

WHOLE_BYTES = 1 << 32
"""When a table is opened, its files are compared whole up to this size together (4 GiB: a few seconds, once per
process). Of a larger table only the sizes are compared, and `compare` with no limit does the rest when asked to."""

_LINE = re.compile(r"([0-9a-f]{64})  (\S.*)")
_compared: dict[Path, tuple[int, int]] = {}


def record(root: Path, files: Iterable[Path], *, again: bool = False) -> None:
    """Note the sums of new files; those that are noted already are left alone.

    Args:
        root: The folder of the table or adapter.
        files: Files in it; their bytes must be in place.
        again: A file of the same name may have been there before: note its sum anew, the last line counts.
    """
    noted = {} if again else _read(root)
    new = [file for file in dict.fromkeys(files) if str(file.relative_to(root)) not in noted]
    if not new:
        return
    lines = [f"{digest}  {file.relative_to(root)}\n" for file, digest in zip(new, _digests(new), strict=True)]
    with (root / NAME).open("a+b") as stream:
        if stream.tell():
            stream.seek(-1, os.SEEK_END)
            if stream.read(1) != b"\n":  # what a killed writer left of a line must not swallow ours
                lines.insert(0, "\n")
        stream.write("".join(lines).encode())


def compare(root: Path, files: Iterable[Path], limit: int | None = WHOLE_BYTES) -> None:
    """Compare files with their sums; each process does so once per file, unless the file is written anew.

    Args:
        root: The folder of the table or adapter.
        files: Files in it, all of them there.
        limit: Bytes; beyond it nothing is compared. None compares whatever the size.

    Raises:
        InputError: The bytes of a file have changed.
    """
    noted = _read(root)
    states = {file: file.stat() for file in files if str(file.relative_to(root)) in noted}
    stamps = {file: (state.st_size, state.st_mtime_ns) for file, state in states.items()}
    todo = [file for file, stamp in stamps.items() if _compared.get(file) != stamp]
    if limit is not None and sum(stamps[file][0] for file in todo) > limit:
        return
    for file, digest in zip(todo, _digests(todo), strict=True):
        if digest != noted[str(file.relative_to(root))]:
            raise InputError(
                f"{str(file)!r} is damaged: its bytes have changed since it was written, as {NAME} beside it tells; "
                "put it back from a backup, or make it again"
            )
        _compared[file] = stamps[file]


def _read(root: Path) -> dict[str, str]:
    try:
        text = (root / NAME).read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return {}
    found = (_LINE.fullmatch(line) for line in text.splitlines())
    return {match[2]: match[1] for match in found if match}


def _digests(files: list[Path]) -> list[str]:
    if len(files) < 2:
        return list(map(_digest, files))
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1), "liit-sums") as workers:
        return list(workers.map(_digest, files))


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
