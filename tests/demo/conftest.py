from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from liit.demo.continuum import build_continuum


@dataclass(frozen=True)
class Question:
    """A row as read back from the files."""

    id: str
    skill: str
    question: str
    answer: str
    images: tuple[str, ...]


def read(path: Path) -> list[Question]:
    """Read a file of either format without the package's readers."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".jsonl":
        rows = [json.loads(line) for line in text.splitlines()]
        return [
            Question(
                row["id"],
                row["skill"],
                row["messages"][0]["content"][-1]["text"],
                row["messages"][1]["content"][0]["text"],
                tuple(row["images"]),
            )
            for row in rows
        ]
    out = []
    for row in json.loads(text):
        images = row.get("image", [])
        human, gpt = row["conversations"]
        images = (images,) if isinstance(images, str) else tuple(images)
        assert human["value"].startswith("<image>\n" * len(images))
        out.append(Question(row["id"], row["skill"], human["value"].replace("<image>\n", ""), gpt["value"], images))
    return out


@dataclass(frozen=True)
class Built:
    """A built continuum, read back."""

    root: Path
    config: dict
    manifest: dict
    train: dict[str, list[Question]]
    tests: dict[str, list[Question]]
    dev: dict[str, list[Question]]

    @property
    def pool(self) -> list[Question]:
        """All training rows in the order in which they arrive."""
        return [row for rows in self.train.values() for row in rows]


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    path = build_continuum(tmp_path_factory.mktemp("demo") / "continuum")
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    sets = [entry for step in config["steps"] for entry in step["evaluation"]] + config["unseen"]
    return Built(
        root=path.parent,
        config=config,
        manifest=json.loads((path.parent / "manifest.json").read_text(encoding="utf-8")),
        train={step["name"]: read(path.parent / step["train"][0]["path"]) for step in config["steps"]},
        tests={entry["skill"]: read(path.parent / entry["path"]) for entry in sets},
        dev={file.stem: read(file) for file in sorted((path.parent / "dev").glob("*.json"))},
    )
