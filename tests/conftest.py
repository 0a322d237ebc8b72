"""Fixtures every package's tests may use: tiny real images, and a LLaVA dataset made of them."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))  # so that tests find tiny_vlm.py, whose fixtures all of them may use
pytest_plugins = ["tiny_vlm"]

# A test must not fail because the machine is busy.
settings.register_profile("liit", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("liit")

MakeImage = Callable[..., Path]
MakeDataset = Callable[..., Path]


@pytest.fixture
def make_image() -> MakeImage:
    """Writes a small random PNG (or what the suffix says): `make_image(path, seed=0, size=(8, 8))`."""

    def make(path: Path, seed: int = 0, size: tuple[int, int] = (8, 8), mode: str = "RGB") -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        channels = {"RGB": 3, "RGBA": 4, "L": 1}[mode]
        pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], channels), dtype=np.uint8)
        Image.fromarray(pixels[:, :, 0] if channels == 1 else pixels).save(path)
        return path

    return make


@pytest.fixture
def llava_row() -> Callable[..., dict[str, Any]]:
    """One LLaVA row: `llava_row(id, image="a.png" | [..] | None, question=..., answer=..., **more keys)`."""

    def make(
        id: object, image: Any = None, question: str = "What is it?", answer: str = "a cat", **more: Any
    ) -> dict[str, Any]:
        count = 0 if image is None else len(image) if isinstance(image, list) else 1
        row: dict[str, Any] = {"id": id, **({} if image is None else {"image": image}), **more}
        tags = "<image>\n" * count
        row["conversations"] = [{"from": "human", "value": tags + question}, {"from": "gpt", "value": answer}]
        return row

    return make


@pytest.fixture
def llava_dataset(
    tmp_path: Path, make_image: MakeImage, llava_row: Callable[..., dict[str, Any]]
) -> Callable[..., Path]:
    """A dataset of `count` good rows on `count // 2 + 1` images: `llava_dataset(count, name="d.json")` -> its file."""

    def make(count: int, name: str = "d.json", prefix: str = "") -> Path:
        pictures = count // 2 + 1
        for number in range(pictures):
            make_image(tmp_path / "images" / f"{number}.png", seed=number)
        rows = [
            llava_row(f"{prefix}{n}", f"images/{n % pictures}.png", f"What is number {n}?", skill=f"skill-{n % 3}")
            for n in range(count)
        ]
        path = tmp_path / name
        path.write_text(json.dumps(rows, indent=1), encoding="utf-8")
        return path

    return make
