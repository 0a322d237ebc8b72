"""LLaVA JSON: `{"id", "image": path or list, "conversations": [{"from": "human" | "gpt" | "system", "value"}]}`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from liit.data.readers.registry import Draft, ImageSource, register_format
from liit.data.sample import Message, Role
from liit.data.validate import RowError

ROLES: dict[str, Role] = {"human": "user", "gpt": "assistant", "system": "system"}


@register_format("llava-json", "LLaVA: image + conversations, a .json list or .jsonl")
def parse(row: Mapping[str, Any]) -> Draft:
    """Read one LLaVA row.

    Args:
        row: The JSON object.

    Returns:
        Its id, messages and image paths; texts are kept to the letter.

    Raises:
        RowError: `conversations` or `image` has the wrong shape, or a speaker is unknown.
    """
    turns = row.get("conversations")
    if not isinstance(turns, list):
        raise RowError("bad-messages", f"conversations is {type(turns).__name__}; expected a list")
    return Draft(row.get("id"), tuple(_message(turn, n) for n, turn in enumerate(turns, 1)), _images(row.get("image")))


def _message(turn: object, number: int) -> Message:
    if not isinstance(turn, Mapping):
        raise RowError(
            "bad-messages", f"turn {number} is {type(turn).__name__}; expected an object with from and value"
        )
    role, text = turn.get("from"), turn.get("value")
    if not isinstance(role, str) or role not in ROLES:
        raise RowError("bad-role", f"turn {number} is from {str(role)[:40]!r}; expected {', '.join(ROLES)}")
    if not isinstance(text, str):
        raise RowError("bad-messages", f"turn {number}: value is {type(text).__name__}; expected a text")
    return Message(ROLES[role], text)


def _images(value: object) -> tuple[ImageSource, ...]:
    if value is None or value == "":
        return ()
    return tuple(map(_image, value if isinstance(value, list) else [value]))


def _image(path: object) -> ImageSource:
    if not isinstance(path, str):
        raise RowError("bad-images", f"image is {type(path).__name__}; expected a path or a list of paths")
    return ImageSource(path)
