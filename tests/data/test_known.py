"""The index of known rows says what the tables say, whatever happened to it; and memory does not grow with the pool."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from liit.data.known import NAME, KnownRows, digest
from liit.data.places import Places
from liit.data.pool import Pool
from liit.data.sample import Message, Sample
from liit.errors import InputError


def samples(first: int, last: int, text: str = "") -> list[Sample]:
    return [
        Sample(str(n), (Message("user", f"{text}{n}?"), Message("assistant", "a")), source=f"s{n % 2}")
        for n in range(first, last)
    ]


def rebuilds(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    found: list[int] = []
    original = KnownRows._rebuild
    monkeypatch.setattr(KnownRows, "_rebuild", lambda self: (found.append(1), original(self)))
    return found


def test_it_follows_additions_without_being_made_again(pool, monkeypatch) -> None:
    made = rebuilds(pool, monkeypatch)
    for start in range(0, 40, 10):
        assert Pool.open(pool.path).add(samples(start, start + 10)).added == 10
    assert Pool.open(pool.path).add(samples(0, 40)).duplicates_exact == 40
    assert len(made) == 1  # by the first writer, for there was none


SPOIL = {
    "missing": lambda file: file.unlink(),
    "empty": lambda file: file.write_bytes(b""),
    "no database": lambda file: file.write_bytes(b"x" * 5000),
    "cut": lambda file: file.write_bytes(file.read_bytes()[: file.stat().st_size // 2]),
    "zeros inside": lambda file: file.write_bytes(file.read_bytes()[:24576] + bytes(file.stat().st_size - 24576)),
}


@pytest.mark.parametrize("summed", [True, False])
@pytest.mark.parametrize("how", SPOIL)
def test_a_spoilt_one_is_made_again(pool, how: str, summed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not summed:  # as for a large one, whose bytes are not compared with their sum each time
        monkeypatch.setattr("liit.data.known._SUMMED", 0)
    pool.add(samples(0, 2000))
    pool.remove(["5"], step=1)
    pool.add(samples(2000, 2001))
    SPOIL[how](pool.path / NAME)
    if how == "zeros inside" and not summed:  # one error that names the file, and the next writer is well
        with pytest.raises(OSError, match=NAME):
            pool.add(samples(0, 2100))
    report = pool.add(samples(0, 2100))
    assert (report.added, report.duplicates_exact, report.pruned) == (99, 2000, 1)


def test_it_is_made_again_after_a_removal_a_restore_and_a_killed_writer(pool, monkeypatch) -> None:
    pool.add(samples(0, 10))
    made = rebuilds(pool, monkeypatch)
    pool.remove(["3"], step=1)
    assert pool.add(samples(3, 4)).pruned == 1
    pool.restore(2)
    assert pool.add(samples(3, 4)).duplicates_exact == 1
    monkeypatch.setattr(KnownRows, "commit", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        pool.add(samples(10, 20))
    monkeypatch.undo()
    assert Pool.open(pool.path).add(samples(0, 20)).duplicates_exact == 20
    assert len(made) == 2


def test_a_copied_pool_and_its_original_go_their_own_ways(pool, tmp_path: Path) -> None:
    import shutil

    pool.add(samples(0, 5))
    shutil.copytree(pool.path, tmp_path / "copy")
    copy = Pool.open(tmp_path / "copy")
    copy.add(samples(5, 8))
    pool.add(samples(5, 6, text="other"))
    (pool.path / NAME).write_bytes((copy.path / NAME).read_bytes())
    with pytest.raises(InputError, match=r"'5'.*other content"):
        pool.add(samples(5, 6))


def test_same_content_is_counted_by_the_source_that_had_it_first(pool) -> None:
    pool.add(samples(0, 4))
    again = [Sample(f"x{s.id}", s.messages, source="new") for s in [*samples(0, 3), *samples(7, 8)]]
    with pool.writer() as writer:
        assert writer.add([*again, Sample("y", again[-1].messages, source="new")]) == ["added"] * 5
        assert dict(writer.same_content) == {"s0": 2, "s1": 1, "new": 1}


def test_digests_of_odd_ids_differ() -> None:
    ids = ["", " ", "a", "A", "\u00e9", "e\u0301", "\ud800", "\ud801", "0", "00"]
    assert len({digest(id) for id in ids}) == len(ids)


@pytest.mark.parametrize("same_hash", [False, True])
def test_places_are_exact_even_when_hashes_collide(same_hash: bool, monkeypatch) -> None:
    import pyarrow as pa

    if same_hash:
        monkeypatch.setattr("liit.data.places.hash", lambda text: len(text), raising=False)
    ids = [f"id-{n}" for n in range(1000)]
    places = Places(lambda: [pa.array(ids[:300]), pa.array(ids[300:])])
    order = np.random.default_rng(0).permutation(1000)
    assert places.find([ids[n] for n in order]).tolist() == order.tolist()
    assert places.find(["nobody", "id-5", "id-1000"]).tolist() == [-1, 5, -1]
    assert Places(list).find(["a"]).tolist() == [-1]


def test_an_id_that_shares_its_hash_with_a_sample_is_not_taken_for_it(pool, monkeypatch) -> None:
    monkeypatch.setattr("liit.data.places.hash", len, raising=False)
    pool.add([Sample(id, (Message("user", id), Message("assistant", "a"))) for id in ("a", "bb", "ccc")])
    assert pool.contains(["xx", "bb", "x"]) == [False, True, False]
    with pytest.raises(InputError, match="'xx' is not in the pool"):
        pool.take(["bb", "xx"])
    with pytest.raises(InputError, match="'xx' is not in the pool"):
        pool.remove(["xx"], step=1)


MEASURE = """
import sys
from pathlib import Path
from liit.data.ingest import ingest
from liit.data.pool import Pool

pool = Pool.open_or_create(sys.argv[1])
ingest(pool, sys.argv[2], "llava-json", "s", strict=True)
# Not ru_maxrss, which a process has from the one that started it.
peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
print(int(peak.split()[1]) // 1024)
"""


@pytest.mark.slow
def test_memory_of_an_ingest_does_not_grow_with_its_rows(tmp_path: Path) -> None:
    peaks = []
    for count in (30_000, 300_000):
        path = tmp_path / f"{count}.jsonl"
        with path.open("w") as file:
            for n in range(count):
                talk = f'[{{"from": "human", "value": "What is {n}?"}}, {{"from": "gpt", "value": "{n}"}}]'
                file.write(f'{{"id": "row-{n}", "conversations": {talk}}}\n')
        environment = {**os.environ, "MALLOC_ARENA_MAX": "1"}
        environment.pop("MALLOC_TRIM_THRESHOLD_", None)
        environment.pop("MALLOC_MMAP_THRESHOLD_", None)
        done = subprocess.run(
            [sys.executable, "-c", MEASURE, str(tmp_path / f"pool-{count}"), str(path)],
            capture_output=True, text=True, check=True, env=environment,
        )  # fmt: skip
        peaks.append(int(done.stdout))
    assert peaks[1] < peaks[0] + 130, peaks  # MB: SQLite's cache of 64 and buffers that fill, not a table of ids
