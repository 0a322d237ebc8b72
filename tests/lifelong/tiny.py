"""A continuum that runs in seconds: three steps of forty rows about small pictures, and an untrained LLaVA.

The model is an ordinary LLaVA with a CLIP tower, so a process of its own loads it like any checkpoint on disk.
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

SOURCE = Path(__file__).resolve().parents[2] / "src"
STEPS = ("alpha", "beta", "gamma")
ROWS = 40
QUESTIONS = 6
BUDGET = 16
COLOURS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (40, 60, 220), "white": (240, 240, 240)}


def write_model(directory: Path) -> Path:
    """An untrained LLaVA of a few thousand parameters, the same bytes every time."""
    import torch
    from transformers import (
        CLIPImageProcessor,
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
    )

    from liit.demo.vlm.architecture import CHAT_TEMPLATE, IMAGE, make_tokenizer

    tokenizer = make_tokenizer([*COLOURS, "What colour is it? How many points are there? Which step?", *STEPS])
    text = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=256, tie_word_embeddings=True, pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id, bos_token_id=None,
    )  # fmt: skip
    vision = CLIPVisionConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=32, patch_size=16,
    )  # fmt: skip
    config = LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=tokenizer.convert_tokens_to_ids(IMAGE),
        vision_feature_layer=-1,
        tie_word_embeddings=True,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = LlavaForConditionalGeneration(config)
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    processor = LlavaProcessor(
        image_processor=CLIPImageProcessor(size={"height": 32, "width": 32}, do_center_crop=False),
        tokenizer=tokenizer,
        patch_size=16,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        image_token=IMAGE,
        chat_template=CHAT_TEMPLATE,
    )
    model.save_pretrained(directory, safe_serialization=True)
    processor.save_pretrained(directory)
    return directory


def write_continuum(root: Path, model: Path, steps: int = 3, **changes: Any) -> Path:
    """Write data and a continuum file.

    Args:
        root: folder of everything but the model.
        model: folder of the model.
        steps: how many of `STEPS`.
        changes: top-level keys of the YAML to replace.

    Returns:
        The YAML file.
    """
    root.mkdir(parents=True, exist_ok=True)
    described = [_write_step(root, number, name) for number, name in enumerate(STEPS[:steps])]
    value = {
        "name": "tiny",
        "seed": 3,
        "budget": BUDGET,
        "method": "adapt-inf",
        "model": {"path": str(model), "max_length": 128},
        "lora": {"r": 4, "alpha": 8, "dropout": 0.05},
        "training": {"epochs": 1, "batch_size": 8, "learning_rate": 0.1},
        "features": {"dim": 64},
        "selection": {"k_grid": [2, 3]},
        "pruning": {"pool_size": 50},
        "evaluation": {"max_new_tokens": 4},
        "steps": described,
        **changes,
    }
    path = root / "continuum.yaml"
    path.write_text(yaml.safe_dump(value, sort_keys=False), encoding="utf-8")
    return path


def _write_step(root: Path, number: int, name: str) -> dict[str, Any]:
    rows = [_row(root, name, number, index, "train") for index in range(ROWS)]
    (root / f"{name}.json").write_text(json.dumps(rows, indent=1), encoding="utf-8")
    skills = {skill: [] for skill in ("colour", "count")}
    for index in range(2 * QUESTIONS):
        row = _row(root, name, number, index, "eval")
        skills[row["skill"]].append(row)
    for skill, questions in skills.items():
        (root / f"{name}-{skill}.json").write_text(json.dumps(questions), encoding="utf-8")
    return {
        "name": name,
        "train": [{"path": f"{name}.json", "images": ".", "source": f"source-{name}"}],
        "evaluation": [
            {"skill": f"{name}-{skill}", "path": f"{name}-{skill}.json", "images": ".", "metric": metric}
            for skill, metric in (("colour", "exact-match"), ("count", "numeric"))
        ],
    }


def _row(root: Path, name: str, number: int, index: int, split: str) -> dict[str, Any]:
    colours = list(COLOURS)
    colour, points = colours[index // 2 % 4], 1 + index % 5
    picture = f"images/{split}-{name}-{index // 2}.png"
    if not (root / picture).is_file():
        _draw(root / picture, COLOURS[colour], points, [number, index // 2, split == "eval"])
    skill = ("colour", "count")[index % 2]
    question = "What colour is it?" if skill == "colour" else "How many points are there?"
    return {
        "id": f"{split}-{name}-{index}",
        "image": picture,
        "skill": skill,
        "conversations": [
            {"from": "human", "value": f"<image>\n{question}"},
            {"from": "gpt", "value": colour if skill == "colour" else str(points)},
        ],
    }


def _draw(path: Path, colour: tuple[int, int, int], points: int, seed: list[int]) -> None:
    rng = np.random.default_rng(seed)
    pixels = np.empty((40, 40, 3), dtype=np.uint8)
    pixels[:] = np.clip(np.asarray(colour) + rng.integers(-20, 20, 3), 0, 255)
    for y, x in rng.integers(2, 34, (points, 2)):
        pixels[y : y + 4, x : x + 4] = 0
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def environment(**more: str) -> dict[str, str]:
    """For a process of its own: this source tree, one thread, no network."""
    path = os.pathsep.join([str(SOURCE), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", **more}


def command(*arguments: str | Path) -> list[str]:
    """The command line of `liit` in a process of its own."""
    return [sys.executable, "-m", "liit", *map(str, arguments)]


def liit(*arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run `liit` in a process of its own."""
    return subprocess.run(
        command(*arguments), capture_output=True, text=True, timeout=300, env=environment(), **options
    )


