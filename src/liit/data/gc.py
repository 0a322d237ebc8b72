"""Freeing what only old versions of a pool need. After it, what was removed cannot be restored."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lance
import numpy as np

from liit.data.commits import read_commit
from liit.data.holds import read_holds, write_holds
from liit.data.known import NAME as KNOWN
from liit.data.lance_files import settle_version
from liit.data.lock import write_lock
from liit.data.tables import SCHEMAS, open_table, settled
from liit.errors import InputError

if TYPE_CHECKING:
    from liit.data.pool import Pool

_DELETE = 1 << 12
_TAG = "liit-kept-"


def collect(pool: Pool, keep: int = 0, message: str = "", ignore_holds: bool = False) -> dict[str, Any]:
    """Rewrite the tables without what was removed, and delete the files of old versions.

    It is a commit: a new version with the same samples. Then versions before the kept ones cannot be read or restored
    any more, and a process that still reads one gets an error. The log, the ledger and the quarantine stay. A gc that
    is killed is finished by the next. What an unfinished run needs (`Pool.hold`) is kept as well.

    Args:
        pool: The pool.
        keep: How many of the newest versions stay readable, the new one not counted; 0 frees the most.
        message: For the log.
        ignore_holds: Free what unfinished runs need too; they cannot go on then.

    Returns:
        freed: bytes; before and after: bytes of the pool's directory; oldest: the oldest version left; version; held:
        who needs which version and the later ones, so that these were kept although `keep` did not ask for it.

    Raises:
        InputError: `keep` is negative, or what unfinished runs need cannot be read.
    """
    if isinstance(keep, bool) or not isinstance(keep, int) or keep < 0:
        raise InputError(f"keep: expected a number of versions, 0 or more, got {keep!r}")
    with write_lock(pool.path):
        pool.refresh()
        before = _size(pool.path)
        commits = pool.path / "commits"
        current = read_commit(commits, pool.version)
        asked = pool.version + 1 - keep
        held = {} if ignore_holds else {who: first for who, first in read_holds(pool.path).items() if first < asked}
        oldest = max(current.oldest, min(asked, *held.values()) if held else asked)
        kept = [read_commit(commits, version) for version in range(oldest, pool.version + 1)]
        tables = dict(pool.tables)
        for name in SCHEMAS:
            table = settled(pool.path, name, tables[name])
            if name == "images":
                _drop_images(pool.path, table, [*kept, current])
            # One thread: with more, memory is a multiple of the largest rows.
            table.optimize.compact_files(materialize_deletions_threshold=0.0, num_threads=1, batch_size=1024)
            settle_version(table, since=tables[name])
            tables[name] = table.version
        pool.commit_tables("gc", message, tables, len(pool), {"kept": pool.version + 1 - oldest}, oldest=oldest)
        for name in SCHEMAS:
            _clean(pool.path, name, tables[name], {commit.tables[name] for commit in kept})
        _drop_schemas(pool)
        (pool.path / KNOWN).unlink(missing_ok=True)  # made again, without what is gone
        if ignore_holds:
            write_holds(pool.path, {})
        after = _size(pool.path)
    figures = {"freed": before - after, "before": before, "after": after, "oldest": oldest, "version": pool.version}
    return {**figures, "held": held}


def _clean(folder: Path, name: str, newest: int, kept: set[int]) -> None:
    """Delete every version of a table but some, and files that no version names. Nobody writes: we hold the lock."""
    table = lance.dataset(str(folder / f"{name}.lance"), version=newest)
    for tag in table.tags.list():
        if tag.startswith(_TAG):
            table.tags.delete(tag)
    for version in kept - {newest}:
        table.tags.create(f"{_TAG}{version}", version)
    # By number, not by age: the clock may have gone back.
    table.cleanup_old_versions(retain_versions=1, delete_unverified=True, error_if_tagged_old_versions=False)


def _drop_images(folder: Path, table: Any, commits: list[Any]) -> None:
    """Delete the images that no sample of the kept versions shows; 16 bytes of memory per image of the pool."""
    shown = [np.empty(0, "S16")]
    for version in {commit.tables["samples"] for commit in commits}:
        samples = open_table(folder, "samples", version)
        for batch in samples.to_batches(columns=["image_hashes", "image_held"]):
            hashes = batch["image_hashes"].flatten().to_pylist()
            held = batch["image_held"].flatten().to_pylist()
            shown.append(np.array([h[:16] for h, here in zip(hashes, held, strict=True) if here], "S16"))
    wanted = np.unique(np.concatenate(shown))
    gone: list[str] = []
    for batch in table.to_batches(columns=["sha256"]):
        hashes = batch["sha256"].to_pylist()
        keys = np.array([sha256[:16] for sha256 in hashes], "S16")
        gone += [sha256 for sha256, here in zip(hashes, np.isin(keys, wanted), strict=True) if not here]
    for start in range(0, len(gone), _DELETE):
        table.delete(f"sha256 IN ({', '.join(repr(sha256) for sha256 in gone[start : start + _DELETE])})")


def _drop_schemas(pool: Pool) -> None:
    oldest = read_commit(pool.path / "commits", pool.version).oldest
    used: set[str] = set()
    for version in range(oldest, pool.version + 1):
        for batch in pool.at(version).batches(["form"]):
            used.update(batch["form"].unique().to_pylist())
    for file in (pool.path / "schemas").glob("*"):
        if f"parquet:{file.stem}" not in used:
            file.unlink(missing_ok=True)


def _size(folder: Path) -> int:
    total = 0
    for where, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                total += (Path(where) / name).stat().st_size
    return total
