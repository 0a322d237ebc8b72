"""Speed and memory of the pool: ingest beside `datasets`, reading and appending beside memmap, Parquet and .pt shards.

    python benchmarks/pool.py                                        a minute or two on a quiet machine
    python benchmarks/pool.py --sizes 100000 1000000 10000000 --tar-rows 50000 200000 --write     what the page shows

Linux only (it reads memory from /proc). What is compared runs side by side in one process, the order turning with each
round; the memory of an ingest is measured in processes of their own. Wall and CPU seconds are kept; ratios of medians
are claimed and no absolute times, which depend on the machine and on who else uses it.

- ingest: rows of a JSON-lines file per second, each parsed, checked, compared with all before it and written; beside
  `datasets.load_dataset("json")` on the same file, which parses and writes. With pictures, `datasets` decodes each too.
- memory: peak of ingests of more and more rows into an empty pool; "index" is what one more ingest of a thousand rows
  takes then.
- tars: the same of WebDataset tars, each row a json member and a picture.
- reading: a thousand random rows, all rows, and a thousand rows appended and synced to disk. All stores hold the same
  rows as JSON text; "pool, samples" also makes `Sample` objects of them.

With --write the tables go into docs/pool.md.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

RESULTS = Path(__file__).parent / "results" / "pool.json"
PAGE = Path(__file__).resolve().parents[1] / "docs" / "pool.md"
BEGIN, END = "<!-- measured by benchmarks/pool.py -->", "<!-- end -->"
SHARD = 1000
PICKS = 1000
PARTS = ("ingest", "reading", "memory", "tars")

Measurement = dict[str, Any]


def rows(count: int, first: int = 0) -> Iterator[dict[str, Any]]:
    """Small rows of several lengths, some in other scripts."""
    for n in range(first, first + count):
        talk = [{"from": "human", "value": f"What is number {n}? " + "It is asked politely. " * (n % 5)},
                {"from": "gpt", "value": f"{n * 7919 % 9973} — {'四' if n % 2 else 'quattro'}"}]  # fmt: skip
        yield {"id": f"row-{n}", "conversations": talk, "skill": f"skill-{n % 12}"}


def write_lines(path: Path, lines: Iterator[dict[str, Any]]) -> Path:
    with path.open("w", encoding="utf-8") as file:
        for row in lines:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    return path


def write_tar(path: Path, lines: Iterator[dict[str, Any]]) -> Path:
    """A WebDataset tar, each row a json member and one of ten small pictures."""
    from PIL import Image

    pictures = []
    for n in range(10):
        file = io.BytesIO()
        Image.new("RGB", (8, 8), (25 * n, 90, 200)).save(file, "PNG")
        pictures.append(file.getvalue())
    with tarfile.open(path, "w") as tar:
        for n, row in enumerate(lines):
            for kind, data in (("json", json.dumps(row, ensure_ascii=False).encode()), ("png", pictures[n % 10])):
                member = tarfile.TarInfo(f"{n:09d}.{kind}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
            tar.members = []  # type: ignore[attr-defined]  # tarfile keeps every header otherwise
    return path


class Clock:
    """Wall and CPU seconds of a block, this process's threads and its ended children included."""

    def __enter__(self) -> Clock:
        self._wall, self._cpu = time.perf_counter(), self._used()
        return self

    def __exit__(self, *_: object) -> None:
        self.wall, self.cpu = time.perf_counter() - self._wall, self._used() - self._cpu

    @staticmethod
    def _used() -> float:
        return time.process_time() + sum(os.times()[2:4])


def side_by_side(works: dict[str, Callable[[int], int]], rounds: int) -> dict[str, Measurement]:
    """Run works in turn; each gets the number of the round and returns how many rows it did."""
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in works}
    counts: dict[str, int] = {}
    names = list(works)
    for number in range(rounds):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            with Clock() as clock:
                counts[name] = works[name](number)
            seconds[name].append((clock.wall, clock.cpu))
    return {
        name: {
            "rows": counts[name],
            "rows_per_second": round(counts[name] / median(wall for wall, _ in found), 1),
            "rows_per_cpu_second": round(counts[name] / max(1e-3, median(cpu for _, cpu in found)), 1),
            "rounds": [{"wall": round(wall, 4), "cpu": round(cpu, 4)} for wall, cpu in found],
        }
        for name, found in seconds.items()
    }


