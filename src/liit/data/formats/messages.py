"""Hugging Face rows: `messages` with `role` and `content`, `images` beside them; JSON, JSON lines or Parquet.

`content` is a string, or a list of parts `{"type": "text", "text": ...}` and `{"type": "image"}`. A text part is kept
as it stands; an image part becomes an ``<image>`` tag. Images are what `datasets` writes, `{"bytes", "path"}`, or
paths. When no message says where the images go (no image part, no tag), they go before the first user message, the
convention of TRL (`prepare_multimodal_messages`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from liit.data.formats.fields import image_column, image_sources, images_placed
from liit.data.formats.registry import Draft, Format, register_format
from liit.data.sample import IMAGE_TAG, Message, Role, Sample
from liit.data.validate import RowError

if TYPE_CHECKING:
    import pyarrow as pa

ROLES: dict[str, Role] = {"user": "user", "assistant": "assistant", "system": "system"}


def parse(row: Mapping[str, Any]) -> Draft:
    """Read one `messages` row.

    Args:
        row: The row; `images` may be missing for a text-only one.

    Returns:
        Its id, messages and images.

    Raises:
        RowError: `messages` or `images` has the wrong shape, or a role is unknown.
    """
    turns = row.get("messages")
    if not isinstance(turns, list):
        raise RowError("bad-messages", f"messages is {type(turns).__name__}; expected a list")
    images = image_sources(row["images"] if row.get("images") is not None else row.get("image"))
    messages = tuple(_message(turn, number) for number, turn in enumerate(turns, 1))
    return Draft(row.get("id"), images_placed(messages, len(images)), images, row)


def _message(turn: object, number: int) -> Message:
    if not isinstance(turn, Mapping):
        raise RowError("bad-messages", f"message {number} is {type(turn).__name__}; expected role and content")
    role = turn.get("role")
    if not isinstance(role, str) or role not in ROLES:
        raise RowError("bad-role", f"message {number} has role {str(role)[:40]!r}; expected {', '.join(ROLES)}")
    content = turn.get("content")
    if isinstance(content, str):
        return Message(ROLES[role], content)
    if isinstance(content, list):
        return Message(ROLES[role], "".join(_part(part, number) for part in content))
    raise RowError("bad-messages", f"message {number}: content is {type(content).__name__}; expected a text or parts")


def _part(part: object, number: int) -> str:
    kind = part.get("type") if isinstance(part, Mapping) else None
    if isinstance(part, Mapping) and kind == "text" and isinstance(part.get("text"), str):
        return str(part["text"])
    if isinstance(part, Mapping) and kind == "image":
        # An image inside the part would not be among `images`; leaving it out silently would train on a blind row.
        inline = next((key for key in ("image", "url", "path", "base64") if part.get(key) is not None), None)
        if inline:
            raise RowError("bad-images", f"message {number} holds an image in {inline!r}; put it in the images column")
        return IMAGE_TAG
    raise RowError("bad-messages", f"message {number} has a part of type {str(kind)[:40]!r}; expected text or image")


def render(sample: Sample, images: Sequence[Any]) -> dict[str, Any]:
    """Write one `messages` row; contents are lists of parts, with an image part where each image goes."""
    row: dict[str, Any] = {"id": sample.id, "messages": [_turn(message) for message in sample.messages]}
    return row | {"images": list(images)} | ({"skill": sample.skill} if sample.skill else {})


def _turn(message: Message) -> dict[str, Any]:
    parts: list[dict[str, Any]] = []
    for number, text in enumerate(message.text.split(IMAGE_TAG)):
        if number:
            parts.append({"type": "image", "text": None})
        if text or message.text == "":
            parts.append({"type": "text", "text": text})
    return {"role": message.role, "content": parts}


def columns() -> pa.Schema:
    """Columns of a Parquet file of `messages` rows."""
    import pyarrow as pa

    text = pa.string()
    part = pa.struct([("type", text), ("text", text)])
    turn = pa.struct([("role", text), ("content", pa.list_(part))])
    images = pa.list_(image_column())
    return pa.schema([("id", text), ("messages", pa.list_(turn)), ("images", images), ("skill", text)])


register_format(
    Format(
        "messages", "Hugging Face: messages + images; .json list, .jsonl or .parquet",
        parse, render, ("json", "parquet"), columns=columns,
    )
)  # fmt: skip
