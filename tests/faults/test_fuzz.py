"""Mutated rows and files, for every format in every kind of file: a line or a count, never a traceback, never a hang.

The formats come from the registry, so a new one is fuzzed from the day it is registered: its own `render` writes the
valid rows that are mutated here.
"""

from __future__ import annotations

import random
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import pytest
from mutations import GOOD, MUTATORS, mutate_bytes, mutate_file, write_images
from processes import Zygote

from liit.data.containers import CONTAINERS, container_of
from liit.data.formats import formats, get_format
from liit.data.ingest import Dataset, IngestReport, ingest, read_samples
from liit.data.pool import Pool
from liit.data.sample import ImageRef, Message, Sample
from liit.data.validate import REASONS
from liit.errors import InputError

CASES = [
    (name, suffix)
    for name in formats()
    for kind in get_format(name).containers
    for suffix in CONTAINERS[kind].suffixes
    if suffix in (".json", ".jsonl", ".parquet", ".tar") or kind not in MUTATORS
]
ROWS = 2000
"""Fed to every reader, in all kinds of file together."""
FILES = 16
SECONDS = 120
_fed: Counter[str] = Counter()
_many: dict[str, Counter[str]] = {}
"""What the slow tests fed to every format, and what became of it."""


@contextmanager
def no_hang() -> Iterator[None]:
    """Whatever takes two minutes for a few rows hangs."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise AssertionError(f"hangs: more than {SECONDS} seconds")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="module")
def root(room: Path) -> Path:
    write_images(room / "fuzz/images")
    return room / "fuzz"


@pytest.fixture(scope="module")
def seeds(root: Path) -> Pool:
    """Samples of every shape: without image, with one, two and three, of several turns, in several languages."""
    import hashlib

    images = []
    for name in GOOD:
        path = root / "images" / name
        images.append(ImageRef(str(path.resolve()), hashlib.sha256(path.read_bytes()).hexdigest()))
    talks = [
        (0, ["2 + 2 = ?", "四 — vier"]),
        (1, ["<image>\nWhat is it?", "a cat"]),
        (2, ["<image> ou <image> ?", "الأول"]),
        (1, ["色は？<image>", "赤です。 🎣", "Точно?", "כן"]),
        (3, ["<image><image><image>", "three"]),
    ]
    pool = Pool.create(root / "seeds")
    for number, (count, texts) in enumerate(talks):
        messages = tuple(Message("assistant" if turn % 2 else "user", text) for turn, text in enumerate(texts))
        pool.add([Sample(f"s{number}", messages, tuple(images[:count]), "s", "k")])
    return pool


def valid_file(seeds: Pool, root: Path, format: str, suffix: str) -> bytes:
    """A file that the format's own writer makes of the samples that it can hold."""
    path = root / f"valid-{format}{suffix}"
    if not path.is_file():
        for ids in (seeds.ids(), [id for id in seeds.ids() if id != "s3"]):  # some formats hold one turn only
            try:
                seeds.write(path, ids, format)
                break
            except InputError:
                continue
    return path.read_bytes()


@pytest.fixture
def pool(place: Path) -> Pool:
    return Pool.create(place / "pool")


def take(pool: Pool, path: Path, format: str, root: Path, source: str) -> IngestReport | None:
    """Ingest a file: None when it is refused, and then nothing has changed; the counts add up."""
    before = (pool.version, len(pool), pool.quarantine().num_rows)
    try:
        with no_hang():
            report = ingest(pool, path, format, source, root / "images")
    except InputError:
        assert (Pool.open(pool.path).version, len(pool), pool.quarantine().num_rows) == before
        return None
    assert report.rows == report.added + report.quarantined + report.duplicates + report.pruned
    assert report.quarantined == sum(report.reasons.values())
    assert set(report.reasons) <= set(REASONS)
    assert len(pool) == before[1] + report.added == len(set(pool.ids()))
    assert pool.quarantine().num_rows == before[2] + report.quarantined
    return report


def check_images(pool: Pool) -> None:
    for batch in pool.scan():
        for sample in batch:
            assert [image.open().mode for image in sample.images] == ["RGB"] * len(sample.images)


@pytest.mark.parametrize(("format", "suffix"), CASES)
def test_mutated_rows_are_in_the_pool_or_in_quarantine(
    seeds: Pool, root: Path, pool: Pool, place: Path, format: str, suffix: str
) -> None:
    rng = random.Random(f"{format}{suffix}")
    data = valid_file(seeds, root, format, suffix)
    kind = container_of(Path(f"x{suffix}")).name
    added = rows = 0
    reasons: Counter[str] = Counter()
    share = ROWS // sum(name == format for name, _ in CASES) + 1
    files = 1 if kind == "json" else 8
    for number in range(files):
        path = place / f"rows-{number}{suffix}"
        each = share // files + 1
        expected = mutate_file(kind, path, data, each, rng)
        _fed[format] += each
        report = take(pool, path, format, root, f"fuzz {number}")
        if report is None:
            assert kind != "json"
            continue
        assert report.rows == (report.rows if expected is None else expected)
        rows, added = rows + report.rows, added + report.added
        reasons.update(report.reasons)
        again = ingest(pool, path, format, f"fuzz {number}", root / "images")
        assert (again.added, again.version) == (0, report.version)
    check_images(pool)
    assert added >= rows // 20
    assert len(reasons) >= (10 if kind == "json" else 3), reasons


