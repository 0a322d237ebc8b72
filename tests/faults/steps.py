"""Each stage as a command of its own: what it starts from, and what it must leave, whatever happened on the way."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from processes import Zygote
from tiny import features

from liit.data.pool import Pool

SELECTOR = ["--option", "k=3", "--option", "experts=[el2n, entropy]"]
FEATURES = "gradient,embedding,el2n,entropy"


def pool_content(path: Path) -> dict[str, Any]:
    """What is in a pool; a pool holds nothing else that a user can see, but for times and messages."""
    pool = Pool.open(path)
    hidden = ("version", "digest")
    return {
        "samples": pool.columns(["row", "id", "source", "skill", "content_hash", "raw"]).to_pydict(),
        "ledger": [{k: v for k, v in row.items() if k not in hidden} for row in pool.ledger().to_pylist()],
        "quarantine": pool.quarantine().to_pydict(),
        "images": [[image.sha256 for image in sample.images] for batch in pool.scan() for sample in batch],
    }


def files(folder: Path, *names: str) -> dict[str, Any]:
    """Files of a folder: tables as their rows, the others as bytes."""
    return {
        name: pq.read_table(folder / name).to_pydict() if name.endswith(".parquet") else (folder / name).read_bytes()
        for name in names
    }


@dataclass(frozen=True)
class Step:
    """A command, and how to read what it leaves.

    Attributes:
        arguments: of the command, in a folder made by `prepare`.
        result: what must be there afterwards.
        inputs: what it reads, below the folder.
    """

    arguments: Callable[[Path], list[str | Path]]
    result: Callable[[Path], Any]
    inputs: tuple[str, ...] = ()


def mostly_slow(*usual: str) -> list[Any]:
    """Every step as a parameter; but for these, only the slow tests try them."""
    return [name if name in usual else pytest.param(name, marks=pytest.mark.slow) for name in STEPS]


def config(folder: Path) -> Path:
    return folder.parent / "short" / "continuum.yaml"


STEPS: dict[str, Step] = {
    "ingest": Step(
        lambda f: ["ingest", f.parent / "short/beta.json", "--pool", f / "small", "--source", "beta"],
        lambda f: pool_content(f / "small"),
        ("small",),
    ),
    "extract": Step(
        lambda f: ["extract", "--config", config(f), "--pool", f / "pool", "--out", f / "o", "--features", FEATURES],
        lambda f: features(f / "o"),
        ("pool",),
    ),
    "select": Step(
        lambda f: ["select", "adapt-inf", "--pool", f / "pool", "--features", f / "features", "--budget", "16",
                   "--out", f / "o", "--write", f / "o.json", *SELECTOR],
        lambda f: files(f, "o/selection.parquet", "o/labels.parquet", "o/selection.json", "o.json"),
        ("pool", "features"),
    ),
    "prune": Step(
        lambda f: ["prune", "--pool", f / "pool", "--features", f / "features", "--labels",
                   f / "selection/labels.parquet", "--keep", "60", "--out", f / "o"],
        lambda f: {**files(f / "o", "pruned.parquet", "prune.json"), **pool_content(f / "pool")},
        ("pool", "features", "selection/labels.parquet"),
    ),
    "train": Step(
        lambda f: ["train", "--config", config(f), "--pool", f / "pool", "--selection",
                   f / "selection/selection.parquet", "--adapter", f / "adapter", "--out", f / "o"],
        lambda f: files(f / "o", "adapter_model.safetensors", "adapter_config.json"),
        ("pool", "selection/selection.parquet", "adapter"),
    ),
    "evaluate": Step(
        lambda f: ["evaluate", "--config", config(f), "--adapter", f / "adapter", "--out", f / "o"],
        lambda f: files(f / "o", "evaluation.json", "predictions.jsonl"),
        ("adapter",),
    ),
}  # fmt: skip


def make_home(zygote: Zygote, home: Path) -> Path:
    """Make, by the commands, the folder that every step starts from: one that `STEPS` find their inputs in."""
    short = home.parent / "short"

    def run(*arguments: str | Path) -> None:
        done = zygote.run(*arguments)
        assert (done.code, done.err) == (0, ""), done

    home.mkdir()
    for name in ("alpha", "beta"):
        run("ingest", short / f"{name}.json", "--pool", home / "pool", "--source", name)
    run("ingest", short / "alpha.json", "--pool", home / "small", "--source", "alpha")
    run(
        "extract", "--config", config(home), "--pool", home / "pool", "--out", home / "features", "--features", FEATURES
    )
    run("select", "adapt-inf", "--pool", home / "pool", "--features", home / "features", "--budget", "16",
        "--out", home / "selection", *SELECTOR)  # fmt: skip
    run("train", "--config", config(home), "--pool", home / "pool", "--selection", home / "selection/selection.parquet",
        "--out", home / "adapter")  # fmt: skip
    return home


@dataclass(frozen=True)
class Prepared:
    """A folder with everything that commands start from.

    Attributes:
        home: the folder; to be copied, not changed.
        results: what each command leaves that starts from there.
        seconds: how long it takes.
    """

    home: Path
    results: dict[str, Any]
    seconds: dict[str, float]

    @contextmanager
    def folder(self) -> Iterator[Path]:
        """A copy to work in."""
        folder = Path(tempfile.mkdtemp(dir=self.home.parent))
        shutil.copytree(self.home, folder, dirs_exist_ok=True)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
