"""gc frees the disk of what was removed, and nothing else."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

import liit.data.gc
from liit.data.ingest import ingest
from liit.data.pool import Pool
from liit.data.sample import Message, Sample
from liit.errors import InputError


def samples(first: int, last: int) -> list[Sample]:
    noise = np.random.default_rng(first)
    return [
        Sample(str(n), (Message("user", noise.bytes(2000).hex()), Message("assistant", "a")), source="s")
        for n in range(first, last)
    ]


def state(pool: Pool) -> object:
    pool = Pool.open(pool.path)
    return pool.columns(["row", "id", "content_hash", "raw"]).to_pylist(), pool.ledger().to_pylist(), pool.quarantine()


def size(pool: Pool) -> int:
    return sum(f.stat().st_size for f in pool.path.rglob("*") if f.is_file())


def test_removed_rows_leave_the_disk_and_the_rest_stays(pool) -> None:
    for start in range(0, 300, 100):
        pool.add(samples(start, start + 100))
    pool.remove([str(n) for n in range(300) if n % 3], step=1, message="cut")
    before, bytes_before = state(pool), size(pool)
    report = pool.gc(message="tidy")
    assert state(pool) == before
    assert [s.id for batch in pool.scan(7) for s in batch] == [str(n) for n in range(0, 300, 3)]
    assert report["freed"] == report["before"] - report["after"] > 0.5 * bytes_before
    assert abs(size(pool) - report["after"]) < 4096
    assert [c["kind"] for c in pool.log()] == ["create", "add", "add", "add", "remove", "gc"]
    assert pool.log()[-1]["message"] == "tidy"
    with pytest.raises(InputError, match=r"version: 4 .*freed by a gc; the oldest one left is 6"):
        pool.at(4)
    with pytest.raises(InputError, match="freed"):
        pool.restore(4)


def test_restore_works_until_gc_and_kept_versions_after_it(pool) -> None:
    pool.add(samples(0, 20))
    pool.remove(["3"], step=1)
    pool.restore(2)
    assert "3" in pool.ids()
    pool.remove(["4"], step=2)
    contents = {version: pool.at(version).ids() for version in (4, 5)}
    report = pool.gc(keep=2)
    assert report["oldest"] == 4
    assert {version: pool.at(version).ids() for version in (4, 5)} == contents
    with pytest.raises(InputError, match="freed"):
        pool.at(3)
    pool.restore(4)
    assert pool.ids() == contents[4]
    pool.gc()
    with pytest.raises(InputError, match="freed"):
        pool.at(4)
    assert pool.ids() == contents[4]


def test_a_second_gc_finds_nothing(pool) -> None:
    pool.add(samples(0, 50))
    pool.remove([str(n) for n in range(25)], step=1)
    pool.gc()
    assert abs(pool.gc()["freed"]) < 10_000
    assert len(Pool.open(pool.path)) == 25


def test_what_is_pruned_stays_pruned_and_work_stays_done(pool, tmp_path: Path, llava_dataset) -> None:
    path = llava_dataset(20)
    first = ingest(pool, path, "llava-json", "s", key="step-1")
    pool.remove(["0", "1"], step=1)
    pool.gc()
    assert ingest(pool, path, "llava-json", "s", key="step-1") == first
    again = ingest(pool, path, "llava-json", "s")
    assert (again.added, again.duplicates, again.pruned) == (0, 18, 2)
    pool.add(samples(100, 101))
    assert pool.columns(["row"])["row"].to_pylist()[-1] == 20  # numbers are never given twice


def test_images_no_sample_shows_are_freed_and_others_are_not(pool, talks) -> None:
    pool.add(talks(held=True))
    kept = pool.take(["one"])[0]
    pool.remove(["two"], step=1)
    pool.gc(keep=2)
    assert Pool.open(pool.path)._table("images").count_rows() == 2  # an old version shows the second
    assert pool.at(2).take(["two"])[0].images[1].open()
    pool.gc()
    assert Pool.open(pool.path)._table("images").count_rows() == 1
    assert kept.images[0].open().size == (8, 8)
    pool.add([s for s in talks("two", held=True) if s.id == "two"])
    assert len(pool) == 3  # pruned stays pruned


def test_columns_of_parquet_files_no_row_is_from_are_freed(pool, tmp_path: Path, talks) -> None:
    pool.add(talks("text"))
    pool.write(tmp_path / "d.parquet", ["text"], "messages")
    other = Pool.create(tmp_path / "other")
    ingest(other, tmp_path / "d.parquet", "messages", "s", strict=True)
    other.gc()
    assert len(list((other.path / "schemas").iterdir())) == 1
    assert other.write(tmp_path / "again.parquet", ["text"], "messages").verbatim == 1
    other.remove(["text"], step=1)
    other.gc()
    assert list((other.path / "schemas").iterdir()) == []


class Killed(BaseException):
    pass


def killed(*_: object, **__: object) -> None:
    raise Killed


@pytest.mark.parametrize("where", ["_drop_images", "settle_version", "_clean", "_drop_schemas"])
def test_a_gc_that_dies_anywhere_loses_nothing_and_can_be_repeated(pool, talks, where: str, monkeypatch) -> None:
    pool.add([*samples(0, 50), *talks(held=True)])
    pool.remove([str(n) for n in range(25)], step=1)
    before = state(pool)
    with monkeypatch.context() as patch:
        patch.setattr(liit.data.gc, where, killed)
        for _ in range(2):
            with pytest.raises(Killed):
                Pool.open(pool.path).gc()
            assert state(pool) == before
            assert all(image.open() for s in Pool.open(pool.path).take(["two"]) for image in s.images)
    Pool.open(pool.path).gc()
    undisturbed = Pool.create(pool.path.parent / "undisturbed")
    undisturbed.add([*samples(0, 50), *talks(held=True)])
    undisturbed.remove([str(n) for n in range(25)], step=1)
    undisturbed.gc()
    assert state(pool) == state(undisturbed)
    assert size(pool) < 1.2 * size(undisturbed) + 20_000


def test_files_a_killed_writer_left_are_freed(pool, monkeypatch) -> None:
    pool.add(samples(0, 10))
    with monkeypatch.context() as patch:
        patch.setattr(liit.data.writer.PoolWriter, "__exit__", lambda self, *_: self._stack.close())
        patch.setattr(liit.data.writer, "write_commit", killed)
        with pytest.raises(Killed):
            Pool.open(pool.path).add(samples(10, 500))
    before = size(pool)
    Pool.open(pool.path).gc()
    assert size(pool) < before / 5


def test_a_clock_that_went_back_does_not_keep_versions(pool, monkeypatch) -> None:
    pool.add(samples(0, 100))
    pool.remove([str(n) for n in range(90)], step=1)
    for file in pool.path.rglob("*"):
        os.utime(file, (4e9, 4e9))  # files from the future
    assert pool.gc()["freed"] > 100_000


def test_wrong_numbers_are_named(pool) -> None:
    for keep in (-1, 1.5, True):
        with pytest.raises(InputError, match="keep"):
            pool.gc(keep=keep)
    with pytest.raises(InputError, match="old version"):
        pool.at(1).gc()


def test_what_somebody_holds_stays_until_it_is_released(pool) -> None:
    for start in (0, 20, 40):
        pool.add(samples(start, start + 20))
    pool.remove(["3"], step=1)
    contents = {version: pool.at(version).ids() for version in (3, 4, 5)}
    pool.hold("one", 2)
    pool.hold("one", 3)  # in place of the first
    pool.hold("two", 4)
    report = pool.gc()
    assert (report["oldest"], report["held"]) == (3, {"one": 3, "two": 4})
    assert {version: Pool.open(pool.path).at(version).ids() for version in contents} == contents
    with pytest.raises(InputError, match="freed"):
        pool.at(2)
    pool.release("one")
    pool.release("never held")
    assert pool.gc()["oldest"] == 4
    pool.release("two")
    assert not (pool.path / "holds.json").exists()
    report = pool.gc()
    assert (report["oldest"], report["held"]) == (pool.version, {})


def test_what_is_held_is_freed_only_when_that_is_said(pool) -> None:
    pool.add(samples(0, 20))
    pool.remove(["3"], step=1)
    pool.hold("one", 1)
    assert pool.gc(ignore_holds=True)["oldest"] == pool.version
    assert not (pool.path / "holds.json").exists()
    with pytest.raises(InputError, match=r"version: 1 .*freed by a gc"):
        pool.hold("one", 1)


def test_a_gc_that_keeps_more_than_is_held_says_nothing_of_it(pool) -> None:
    pool.add(samples(0, 20))
    pool.hold("one", 2)
    report = pool.gc(keep=2)
    assert (report["oldest"], report["held"]) == (1, {})
    assert pool.at(1).ids() == []


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '{"one": "x"}', '{"one": null}', "\udcff"])
def test_a_damaged_list_of_holds_stops_a_gc_and_the_holder_mends_it(pool, text: str) -> None:
    pool.add(samples(0, 20))
    file = pool.path / "holds.json"
    file.write_bytes(text.encode("utf-8", "surrogateescape"))
    version = pool.version
    with pytest.raises(InputError, match=r"holds\.json.* cannot be read"):
        pool.gc()
    assert Pool.open(pool.path).version == version
    pool.hold("one", 2)
    assert pool.gc()["held"] == {"one": 2}