@pytest.mark.parametrize(("format", "suffix"), CASES)
def test_mutated_files_are_read_or_refused_whole(
    seeds: Pool, root: Path, pool: Pool, place: Path, format: str, suffix: str
) -> None:
    rng = random.Random(f"files {format}{suffix}")
    data = valid_file(seeds, root, format, suffix)
    outcomes: Counter[str] = Counter()
    for number in range(FILES):
        path = place / f"file{suffix}"
        path.write_bytes(mutate_bytes(data, rng))
        if number % 4 == 0:
            outcomes["refused" if take(pool, path, format, root, f"fuzz {number}") is None else "read"] += 1
            continue
        try:
            with no_hang():
                read_samples(Dataset(path, format, "fuzz", root / "images"))
            outcomes["read"] += 1
        except InputError:
            outcomes["refused"] += 1
    _fed[format] += FILES
    assert outcomes["refused"] >= (suffix != ".jsonl")  # there, every line is a row of its own
    check_images(pool)


def test_at_least_two_thousand_rows_and_files_were_fed_to_every_reader() -> None:
    """Comes after the others of this file."""
    if len(_fed) == len(formats()):  # not when only some of them were asked for
        assert min(_fed.values()) >= ROWS, _fed


@pytest.mark.parametrize("format", formats())
def test_a_mutated_file_on_the_command_line_is_no_traceback(
    zygote: Zygote, seeds: Pool, root: Path, place: Path, format: str
) -> None:
    rng = random.Random(format)
    kind = get_format(format).containers[0]
    suffix = CONTAINERS[kind].suffixes[0]
    data = valid_file(seeds, root, format, suffix)
    arguments = ["--format", format, "--images", root / "images", "--pool", place / "pool"]
    (place / f"whole{suffix}").write_bytes(data)
    assert zygote.run("ingest", place / f"whole{suffix}", *arguments).code == 0
    for number in range(2):
        path = place / f"{number}{suffix}"
        if number:
            path.write_bytes(data[: len(data) // 3])
        else:
            mutate_file(kind, path, data, 40, rng)
        done = zygote.run("ingest", path, *arguments)
        assert done.refused or (done.code, done.err) == (0, ""), done


def odd_places(place: Path) -> list[Path]:
    """Paths that are no dataset file."""
    import os

    import lance
    import pyarrow as pa

    lance.write_dataset(pa.table({"a": [1]}), str(place / "table.lance"))
    lance.write_dataset(pa.table({"a": [1]}), str(place / "table.json"))
    (place / "empty").mkdir()
    (place / "empty.json").touch()
    (place / "spaces.json").write_text(" \n\t ")
    os.mkfifo(place / "pipe.json")
    (place / "loop.json").symlink_to(place / "loop.json")
    (place / "dangling.json").symlink_to(place / "nowhere")
    return [*place.iterdir(), place / "none.json", place / "x*.json", Path("/dev/zero"), Path("/dev/null")]


@pytest.mark.parametrize("format", formats())
def test_what_is_no_dataset_file_is_refused(root: Path, room: Path, place: Path, format: str) -> None:
    (place / "in").mkdir()
    pool = Pool.create(place / "pool")
    for path in odd_places(place / "in"):
        with no_hang(), pytest.raises(InputError):
            ingest(pool, path, format, "s", root / "images")
    assert (pool.version, len(pool)) == (1, 0)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize(("format", "suffix"), CASES)
def test_many_mutated_files_are_read_or_refused_whole(
    seeds: Pool, root: Path, pool: Pool, place: Path, format: str, suffix: str, seed: int
) -> None:
    rng = random.Random(f"{seed} {format}{suffix}")
    data = valid_file(seeds, root, format, suffix)
    kind = container_of(Path(f"x{suffix}")).name
    counts = _many.setdefault(format, Counter())
    for number in range(60):
        path = place / f"file{suffix}"
        if number % 3 == 0:
            mutate_file(kind, path, data, 50, rng)
        else:
            path.write_bytes(mutate_bytes(data, rng))
        report = take(pool, path, format, root, f"fuzz {number}")
        counts["files"] += 1
        if report is None:
            counts["refused"] += 1
            continue
        for what in ("rows", "added", "quarantined", "duplicates"):
            counts[what] += getattr(report, what)
    check_images(pool)


@pytest.mark.slow
def test_what_many_mutated_files_became_adds_up() -> None:
    """Comes after the test before it."""
    for format, counts in sorted(_many.items()):
        print(f"{format}: {dict(counts)}")
        assert counts["rows"] == counts["added"] + counts["quarantined"] + counts["duplicates"]
        assert min(counts[what] for what in ("files", "refused", "added", "quarantined")) > 0
    if len(_many) == len(formats()):  # not when only some of them were asked for
        assert min(counts["rows"] + counts["files"] for counts in _many.values()) >= ROWS
