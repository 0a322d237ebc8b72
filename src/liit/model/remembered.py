"""What is remembered because it may be asked for again, in a bounded number of bytes."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Remembered(Generic[K, V]):
    """Values by key; the least recently used go first when they take more than the limit.

    Args:
        limit: bytes that all values may take together; a larger value is not remembered.
    """

    def __init__(self, limit: int) -> None:
        self.limit, self.bytes = limit, 0
        self._entries: dict[K, tuple[V, int]] = {}  # the least recently used first

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: K) -> V | None:
        """The value, or None where it is not remembered."""
        entry = self._entries.pop(key, None)
        if entry is None:
            return None
        self._entries[key] = entry
        return entry[0]

    def put(self, key: K, value: V, size: int) -> None:
        """Remember a value.

        Args:
            key: under which it is asked for.
            value: the value.
            size: bytes that it takes with its key.
        """
        if key in self._entries:
            self.bytes -= self._entries.pop(key)[1]
        if size > self.limit:
            return
        self._entries[key] = value, size
        self.bytes += size
        while self.bytes > self.limit:
            self.bytes -= self._entries.pop(next(iter(self._entries)))[1]

    def clear(self) -> None:
        """Forget everything."""
        self._entries.clear()
        self.bytes = 0
