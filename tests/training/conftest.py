"""Lets the tests of this folder import `toy`, which only they use, and keeps the Trainer's start short."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session", autouse=True)
def frozen() -> Iterator[None]:
    """The Trainer collects garbage before every training: let it skip the libraries."""
    import transformers  # noqa: F401

    gc.freeze()
    yield
    gc.unfreeze()
