"""The images a pool holds by value: each once, however many rows show it, and read one by one when they are opened."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from liit.data.tables import table_path
from liit.errors import InputError

_KEY = "S16"  # the first 64 bits of a hash, as 16 hexadecimal digits; what is found is compared whole


class HeldImages:
    """Reads images of one pool's table by hash; 24 bytes of memory per image.

    Args:
        store: The pool's directory.
    """

    def __init__(self, store: str) -> None:
        self.store = store
        self._open()

    def _open(self) -> None:
        import lance

        try:
            self._table: Any = lance.dataset(table_path(Path(self.store), "images"))
            keys = [_keys(batch["sha256"]) for batch in self._table.to_batches(columns=["sha256"])]
        except (ValueError, OSError) as error:
            raise InputError(
                f"the images of pool {self.store!r} cannot be opened ({' '.join(str(error).split())[:160]})"
            ) from error
        found = np.concatenate(keys) if keys else np.empty(0, _KEY)
        self._order = np.argsort(found, kind="stable")
        self._sorted = found[self._order]

    def read(self, sha256: str) -> bytes:
        """The bytes of one image; raises `InputError` when the pool does not hold it (any more)."""
        return self.read_many([sha256])[0]

    def read_many(self, hashes: Sequence[str]) -> list[bytes]:
        """The bytes of several images.

        Args:
            hashes: SHA-256 of each.

        Returns:
            The bytes, in the same order.

        Raises:
            InputError: The pool does not hold one of them (any more).
        """
        for again in (True, False):
            try:
                return self._read(hashes)
            except (KeyError, ValueError, OSError) as error:
                # Another process may have added images, or rewritten the files in a gc, since the table was opened.
                if again:
                    self._open()
                    continue
                what = error.args[0] if isinstance(error, KeyError) else " ".join(str(error).split())[:160]
                raise InputError(
                    f"pool {self.store!r} does not hold an image that a row names ({what}); was it freed by a gc "
                    "since the row was read?"
                ) from error
        raise AssertionError

    def _read(self, hashes: Sequence[str]) -> list[bytes]:
        wanted = np.array([sha256[:16] for sha256 in hashes], _KEY)
        at = np.searchsorted(self._sorted, wanted)
        for place, sha256, key in zip(at, hashes, wanted, strict=True):
            if place >= len(self._sorted) or self._sorted[place] != key:
                raise KeyError(sha256)
        rows = self._table.take(self._order[at].tolist(), columns=["sha256", "data"])
        if rows["sha256"].to_pylist() != list(hashes):  # two hashes with the same first half
            return [self._search(sha256) for sha256 in hashes]
        found: list[bytes] = rows["data"].to_pylist()
        return found

    def _search(self, sha256: str) -> bytes:
        found = self._table.to_table(columns=["data"], filter=f"sha256 = '{sha256}'")["data"].to_pylist()
        if not found:
            raise KeyError(sha256)
        return bytes(found[0])


def _keys(column: Any) -> np.ndarray:
    """First 16 digits of each hash, without making a Python text of any."""
    import pyarrow as pa

    column = column.cast(pa.string())
    _, offsets, letters = column.buffers()
    starts, data = np.frombuffer(offsets, "<i4"), np.frombuffer(letters, "u1")
    first = int(starts[column.offset]) if len(column) else 0
    digits = data[first : first + 64 * len(column)].reshape(len(column), 64)[:, :16]
    return np.ascontiguousarray(digits).view(_KEY).reshape(len(column))


@lru_cache(maxsize=16)
def _opened(store: str, process: int) -> HeldImages:
    return HeldImages(store)


def held_images(store: str) -> HeldImages:
    """The images of a pool; each process opens them once.

    Args:
        store: The pool's directory.

    Returns:
        What reads them.

    Raises:
        InputError: They cannot be opened.
    """
    return _opened(store, os.getpid())