# Ingest


def measure_ingest(folder: Path, count: int, pictures: int, rounds: int) -> dict[str, dict[str, Measurement]]:
    import datasets
    from PIL import Image

    datasets.disable_progress_bars()
    text = write_lines(folder / "text.jsonl", rows(count))
    rng = np.random.default_rng(0)
    (folder / "pictures").mkdir()
    for n in range(pictures):
        low = rng.integers(0, 255, (6, 8, 3), dtype=np.uint8)
        Image.fromarray(low).resize((320, 240)).save(folder / "pictures" / f"{n}.jpg", quality=90)
    shown = write_lines(
        folder / "shown.jsonl",
        ({"id": str(n), "image": str(folder / "pictures" / f"{n}.jpg"), "conversations": [
            {"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "blue"}]} for n in range(pictures)),
    )  # fmt: skip

    def load(path: Path, number: int) -> Any:
        cache = folder / f"cache-{path.stem}-{number}"
        return datasets.load_dataset("json", data_files=str(path), cache_dir=str(cache), split="train")

    def read_text(number: int) -> int:
        return len(load(text, number))

    def read_pictures(number: int) -> int:
        data = load(shown, number).cast_column("image", datasets.Image())
        return sum(row["image"].load() is not None for row in data)

    def take(path: Path, embed: bool = False) -> Callable[[int], int]:
        from liit.data.ingest import ingest
        from liit.data.pool import Pool

        def work(number: int) -> int:
            pool = Pool.create(folder / f"pool-{path.stem}-{embed}-{number}")
            report = ingest(pool, path, "llava-json", "s", strict=True, allow_outside=True, embed_images=embed)
            assert report.added == report.rows
            return report.rows

        return work

    return {
        "text": side_by_side({"liit": take(text), "datasets": read_text}, rounds),
        "pictures": side_by_side(
            {"liit": take(shown), "liit, embedding": take(shown, True), "datasets": read_pictures}, rounds
        ),
    }


# Memory


def ingest_once(path: str, pool: str) -> None:
    """Run in a process of its own: ingest, then print what it took."""
    from liit.data.ingest import ingest
    from liit.data.pool import Pool

    with Clock() as clock:
        format = "webdataset" if path.endswith(".tar") else "llava-json"
        report = ingest(Pool.open_or_create(pool), path, format, "s", strict=True)
    assert report.added == report.rows
    # Not ru_maxrss, which a process has from the one that started it.
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    facts = {"rows": report.rows, "peak_mb": int(peak.split()[1]) // 1024}
    print(json.dumps({**facts, "wall": round(clock.wall, 2), "cpu": round(clock.cpu, 2)}))


def ingest_by_itself(path: Path, pool: Path) -> Measurement:
    """Ingest a file in a process of its own."""
    # What glibc keeps for speed would be counted as memory that an ingest needs.
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_")} | {"MALLOC_ARENA_MAX": "2"}
    command = [sys.executable, __file__, "--ingest-once", str(path), str(pool)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    found: Measurement = json.loads(done.stdout)
    return found


def measure_memory(folder: Path, sizes: list[int]) -> list[Measurement]:
    found = []
    for size in sizes:
        pool = folder / f"memory-{size}"
        runs = {}
        for name, count, first in (("ingest", size, 0), ("index", 1000, size)):
            path = write_lines(folder / f"memory-{name}.jsonl", rows(count, first))
            runs[name] = ingest_by_itself(path, pool)
            path.unlink()
        used = sum(file.stat().st_size for file in pool.rglob("*") if file.is_file())
        index = (pool / "known.sqlite").stat().st_size
        found.append({"rows": size, **runs, "pool_bytes_per_row": used // size, "index_bytes_per_row": index // size})
        print(f"memory: {found[-1]}", file=sys.stderr, flush=True)
        shutil.rmtree(pool)
    return found


def measure_tars(folder: Path, sizes: list[int]) -> list[Measurement]:
    found = []
    for size in sizes:
        shown = ({**row, "conversations": [{**turn, "value": "<image>" * (turn["from"] == "human") + turn["value"]}
                                           for turn in row["conversations"]]} for row in rows(size))  # fmt: skip
        path = write_tar(folder / "memory.tar", shown)
        found.append({"members": 2 * size, "bytes": path.stat().st_size, **ingest_by_itself(path, folder / "tars")})
        print(f"tars: {found[-1]}", file=sys.stderr, flush=True)
        path.unlink()
        shutil.rmtree(folder / "tars")
    return found


# Reading and appending


class Memmap:
    """All texts in one file, and where each ends in another."""

    def __init__(self, folder: Path, texts: list[bytes]) -> None:
        self.data, self.ends = folder / "rows.bin", folder / "ends.npy"
        self.data.write_bytes(b"".join(texts))
        np.save(self.ends, np.cumsum([0, *map(len, texts)]))

    def read(self, places: np.ndarray) -> int:
        """Parse the rows at some places; how many."""
        ends = np.load(self.ends, mmap_mode="r")
        data = np.memmap(self.data, mode="r")
        return sum(len(json.loads(data[ends[n] : ends[n + 1]].tobytes())) > 0 for n in places)

    def scan(self) -> int:
        """Parse all rows; how many."""
        ends = np.load(self.ends)
        data = self.data.read_bytes()
        return sum(len(json.loads(data[a:b])) > 0 for a, b in pairwise(ends))

    def append(self, texts: list[bytes]) -> int:
        """Write more rows and sync them; how many."""
        ends = np.load(self.ends)
        with self.data.open("ab") as file:
            file.write(b"".join(texts))
            os.fsync(file.fileno())
        with self.ends.with_suffix(".part").open("wb") as file:
            np.save(file, np.concatenate([ends, ends[-1] + np.cumsum([*map(len, texts)])]))
            os.fsync(file.fileno())
        self.ends.with_suffix(".part").replace(self.ends)
        return len(texts)


class Parquet:
    """A file per append, row groups of 1000; a row is found by its row group."""

    def __init__(self, folder: Path, texts: list[bytes]) -> None:
        self.folder = folder
        self.append(texts)

    def read(self, places: np.ndarray) -> int:
        """Parse the rows at some places; how many."""
        import pyarrow.parquet as pq

        done = 0
        with pq.ParquetFile(self.folder / "0.parquet") as file:
            for group in np.unique(places // SHARD):
                column = file.read_row_group(int(group))["text"]
                for n in places[places // SHARD == group] % SHARD:
                    done += len(json.loads(column[int(n)].as_py())) > 0
        return done

    def scan(self) -> int:
        """Parse all rows; how many."""
        import pyarrow.parquet as pq

        with pq.ParquetFile(self.folder / "0.parquet") as file:
            return sum(len(json.loads(t)) > 0 for b in file.iter_batches(1024) for t in b["text"].to_pylist())

    def append(self, texts: list[bytes]) -> int:
        """Write more rows and sync them; how many."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        path = self.folder / f"{len(list(self.folder.iterdir()))}.parquet"
        with path.open("wb") as file:
            pq.write_table(pa.table({"text": pa.array(texts, pa.binary())}), file, row_group_size=SHARD)
            file.flush()
            os.fsync(file.fileno())
        return len(texts)


class Shards:
    """`torch.save` of a thousand rows each, as LESS and adapt-inf keep theirs."""

    def __init__(self, folder: Path, texts: list[bytes]) -> None:
        self.folder = folder
        for start in range(0, len(texts), SHARD):
            self.append(texts[start : start + SHARD])

    def read(self, places: np.ndarray) -> int:
        """Parse the rows at some places; how many."""
        import torch

        done = 0
        for shard in np.unique(places // SHARD):
            found = torch.load(self.folder / f"{shard}.pt", weights_only=True)
            done += sum(len(json.loads(found[n])) > 0 for n in places[places // SHARD == shard] % SHARD)
        return done

    def scan(self) -> int:
        """Parse all rows; how many."""
        import torch

        count = len(list(self.folder.iterdir()))
        shards = (torch.load(self.folder / f"{n}.pt", weights_only=True) for n in range(count))
        return sum(len(json.loads(text)) > 0 for shard in shards for text in shard)

    def append(self, texts: list[bytes]) -> int:
        """Write more rows and sync them; how many."""
        import torch

        path = self.folder / f"{len(list(self.folder.iterdir()))}.pt"
        with path.open("wb") as file:
            torch.save([text.decode() for text in texts], file)
            file.flush()
            os.fsync(file.fileno())
        return len(texts)


def measure_reading(folder: Path, count: int, rounds: int) -> dict[str, dict[str, Measurement]]:
    import torch

    from liit.data.ingest import ingest
    from liit.data.pool import Pool

    torch.set_num_threads(1)
    path = write_lines(folder / "reading.jsonl", rows(count))
    texts = path.read_bytes().splitlines()
    stores: dict[str, Any] = {}
    for name, store in (("memmap", Memmap), ("Parquet", Parquet), (".pt shards", Shards)):
        (folder / name).mkdir()
        stores[name] = store(folder / name, texts)
    ingest(Pool.create(folder / "pool"), path, "llava-json", "s", strict=True)
    picks = [np.random.default_rng(n).choice(count, PICKS, replace=False) for n in range(rounds)]
    pool = Pool.open(folder / "pool")
    pool.contains(["row-0"])  # the places of the ids are found once, however many rows are read after that

    def opened(number: int) -> int:
        found = pool.rows_of([f"row-{n}" for n in picks[number]], ["raw"])["raw"].to_pylist()
        return sum(len(json.loads(text)) > 0 for text in found)

    def lines(number: int) -> int:
        batches = Pool.open(folder / "pool").batches(["raw"], 1024)
        return sum(len(json.loads(text)) > 0 for batch in batches for text in batch["raw"].to_pylist())

    def append(number: int) -> int:
        new = write_lines(folder / "append.jsonl", rows(PICKS, count + number * PICKS))
        return ingest(Pool.open(folder / "pool"), new, "llava-json", "s", strict=True).added

    def at(name: str, what: str) -> Callable[[int], int]:
        if what == "read":
            return lambda number: stores[name].read(picks[number])
        if what == "scan":
            return lambda _: stores[name].scan()
        new = [json.dumps(row, ensure_ascii=False).encode() for row in rows(PICKS, count)]
        return lambda _: stores[name].append(new)

    found = {
        "read": side_by_side(
            {"pool": opened, "pool, samples": lambda n: len(pool.take([f"row-{i}" for i in picks[n]])),
             **{name: at(name, "read") for name in stores}}, rounds),
        "scan": side_by_side(
            {"pool": lines, "pool, samples": lambda _: sum(map(len, pool.scan())),
             **{name: at(name, "scan") for name in stores}}, rounds),
    }  # fmt: skip
    found["append"] = side_by_side({"pool": append, **{name: at(name, "append") for name in stores}}, rounds)
    return found


# What is said about it


def tables(result: dict[str, Any]) -> str:
    """The page's tables, of the parts that have been measured."""
    lines: list[str] = []
    if "ingest" in result:
        lines += ["Ingest, rows per CPU second of liit over those of `datasets` reading the same file:", "",
                  "| file | rows | ratio |", "| --- | --- | --- |"]  # fmt: skip
        for name, found in result["ingest"]["measured"].items():
            for who in [who for who in found if who != "datasets"]:
                ratio = found[who]["rows_per_cpu_second"] / found["datasets"]["rows_per_cpu_second"]
                lines.append(f"| {name}{who.removeprefix('liit')} | {found[who]['rows']:,} | {ratio:.2f} |")
    if "memory" in result:
        lines += ["", "Memory of an ingest into an empty pool, and of a thousand rows more:", "",
                  "| rows | peak, MB | a thousand more, MB | pool, bytes per row | of these the index |",
                  "| --- | --- | --- | --- | --- |"]  # fmt: skip
        for found in result["memory"]["measured"]:
            each = [found["ingest"]["peak_mb"], found["index"]["peak_mb"], found["pool_bytes_per_row"],
                    found["index_bytes_per_row"]]  # fmt: skip
            lines.append(f"| {found['rows']:,} | {' | '.join(map(str, each))} |")
    if "tars" in result:
        lines += ["", "Memory of an ingest of a tar, a json member and a picture a row:", "",
                  "| members | tar, MB | peak, MB |", "| --- | --- | --- |"]  # fmt: skip
        for found in result["tars"]["measured"]:
            lines.append(f"| {found['members']:,} | {found['bytes'] // 10**6:,} | {found['peak_mb']} |")
    if "reading" in result:
        lines += [*_reading(result["reading"]["measured"])]
    return "\n".join(lines).strip()


def _reading(measured: dict[str, dict[str, Measurement]]) -> Iterator[str]:
    rows = measured["scan"]["pool"]["rows"]
    yield ""
    yield f"Rates of the pool over those of other stores, {rows:,} rows; per CPU second, and appending by the clock:"
    yield from ("", "| | memmap | Parquet | .pt shards |", "| --- | --- | --- | --- |")
    titles = {"read": "1000 random rows", "scan": "all rows", "append": "1000 rows appended and synced"}
    for what, found in measured.items():
        rate = "rows_per_second" if what == "append" else "rows_per_cpu_second"
        for who in [who for who in found if who.startswith("pool")]:
            ratios = (found[who][rate] / found[other][rate] for other in ("memmap", "Parquet", ".pt shards"))
            as_samples = ", as samples" if who != "pool" else ""
            yield f"| {titles[what]}{as_samples} | {' | '.join(f'{ratio:.2g}' for ratio in ratios)} |"


def write_page(text: str) -> None:
    page = PAGE.read_text(encoding="utf-8")
    head, _, rest = page.partition(BEGIN)
    PAGE.write_text(f"{head}{BEGIN}\n\n{text}\n\n{END}{rest.partition(END)[2]}", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=50_000, help="of the files that are ingested and read")
    parser.add_argument("--pictures", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sizes", type=int, nargs="*", default=[30_000, 100_000], help="rows of the memory test")
    parser.add_argument("--tar-rows", type=int, nargs="*", default=[10_000, 50_000], help="rows of the tars")
    parser.add_argument("--parts", nargs="*", choices=PARTS, default=PARTS, help="others stay as they were measured")
    parser.add_argument("--write", action="store_true", help="keep the JSON and put the tables into docs/pool.md")
    parser.add_argument("--ingest-once", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.ingest_once:
        ingest_once(*arguments.ingest_once)
        return
    result: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    with tempfile.TemporaryDirectory(prefix="liit-pool-") as name:
        folder = Path(name)
        works: dict[str, Callable[[], Any]] = {
            "ingest": lambda: measure_ingest(folder, arguments.rows, arguments.pictures, arguments.rounds),
            "reading": lambda: measure_reading(folder, arguments.rows, arguments.rounds),
            "memory": lambda: measure_memory(folder, arguments.sizes),
            "tars": lambda: measure_tars(folder, arguments.tar_rows),
        }
        for part in arguments.parts:
            machine = {"cores": os.cpu_count(), "python": platform.python_version(), "load": os.getloadavg()[0]}
            result[part] = {"machine": machine, "measured": works[part]()}
    text = tables(result)
    print(text)
    if arguments.write:
        RESULTS.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        write_page(text)


if __name__ == "__main__":
    main()
