"""Small and read-only file systems, where the system lets us mount: as root, or in a namespace of our own."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def mount(*arguments: str | Path) -> bool:
    try:
        return subprocess.run(["mount", *map(str, arguments)], capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


@contextmanager
def memory_disk(place: Path, kilobytes: int) -> Iterator[Path | None]:
    """A disk of so many kilobytes at a folder, or None where that is not allowed."""
    place.mkdir()
    if not mount("-t", "tmpfs", "-o", f"size={kilobytes}k", "liit-faults", place):
        yield None
        return
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def resize(place: Path, kilobytes: int) -> None:
    """Give the disk another size."""
    assert mount("-o", f"remount,size={kilobytes}k", place)


def set_read_only(place: Path, read_only: bool) -> None:
    """Let nobody, or everybody, write to the disk."""
    assert mount("-o", "remount,ro" if read_only else "remount,rw", place)
