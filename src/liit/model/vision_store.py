"""Arrays kept on disk under a name: a folder of immutable shards that several processes may fill at once.

A shard is a ``.npy`` file of rows and a ``.json`` index, each written beside and renamed; at worst an entry is there
twice. A shard that a crash or a cleaning hand has damaged is not read, and an entry whose bytes have changed is struck
out, so what they held is computed again.
"""

from __future__ import annotations

import json
import mmap
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4
from zlib import crc32

import numpy as np
import torch
from torch import Tensor

READ_BYTES = 16 << 20  # read from mapped files before their pages go back to the system


@dataclass(frozen=True, slots=True)
class Kept:
    """One entry.

    Attributes:
        states: (tokens, channels) floating point.
        extra: small integer inputs that belong to it, by name, such as the grid of an image.
    """

    states: Tensor
    extra: Mapping[str, list[int]] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Bytes it takes on disk, index aside."""
        return 2 * self.states.numel()


class _Place(NamedTuple):
    shard: str
    values: np.ndarray
    start: int
    stop: int
    extra: dict[str, list[int]]
    total: int | None  # None where it has been compared, or where there is none


class KeptStates:
    """The entries below one folder, by name.

    Float32 is kept as float16 (as float32 where that overflows), bfloat16 and float16 bit by bit. Files are mapped, and
    pages that were read are given back after every `READ_BYTES`; the system's own cache of the files keeps them.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self._place: dict[str, _Place] = {}
        self._read: dict[str, np.ndarray] = {}
        self._read_bytes = 0
        self._shards: set[str] = set()
        self.refresh()

    def __len__(self) -> int:
        return len(self._place)

    def __contains__(self, name: str) -> bool:
        return name in self._place and self._unchanged(name)

    def __getitem__(self, name: str) -> Kept:
        place = self._place[name]
        return Kept(_from_disk(self._rows(place)), place.extra)

    def _rows(self, place: _Place) -> np.ndarray:
        """The rows of an entry, to be read before the next are asked for."""
        rows = place.values[place.start : place.stop]
        if self._read_bytes + rows.nbytes > READ_BYTES:
            for values in self._read.values():
                _give_back(values)
            self._read, self._read_bytes = {}, 0
        self._read[place.shard] = place.values
        self._read_bytes += rows.nbytes
        return rows

    def _unchanged(self, name: str) -> bool:
        """Compare an entry with its sum, once; if it has changed, it is struck out, on the disk too."""
        place = self._place[name]
        if place.total is None:
            return True
        if crc32(self._rows(place).data) == place.total:
            self._place[name] = place._replace(total=None)
            return True
        del self._place[name]
        index = self.directory / f"{place.shard}.json"
        with suppress(OSError, ValueError):
            listed = [["" if entry[0] == name else entry[0], *entry[1:]] for entry in _read_index(index)]
            self._write_index(index, listed)
        return False

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return sum(file.stat().st_size for file in self.directory.glob("*.npy"))

    def add(self, names: Sequence[str], entries: Sequence[Kept]) -> None:
        """Write one shard; it counts once it is there whole."""
        dtype = np.result_type(*{_to_disk(entry.states).dtype for entry in entries})
        rows, (width,) = sum(len(entry.states) for entry in entries), {entry.states.shape[1] for entry in entries}
        listed: list[list[Any]] = []
        name = uuid4().hex
        part = self.directory / f"{name}.npy.part"
        with part.open("wb") as stream:  # one entry after the other: a copy of the whole shard would be large
            about = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": (rows, width)}
            np.lib.format.write_array_header_1_0(stream, about)
            for one, entry in zip(names, entries, strict=True):
                values = np.ascontiguousarray(_to_disk(entry.states), dtype)
                stream.write(values.data)
                listed.append([one, len(values), dict(entry.extra), crc32(values.data)])
            stream.flush()
            os.fsync(stream.fileno())
        part.rename(self.directory / f"{name}.npy")
        self._write_index(self.directory / f"{name}.json", listed)
        self.refresh()

    @staticmethod
    def _write_index(index: Path, listed: Sequence[Sequence[Any]]) -> None:
        part = index.with_name(f"{index.name}.part")
        part.write_text(json.dumps(listed))
        part.rename(index)

    def refresh(self) -> None:
        """Read shards that were not there before; another process may have been here."""
        for index in sorted(self.directory.glob("*.json")):
            if index.stem in self._shards:
                continue
            self._shards.add(index.stem)
            try:
                values = np.load(index.with_suffix(".npy"), mmap_mode="r", allow_pickle=False)
                entries = [
                    (str(name), int(rows), dict(extra), total[0] if total else None)
                    for name, rows, extra, *total in _read_index(index)
                ]
            except (OSError, ValueError, TypeError, EOFError):
                continue
            if values.ndim != 2 or sum(rows for _, rows, *_ in entries) != len(values):
                continue
            start = 0
            for name, rows, extra, total in entries:
                if name:  # else struck out
                    self._place.setdefault(name, _Place(index.stem, values, start, start + rows, extra, total))
                start += rows


def _read_index(index: Path) -> list[Any]:
    listed: list[Any] = json.loads(index.read_text())
    return listed


def _give_back(values: np.ndarray) -> None:
    """Let go of the pages of a mapped file that are in memory; what is read again is mapped again."""
    if isinstance(values.base, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        values.base.madvise(mmap.MADV_DONTNEED)


def _to_disk(states: Tensor) -> np.ndarray:
    states = states.detach().cpu()
    if states.dtype == torch.bfloat16:
        return states.view(torch.int16).numpy()
    half = states.half()
    return (half if bool(half.isfinite().all()) else states.float()).numpy()


def _from_disk(rows: np.ndarray) -> Tensor:
    if rows.dtype == np.int16:
        return torch.from_numpy(rows.copy()).view(torch.bfloat16)
    return torch.from_numpy(rows.astype(np.float32))
