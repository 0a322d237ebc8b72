"""Bytes that change on the disk are noticed, in whichever file of a pool."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from liit.data import checksums
from liit.data.pool import Pool
from liit.data.sample import Message, Sample
from liit.errors import InputError


def samples(first: int, last: int) -> list[Sample]:
    return [
        Sample(str(n), (Message("user", f"What is {n}?"), Message("assistant", "é")), source="s")
        for n in range(first, last)
    ]


@pytest.fixture
def pool(tmp_path: Path) -> Pool:
    pool = Pool.create(tmp_path / "pool")
    pool.add(samples(0, 20))
    pool.add(samples(20, 40))
    pool.remove(["3", "5", "30"], step=1)
    return Pool.open(pool.path)


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 0x10
    state = path.stat()
    path.write_bytes(data)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns + 1))


def read_all(path: Path) -> None:
    pool = Pool.open(path)
    pool.columns(["id", "content_hash", "raw"])
    pool.ledger()
    pool.quarantine()
    pool.log()


def in_use(pool: Pool) -> list[Path]:
    """The files that the newest version is made of."""
    import lance

    files = [pool.path / "commits" / f"{pool.version:08d}.json"]
    for name, version in pool.tables.items():
        table = lance.dataset(str(pool.path / f"{name}.lance"), version=version)
        root = Path(table.uri)
        files.append(root / "_versions" / f"{(1 << 64) - 1 - version:020d}.manifest")
        for fragment in table.get_fragments():
            files += [root / "data" / file.path for file in fragment.data_files()]
            files += [root / gone] if (gone := fragment.deletion_file()) else []
    return [file for file in files if "images" not in file.parts[-3]]  # an image has a hash of its own


def test_a_changed_byte_anywhere_is_refused_and_putting_it_back_mends_it(pool: Pool) -> None:
    read_all(pool.path)
    files = in_use(pool)
    assert len(files) == 9
    for file in files:
        for at in (0, file.stat().st_size // 3, file.stat().st_size // 2, -2):
            flip(file, at)
            with pytest.raises(InputError, match=r"damaged|checksum"):
                read_all(pool.path)
            flip(file, at)
    read_all(pool.path)


def test_an_index_of_known_rows_that_has_changed_is_made_again(pool: Pool) -> None:
    index = pool.path / "known.sqlite"
    for at in range(100, index.stat().st_size, index.stat().st_size // 6):
        data = bytearray(index.read_bytes())
        data[at] ^= 0x10
        index.write_bytes(data)
        report = pool.add([*samples(30, 40), samples(100 + at, 101 + at)[0]])
        assert (report.added, report.duplicates_exact, report.pruned) == (1, 9, 1)
    assert len(pool) == len(set(pool.ids()))


def test_the_sums_are_those_of_sha256sum(pool: Pool) -> None:
    for table in ("samples", "ledger", "quarantine"):
        done = subprocess.run(
            ["sha256sum", "--check", "--strict", checksums.NAME],
            cwd=pool.path / f"{table}.lance", capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done
    assert done.stdout.count("OK") >= 1


def test_a_line_that_a_killed_writer_left_unfinished_harms_nothing(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / name).write_text(name)
    checksums.record(tmp_path, [tmp_path / "a"])
    with (tmp_path / checksums.NAME).open("a") as stream:
        stream.write("3e23e8160039594a33894f65")
    checksums.compare(tmp_path, [tmp_path / "a", tmp_path / "b"])
    checksums.record(tmp_path, [tmp_path / "b"])
    checksums.record(tmp_path, [tmp_path / "b", tmp_path / "c"])
    lines = (tmp_path / checksums.NAME).read_text().splitlines()
    assert [line.rpartition("  ")[2] for line in lines if "  " in line] == ["a", "b", "c"]
    (tmp_path / "b").write_text("x")
    with pytest.raises(InputError, match="/b' is damaged: its bytes have changed"):
        checksums.compare(tmp_path, [tmp_path / "a", tmp_path / "b"])


def test_a_file_without_a_sum_is_not_judged(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a")
    checksums.compare(tmp_path, [tmp_path / "a"])


def test_a_large_table_is_compared_when_asked_to(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("aa")
    checksums.record(tmp_path, [tmp_path / "a"])
    (tmp_path / "a").write_text("ab")
    checksums.compare(tmp_path, [tmp_path / "a"], limit=1)
    with pytest.raises(InputError):
        checksums.compare(tmp_path, [tmp_path / "a"], limit=None)
