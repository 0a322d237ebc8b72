"""The parts that formats share: images as rows name them, speakers, and where images go that nobody placed."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from liit.data.formats.registry import ImageSource
from liit.data.sample import IMAGE_TAG, Message, Role
from liit.data.validate import RowError

if TYPE_CHECKING:
    import pyarrow as pa

SPEAKERS: dict[Role, str] = {"user": "human", "assistant": "gpt", "system": "system"}


def image_sources(value: object) -> tuple[ImageSource, ...]:
    """Images of a row: one or a list of paths, `data:` URIs, bytes, or what `datasets` writes, `{"bytes", "path"}`.

    Args:
        value: The row's field; None and "" mean no image.

    Returns:
        The images, in order.

    Raises:
        RowError: Something else.
    """
    if value is None or (isinstance(value, str) and not value):
        return ()
    return tuple(map(_image_source, value if isinstance(value, list) else [value]))


def _image_source(item: object) -> ImageSource:
    if isinstance(item, str):
        return _data_uri(item) if item.startswith("data:") else ImageSource(item)
    if isinstance(item, bytes):
        return ImageSource(data=item)
    if isinstance(item, Mapping):
        data, path = item.get("bytes"), item.get("path")
        if isinstance(data, bytes):
            return ImageSource(path if isinstance(path, str) else "", data)
        if data is None and isinstance(path, str):
            return ImageSource(path)
    raise RowError("bad-images", f"an image is {type(item).__name__}; expected a path, or bytes and path")


def _data_uri(uri: str) -> ImageSource:
    head, comma, text = uri.partition(",")
    if not comma or not head.endswith(";base64"):
        raise RowError("bad-images", f"{uri[:60]!r} is a data URI without base64; expected data:image/...;base64,...")
    return base64_image(text)


def base64_image(text: object) -> ImageSource:
    """An image given as base64 text.

    Args:
        text: The text; spaces and line breaks in it do not count.

    Returns:
        The image, with the text when decoding and encoding gives the same text.

    Raises:
        RowError: Not a text, or not base64.
    """
    if not isinstance(text, str):
        raise RowError("bad-images", f"an image is {type(text).__name__}; expected base64 text")
    try:
        plain = text if text.isascii() and " " not in text and "\n" not in text else "".join(text.split())
        data = base64.b64decode(plain, validate=True)
    except (binascii.Error, ValueError) as error:
        raise RowError("bad-images", f"an image is not base64: {error}") from error
    return ImageSource(data=data, base64=text if base64.b64encode(data).decode("ascii") == text else "")


def turns_of(
    value: object, name: str, keys: Sequence[tuple[str, str]], roles: Mapping[str, Role]
) -> tuple[Message, ...]:
    """Read a list of turns.

    Args:
        value: The list.
        name: Its key, for errors.
        keys: Pairs of keys under which a turn may have its speaker and its text; the first that is there counts.
        roles: Speakers and the roles they stand for.

    Returns:
        The messages, texts to the letter.

    Raises:
        RowError: Another shape, or an unknown speaker.
    """
    if not isinstance(value, list):
        raise RowError("bad-messages", f"{name} is {type(value).__name__}; expected a list")
    return tuple(_turn(turn, number, keys, roles) for number, turn in enumerate(value, 1))


def _turn(turn: object, number: int, keys: Sequence[tuple[str, str]], roles: Mapping[str, Role]) -> Message:
    if not isinstance(turn, Mapping):
        wanted = " and ".join(keys[0])
        raise RowError("bad-messages", f"turn {number} is {type(turn).__name__}; expected an object with {wanted}")
    who, what = next((pair for pair in keys if pair[0] in turn), keys[0])
    role, text = turn.get(who), turn.get(what)
    if not isinstance(role, str) or role not in roles:
        raise RowError("bad-role", f"turn {number} is from {str(role)[:40]!r}; expected {', '.join(roles)}")
    if not isinstance(text, str):
        raise RowError("bad-messages", f"turn {number}: {what} is {type(text).__name__}; expected a text")
    return Message(roles[role], text)


def images_placed(messages: tuple[Message, ...], count: int) -> tuple[Message, ...]:
    """Put the tags of images that no message places before the first user message, as TRL does.

    Args:
        messages: The conversation.
        count: Number of images.

    Returns:
        The conversation, unchanged when it has a tag or there is no image.
    """
    if not count or any(IMAGE_TAG in message.text for message in messages):
        return messages
    for place, message in enumerate(messages):
        if message.role == "user":
            first = Message("user", IMAGE_TAG * count + message.text)
            return (*messages[:place], first, *messages[place + 1 :])
    return messages


def conversation(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Messages as LLaVA and ShareGPT write them."""
    return [{"from": SPEAKERS[message.role], "value": message.text} for message in messages]


def image_column() -> pa.DataType:
    """The type of one image in a Parquet column, as `datasets` has it."""
    import pyarrow as pa

    return pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def turns_column() -> pa.DataType:
    """The type of a conversation in a Parquet column, as LLaVA and ShareGPT write it."""
    import pyarrow as pa

    return pa.list_(pa.struct([("from", pa.string()), ("value", pa.string())]))
