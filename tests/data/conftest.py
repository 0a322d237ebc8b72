"""Pools, pictures and samples for the tests of the data package."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # conversations.py

from conversations import TALKS

from liit.data.pool import Pool
from liit.data.sample import ImageRef, Message, Sample

MakeSamples = Callable[..., list[Sample]]


@pytest.fixture
def pool(tmp_path: Path) -> Pool:
    return Pool.create(tmp_path / "pool")


@pytest.fixture
def pictures(tmp_path: Path, make_image) -> list[Path]:
    folder = tmp_path / "pictures"
    return [make_image(folder / "0.png", seed=0), make_image(folder / "1.jpg", seed=1)]


@pytest.fixture
def talks(pictures: list[Path]) -> MakeSamples:
    """`talks("text", "one", held=False)`: samples that show the pictures, by reference or by value."""
    from liit.data.images import ImageChecker

    def make(*names: str, held: bool = False) -> list[Sample]:
        checker, found = ImageChecker(), []
        for name in names or TALKS:
            count, turns = TALKS[name]
            images: list[ImageRef] = [
                checker.from_bytes(path.read_bytes(), path.name) if held else checker.from_file(str(path))
                for path in pictures[:count]
            ]
            messages = tuple(Message(role, text) for role, text in turns)  # type: ignore[arg-type]
            found.append(Sample(name, messages, tuple(images), "s", f"skill-{count}"))
        return found

    return make
