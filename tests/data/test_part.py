"""A part of a pool stands for its samples without holding them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest

from liit.data import part
from liit.data.part import PoolPart, ids_of, images_of, only, some_of
from liit.data.pool import Pool
from liit.data.sample import Sample
from liit.errors import InputError


@pytest.fixture
def samples(talks) -> list[Sample]:
    return talks()


@pytest.fixture
def filled(pool: Pool, samples: list[Sample]) -> Pool:
    pool.add(samples)
    return pool


def test_part_gives_the_samples_of_its_ids_in_their_order(filled: Pool, samples: list[Sample]) -> None:
    wanted = samples[::-1][:-1]
    found = PoolPart(filled, [sample.id for sample in wanted])
    assert len(found) == len(wanted)
    assert list(found) == wanted
    assert [found[number] for number in range(len(wanted))] == wanted
    assert found[-1] == wanted[-1]
    assert list(found[1:3]) == wanted[1:3]
    assert found.ids() == [sample.id for sample in wanted]
    with pytest.raises(IndexError):
        found[len(wanted)]


def test_part_has_the_columns_of_its_rows_in_their_order(filled: Pool, samples: list[Sample]) -> None:
    wanted = samples[::-1][:-1]
    table = PoolPart(filled, [sample.id for sample in wanted]).columns(["content_hash", "source"])
    assert table.column_names == ["content_hash", "source"]
    assert table["content_hash"].to_pylist() == [sample.content_hash for sample in wanted]


def test_part_may_be_empty(filled: Pool) -> None:
    nothing = PoolPart(filled, [])
    assert list(nothing) == []
    assert not nothing
    assert len(nothing.columns(["id"])) == 0
    assert images_of(nothing) == set()


def test_id_that_the_pool_lacks_is_named(filled: Pool) -> None:
    with pytest.raises(InputError, match="'nobody' is not in the pool"):
        list(PoolPart(filled, ["nobody"]))
    with pytest.raises(InputError, match="'nobody' is not in the pool"):
        PoolPart(filled, ["nobody"]).columns(["id"])


def test_samples_are_read_a_batch_at_a_time(filled: Pool, samples: list[Sample], monkeypatch) -> None:
    read: list[int] = []
    take = filled.take

    def counted(ids: Iterable[str]) -> list[Sample]:
        read.append(len(list(ids)))
        return take(ids)

    monkeypatch.setattr(filled, "take", counted)
    monkeypatch.setattr(part, "BATCH_ROWS", 2)
    whole = PoolPart(filled, [sample.id for sample in samples])
    rows = iter(whole)
    next(rows)
    assert read == [2]
    assert len(list(rows)) == len(samples) - 1
    assert max(read) == 2
    read.clear()
    only(whole, lambda one: one != samples[0].id), ids_of(whole), images_of(whole)
    assert read == []


def test_part_and_list_give_the_same(filled: Pool, samples: list[Sample]) -> None:
    whole = PoolPart(filled, [sample.id for sample in samples])
    assert ids_of(whole) == ids_of(samples)
    assert images_of(whole) == images_of(samples) != set()
    assert some_of(whole, [2, 0]) == some_of(samples, [2, 0]) == [samples[2], samples[0]]
    few = {sample.id for sample in samples[1:3]}
    assert list(only(whole, few.__contains__)) == only(samples, few.__contains__) == samples[1:3]


def test_part_of_a_version_is_not_changed_by_what_comes_later(tmp_path: Path, talks) -> None:
    pool = Pool.create(tmp_path / "versions")
    first, *rest = talks()
    pool.add([first])
    before = PoolPart(pool.at(pool.version), [first.id])
    pool.add(rest)
    pool.remove([first.id], step=1)
    assert list(before) == [first]
