"""Some samples of a pool, by their ids: the rows themselves are read when they are asked for, a batch at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, overload

import pyarrow as pa
import pyarrow.compute as pc

from liit.data.sample import Sample
from liit.data.snapshot import Snapshot

BATCH_ROWS = 1024


class PoolPart(Sequence[Sample]):
    """A sequence of samples of which only ids are in memory.

    It has what `liit.extract` asks of a pool, so it can stand in for one.

    Args:
        pool: the pool, at a version that stays.
        ids: of the samples, in the order wanted.
    """

    def __init__(self, pool: Snapshot, ids: Iterable[str]) -> None:
        self.pool = pool
        self._ids = pa.array(ids, pa.string())

    def __len__(self) -> int:
        return len(self._ids)

    def __iter__(self) -> Iterator[Sample]:
        for start in range(0, len(self), BATCH_ROWS):
            yield from self.take(self._ids.slice(start, BATCH_ROWS).to_pylist())

    @overload
    def __getitem__(self, index: int) -> Sample: ...

    @overload
    def __getitem__(self, index: slice) -> PoolPart: ...

    def __getitem__(self, index: int | slice) -> Sample | PoolPart:
        if isinstance(index, slice):
            return PoolPart(self.pool, self._ids[index])
        return self.take([self._ids[index].as_py()])[0]

    def ids(self) -> list[str]:
        """The ids, in order."""
        found: list[str] = self._ids.to_pylist()
        return found

    def take(self, ids: Iterable[str]) -> list[Sample]:
        """Samples by id; raises `InputError` when the pool lacks one."""
        return self.pool.take(ids)

    def columns(self, names: Sequence[str]) -> pa.Table:
        """Columns of these samples, in their order; see `liit.data.snapshot.Snapshot.columns`."""
        table = self.pool.columns(list(dict.fromkeys([*names, "id"])))
        places = pc.index_in(self._ids, value_set=table["id"])
        if places.null_count:
            self.take(self.ids())  # which names what is missing
        return table.select(list(names)).take(places)


def ids_of(samples: Sequence[Sample]) -> list[str]:
    """Ids of some samples, in order."""
    return samples.ids() if isinstance(samples, PoolPart) else [sample.id for sample in samples]


def images_of(samples: Sequence[Sample]) -> set[str]:
    """SHA-256 of all images of some samples."""
    if not isinstance(samples, PoolPart):
        return {image.sha256 for sample in samples for image in sample.images}
    rows: list[list[str] | None] = samples.columns(["image_hashes"])["image_hashes"].to_pylist()
    return {image for row in rows for image in row or ()}


def some_of(samples: Sequence[Sample], numbers: Iterable[int]) -> list[Sample]:
    """The samples with these numbers."""
    if not isinstance(samples, PoolPart):
        return [samples[number] for number in numbers]
    ids: list[Any] = samples.ids()
    return samples.take([ids[number] for number in numbers])


def only(samples: Sequence[Sample], wanted: Callable[[str], bool]) -> Sequence[Sample]:
    """The samples whose id is wanted; read no earlier than before."""
    if isinstance(samples, PoolPart):
        return PoolPart(samples.pool, [one for one in samples.ids() if wanted(one)])
    return [sample for sample in samples if wanted(sample.id)]