class PowerCut(BaseException):
    """Not an Exception, so that nothing but `finally` runs."""


@contextmanager
def cut_after(owner: Any, name: str) -> Iterator[None]:
    """The power goes once a function has done its work, which the block must come to."""
    inner = getattr(owner, name)

    def work(*arguments: Any, **options: Any) -> None:
        inner(*arguments, **options)
        raise PowerCut

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, work)
        try:
            yield
        except PowerCut:
            return
    raise AssertionError(f"{name} was not reached")


def listing(root: Path) -> dict[str, bytes | None]:
    """Every file below a folder with its bytes, every folder with None."""
    return {
        str(path.relative_to(root)): path.read_bytes() if path.is_file() else None for path in sorted(root.rglob("*"))
    }


def results(run: Path) -> dict[str, Any]:
    """What two equal runs have equal: every file that holds no time and no path, and what is in the pool."""
    import pyarrow.parquet as pq

    from liit.data.pool import Pool

    found: dict[str, Any] = {"run.json": (run / "run.json").read_bytes()}
    for path in sorted((run / "steps").rglob("*")):
        name = str(path.relative_to(run))
        if path.suffix == ".parquet":
            found[name] = pq.read_table(path).to_pydict()
        elif path.is_file() and not {"features", "queries"} & set(path.parts):
            found[name] = path.read_bytes()
    for path in sorted([*(run / "steps").glob("*/features"), *(run / "steps").glob("*/queries")]):
        found[f"{path.parent.name}/{path.name}"] = features(path)
    pool = Pool.open(run / "pool")
    found["pool"] = {
        "samples": pool.columns(["row", "id", "source", "skill", "content_hash", "raw"]).to_pydict(),
        "ledger": pool.ledger().to_pydict(),
        "quarantine": pool.quarantine().to_pydict(),
        "log": [{k: v for k, v in commit.items() if k in ("version", "kind", "key", "rows")} for commit in pool.log()],
    }
    return found


def features(path: Path) -> dict[str, bytes]:
    """The columns of a feature store, as bytes."""
    from liit.features.store import FeatureStore

    store = FeatureStore(path)
    return {name: np.ascontiguousarray(store[name]).tobytes() for name in store}


def differing(one: Path, other: Path) -> list[str]:
    """Names of the results in which two runs differ."""
    first, second = results(one), results(other)
    return sorted(name for name in {*first, *second} if first.get(name) != second.get(name))


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Keeps what the tests compute out of the user's cache."""
    before, directory = os.environ.get("LIIT_CACHE"), tmp_path_factory.mktemp("cache")
    os.environ["LIIT_CACHE"] = str(directory)
    yield directory
    if before is None:
        del os.environ["LIIT_CACHE"]
    else:
        os.environ["LIIT_CACHE"] = before


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The model's folder. From here on arithmetic has one thread, like that of the processes that tests start."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    directory = write_model(tmp_path_factory.mktemp("model"))
    gc.freeze()  # the Trainer collects garbage after every training: let it skip the libraries
    yield directory
    gc.unfreeze()
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def continuum(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Path:
    """The continuum file; tests must not change what lies around it."""
    return write_continuum(tmp_path_factory.mktemp("continuum"), model)


@dataclass(frozen=True)
class Said:
    """What a command left: its exit code, and what it printed."""

    code: int
    out: str
    err: str


def here(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> Said:
    """Run the command line in this process: the libraries are loaded already, so it is fast."""
    from liit.cli import main

    capsys.readouterr()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["liit", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            main()
    printed = capsys.readouterr()
    assert isinstance(left.value.code, int)
    return Said(left.value.code, printed.out, printed.err)


def card_of_worker(continuum: Any, rows: Any) -> int:
    """Work for `in_processes`: the number of the process's GPU, once the others have had time to start too."""
    time.sleep(0.5)
    return int(os.environ["CUDA_VISIBLE_DEVICES"]) * len(rows)
