"""Hugging Face rows: `messages` with `role` and `content`, `images` beside them; JSON, JSON lines or Parquet.

`content` is a string, or a list of parts `{"type": "text", "text": ...}` and `{"type": "image"}`. A text part is kept
as it stands; an image part becomes an ``<image>`` tag. Images are what `datasets` writes, `{"bytes", "path"}`, or
paths. When no message says where the images go (no image part, no tag), they go before the first user message, the
convention of TRL (`prepare_multimodal_messages`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from liit.data.readers.registry import Draft, ImageSource, register_format
from liit.data.sample import IMAGE_TAG, Message, Role
from liit.data.validate import RowError

ROLES: dict[str, Role] = {"user": "user", "assistant": "assistant", "system": "system"}


@register_format("messages", "Hugging Face: messages + images, .json, .jsonl or .parquet")
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
    messages = [_message(turn, number) for number, turn in enumerate(turns, 1)]
    images = _images(row["images"] if row.get("images") is not None else row.get("image"))
    if images and not any(IMAGE_TAG in message.text for message in messages):
        messages = _images_first(messages, len(images))
    return Draft(row.get("id"), tuple(messages), images)


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


def _images(value: object) -> tuple[ImageSource, ...]:
    if value is None:
        return ()
    return tuple(_image(item) for item in (value if isinstance(value, list) else [value]))


def _image(item: object) -> ImageSource:
    if isinstance(item, str):
        return ImageSource(item)
    if isinstance(item, bytes):
        return ImageSource(data=item)
    if isinstance(item, Mapping):
        data, path = item.get("bytes"), item.get("path")
        if isinstance(data, bytes):
            return ImageSource(path if isinstance(path, str) else "", data)
        if data is None and isinstance(path, str):
            return ImageSource(path)
    raise RowError("bad-images", f"an image is {type(item).__name__}; expected a path, or bytes and path")


def _images_first(messages: list[Message], count: int) -> list[Message]:
    for place, message in enumerate(messages):
        if message.role == "user":
            first = Message("user", IMAGE_TAG * count + message.text)
            return [*messages[:place], first, *messages[place + 1 :]]
    return messages
