"""One question with its answer, and the two file formats in which the steps are delivered."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np

T = TypeVar("T")
Split = Literal["train", "eval", "base", "dev"]
STREAM: dict[Split, int] = {"train": 0, "eval": 1, "base": 2, "dev": 3}


@dataclass(frozen=True, slots=True)
class Row:
    """A question about zero or more pictures and its answer.

    Args:
        skill: Label by which results are reported.
        question: The user's words, without image tags.
        answer: The assistant's words.
        images: File names of the pictures, in the order in which they are shown.
    """

    skill: str
    question: str
    answer: str
    images: tuple[str, ...] = ()


def stream(seed: int, split: Split, name: str) -> np.random.Generator:
    """Return the random generator of one builder; splits and builders never share one.

    Args:
        seed: Seed of the whole continuum.
        split: Which rows are made.
        name: Name of the builder.
    """
    return np.random.default_rng([seed, STREAM[split], *name.encode()])


def pick(rng: np.random.Generator, items: Sequence[T]) -> T:
    """Return one item, uniformly."""
    return items[int(rng.integers(len(items)))]


def pick_some(rng: np.random.Generator, items: Sequence[T], n: int) -> list[T]:
    """Return `n` different items in random order.

    Raises:
        ValueError: If `items` holds fewer than `n`.
    """
    if n > len(items):
        raise ValueError(f"wanted {n} different items of {len(items)}")
    return [items[int(i)] for i in rng.permutation(len(items))[:n]]


def cycle(rng: np.random.Generator, items: Sequence[T], n: int) -> list[T]:
    """Return `n` items, every item equally often (give or take one), in random order round by round."""
    rounds = [pick_some(rng, items, len(items)) for _ in range(-(-n // len(items)))]
    return [item for one_round in rounds for item in one_round][:n]


def spread(total: int, pictures: int) -> list[int]:
    """Share `total` questions among `pictures` as evenly as possible, the first ones getting one more."""
    low, more = divmod(total, pictures)
    return [low + (i < more) for i in range(pictures)]


def llava_json(row: Row, row_id: str) -> dict[str, Any]:
    """Return the row in the LLaVA JSON format (`image` is a string, a list, or absent)."""
    record: dict[str, Any] = {"id": row_id}
    if row.images:
        record["image"] = row.images[0] if len(row.images) == 1 else list(row.images)
    record["conversations"] = [
        {"from": "human", "value": "<image>\n" * len(row.images) + row.question},
        {"from": "gpt", "value": row.answer},
    ]
    record["skill"] = row.skill
    return record


def messages(row: Row, row_id: str) -> dict[str, Any]:
    """Return the row in the Hugging Face `messages` + `images` format."""
    content: list[dict[str, str]] = [{"type": "image"} for _ in row.images]
    content.append({"type": "text", "text": row.question})
    return {
        "id": row_id,
        "messages": [
            {"role": "user", "content": content},
            {"role": "assistant", "content": [{"type": "text", "text": row.answer}]},
        ],
        "images": list(row.images),
        "skill": row.skill,
    }


def write_llava(path: Path, rows: Iterable[tuple[str, Row]]) -> None:
    """Write rows with their ids as one JSON list, one row per line."""
    lines = ",\n".join(json.dumps(llava_json(row, row_id), ensure_ascii=False) for row_id, row in rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"[\n{lines}\n]\n", encoding="utf-8")


def write_messages(path: Path, rows: Iterable[tuple[str, Row]]) -> None:
    """Write rows with their ids as JSON lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(messages(row, row_id), ensure_ascii=False) + "\n" for row_id, row in rows]
    path.write_text("".join(lines), encoding="utf-8")
