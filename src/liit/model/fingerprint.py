"""Hashes that say whether two things are the same: weights, templates, settings."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

BLOCK = 1 << 20


def hash_file(path: Path) -> str:
    """SHA-256 of a file's bytes, as hex."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def hash_directory(path: Path) -> str:
    """SHA-256 over a model directory's configuration and weight files (names and bytes), as hex."""
    digest = hashlib.sha256()
    for file in sorted(path.iterdir()):
        if file.name == "config.json" or file.suffix == ".safetensors":
            digest.update(file.name.encode() + b"\0" + hash_file(file).encode())
    return digest.hexdigest()


def hash_settings(settings: Mapping[str, Any]) -> str:
    """SHA-256 of a JSON-serialisable mapping, independent of the order of its keys, as hex."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True, ensure_ascii=True).encode()).hexdigest()
