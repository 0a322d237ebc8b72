"""The files of a Lance table: are they whole, are they on the disk, and are they still what was written?

Lance may report success although a full disk cut a file short, and it leaves to the operating system when bytes reach
the disk. A commit that names a table's version is only true when both are settled first. Nor does it notice later that
bytes have changed, so their sums are kept (`liit.data.checksums`).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from liit.data import checksums
from liit.errors import InputError


def open_newest(root: Path) -> Any:
    """Open a table at its newest version.

    Args:
        root: Directory of the table.

    Returns:
        The `lance.LanceDataset`.

    Raises:
        InputError: The file that says what the version is has changed since it was written, or cannot be read.
    """
    import lance

    # Lance numbers them downwards from the largest number, or (old tables) upwards without leading zeros.
    files = [file for file in (root / "_versions").glob("*.manifest") if file.stem.isdigit()]
    newest = min(files, key=lambda file: (-len(file.stem), int(file.stem) * (1 if len(file.stem) == 20 else -1)))
    checksums.compare(root, [newest])
    try:
        return lance.dataset(str(root))
    except (ValueError, OSError) as error:
        detail = " ".join(str(error).split())[:160]
        raise InputError(f"table {str(root)!r} cannot be opened ({detail}); put it back from a backup") from error


def check_manifest(uri: str, version: int) -> None:
    """Compare the file that says what a version of a table is with its sum; Lance panics over some damaged ones.

    Args:
        uri: Directory of the table.
        version: Of the table.

    Raises:
        InputError: It has changed since it was written.
    """
    checksums.compare(Path(uri), _manifests(Path(uri), version))


def check_whole(table: Any) -> None:
    """Compare the files of a table's version with the sizes that Lance noted and with their sums, before they are read.

    Args:
        table: A `lance.LanceDataset`.

    Raises:
        InputError: A file is missing, shorter or longer than it was, or its bytes have changed.
    """
    files: list[Path] = []
    for fragment in table.get_fragments():
        for path, size in _files(Path(table.uri), fragment.metadata):
            found = path.stat().st_size if path.is_file() else None
            if found is None or (size is not None and found != size):
                what = "is missing" if found is None else f"has {found} bytes instead of {size}"
                raise InputError(
                    f"table {str(table.uri)!r} is damaged: {path.name} {what}; "
                    "put it back from a backup, or go back with `liit pool restore`"
                )
            files.append(path)
    checksums.compare(Path(table.uri), files)


def settle_fragments(uri: str, fragments: Iterable[Any]) -> None:
    """Make sure that the files of new fragments are whole and on the disk; call it before they are committed.

    Args:
        uri: Directory of the table.
        fragments: `lance.FragmentMetadata`, as `write_fragments` returns them.

    Raises:
        OSError: A file is shorter than what was written: most likely the disk is full.
    """
    root, fragments = Path(uri), list(fragments)
    _settle(root, fragments)
    checksums.record(root, [path for fragment in fragments for path, _ in _files(root, fragment)])


def settle_version(table: Any, since: int = 0) -> None:
    """Make sure that a new version of a table is whole and on the disk; call it before a commit names it.

    Args:
        table: A `lance.LanceDataset` at the new version.
        since: An older version whose files are settled already; only those that came after it are looked at.

    Raises:
        OSError: A file is cut or cannot be read back: most likely the disk is full.
    """
    import lance

    root = Path(table.uri)
    known: set[Path] = set()
    if since:
        old = lance.dataset(table.uri, version=since)
        known = {path for fragment in old.get_fragments() for path, _ in _files(root, fragment.metadata)}
    files: list[Path] = []
    for fragment in table.get_fragments():
        new = [path for path, _ in _files(root, fragment.metadata) if path not in known]
        if new:
            _settle(root, [fragment.metadata])
            if fragment.metadata.deletion_file is not None:
                _read_back(fragment)
            files += new
    checksums.record(root, files)
    if table.version != since:  # its number may have been given to a version that a killed writer left
        manifests = _manifests(root, table.version)
        for file in manifests:
            sync_file(file)
        checksums.record(root, manifests, again=True)
    for folder in ("_versions", "_deletions", "data"):
        if (root / folder).is_dir():
            sync_folder(root / folder)


def _manifests(root: Path, version: int) -> list[Path]:
    names = (f"{(1 << 64) - 1 - version:020d}.manifest", f"{version}.manifest")  # Lance's two ways
    return [file for name in names if (file := root / "_versions" / name).is_file()]


def _settle(root: Path, fragments: Iterable[Any]) -> None:
    for fragment in fragments:
        for path, size in _files(root, fragment):
            found = path.stat().st_size
            if size is not None and found != size:
                raise short_file(path, found, size)
            sync_file(path)


def _files(root: Path, fragment: Any) -> list[tuple[Path, int | None]]:
    """Files of a fragment with their sizes; of the file of deleted rows Lance notes no size."""
    files: list[tuple[Path, int | None]] = [(root / "data" / f.path, f.file_size_bytes) for f in fragment.files]
    gone = fragment.deletion_file
    if gone is not None:
        suffix = "bin" if gone.file_type == "bitmap" else "arrow"
        files.append((root / "_deletions" / f"{fragment.id}-{gone.read_version}-{gone.id}.{suffix}", None))
    return files


def _read_back(fragment: Any) -> None:
    try:
        fragment.to_table(columns=fragment.schema.names[:1], limit=1)
    except (OSError, ValueError, RuntimeError) as error:  # what Lance's Rust side gives
        raise OSError(errno.EIO, f"the file of deleted rows cannot be read back ({error})") from error


def short_file(path: Path, found: int, size: int) -> OSError:
    """The error for a file that is shorter than what was written; "no space" when there is none left."""
    disk = os.statvfs(path.parent)
    code = errno.ENOSPC if disk.f_bavail * disk.f_frsize < size - found + (1 << 16) else errno.EIO
    return OSError(code, f"{os.strerror(code)} ({found} of {size} bytes were written)", str(path))


def sync_file(path: Path) -> None:
    """Have a file's bytes on the disk before something else says that they are there."""
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def sync_folder(path: Path) -> None:
    """Have the names in a folder on the disk, as after a rename; file systems that cannot are let be."""
    try:
        sync_file(path)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EACCES, errno.EISDIR):
            raise
