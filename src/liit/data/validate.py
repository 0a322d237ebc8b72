"""What makes a row fit for training, and the reasons it is set aside when it is not."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from liit.data.images import ImageError
from liit.data.sample import IMAGE_TAG, Message, Sample

_SPEAKERS = ("user", "assistant")

REASONS: dict[str, str] = {
    "not-json": "the row is not valid JSON",
    "not-utf8": "the row is not valid UTF-8 text",
    "not-an-object": "the row is not a JSON object",
    "bad-id": "the id is neither a text nor an integer, or is empty",
    "id-conflict": "another row with other content has this id",
    "bad-skill": "the skill label is not a text",
    "bad-messages": "the conversation is missing or has the wrong shape",
    "bad-role": "a speaker is unknown",
    "roles-not-alternating": "user and assistant do not take turns, user first",
    "no-answer": "the conversation does not end with an assistant answer that is not empty",
    "bad-text": "a text contains a lone surrogate or a NUL character",
    "image-tags": "the number of <image> tags differs from the number of images",
    "image-in-answer": "an assistant answer contains an <image> tag",
    "bad-images": "the images of the row have the wrong shape",
    "image-missing": "an image file does not exist",
    "image-not-a-file": "an image path is a folder, pipe or device",
    "image-unreadable": "an image file cannot be read",
    "image-undecodable": "an image file is not an image or is damaged",
    "image-too-large": "an image has too many pixels or bytes",
    "image-outside-root": "an image path leads out of the image folder",
    "image-is-url": "an image is a URL",
    "member-outside": "the name of a tar member leads out of the tar",
    "member-not-a-file": "a tar member is a link or a device",
    "row-too-large": "the row has too many bytes",
}
"""Every reason code of the quarantine table, with its meaning."""


class RowError(Exception):
    """A row that is set aside: `reason` is a key of `REASONS`, `detail` says what was found."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail

    @classmethod
    def from_image(cls, problem: ImageError) -> RowError:
        """The row whose image has this problem."""
        return cls(problem.reason, problem.detail)


def check_id(value: object) -> str | None:
    """Bring an id to a string.

    Args:
        value: The id of the row: a string, an integer, or None when the row has none.

    Returns:
        The id, or None when it must be made from the content.

    Raises:
        RowError: Another type, an empty string, or invalid text.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise RowError("bad-id", f"id is {_short(value)}; expected a text or an integer")
    try:
        text = str(value)
    except ValueError as error:  # an integer of more than 4300 digits
        raise RowError("bad-id", f"id: {error}") from error
    if not text.strip():
        raise RowError("bad-id", "id is empty; leave it out to have one made from the content")
    check_text(text, "id")
    return text


def check_text(text: str, what: str) -> None:
    """Refuse text that no tokenizer or file can hold.

    Args:
        text: The text.
        what: Its name in the error.

    Raises:
        RowError: A lone surrogate or a NUL character.
    """
    if "\0" in text:
        raise RowError("bad-text", f"{what} contains a NUL character at position {text.index(chr(0))}")
    if text.isascii():
        return
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise RowError("bad-text", f"{what} contains a lone surrogate at position {error.start}") from error


def check_messages(messages: Sequence[Message], images: int) -> None:
    """Check the shape of a conversation: turns, answer, text, and one ``<image>`` tag per image.

    Args:
        messages: The conversation.
        images: Number of images of the row.

    Raises:
        RowError: With the first thing that is wrong.
    """
    if not messages:
        raise RowError("bad-messages", "the conversation is empty")
    turns = messages[1:] if messages[0].role == "system" else messages
    for position, message in enumerate(turns):
        expected = _SPEAKERS[position % 2]
        if message.role != expected:
            raise RowError("roles-not-alternating", f"turn {position + 1} is {message.role}, expected {expected}")
    if not turns or turns[-1].role != "assistant":
        raise RowError("no-answer", "the conversation does not end with an assistant answer")
    if not turns[-1].text.strip():
        raise RowError("no-answer", "the last assistant answer is empty")
    for position, message in enumerate(messages):
        check_text(message.text, f"message {position + 1}")
        if message.role == "assistant" and IMAGE_TAG in message.text:
            raise RowError("image-in-answer", f"message {position + 1} is an answer and contains {IMAGE_TAG}")
    tags = sum(message.text.count(IMAGE_TAG) for message in messages)
    if tags != images:
        raise RowError("image-tags", f"{tags} {IMAGE_TAG} tags for {images} images")


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def check_sample(sample: Sample) -> None:
    """Check a sample made by a program as a row of a file would be; its images are not opened.

    Args:
        sample: The sample.

    Raises:
        RowError: With the first thing that is wrong.
    """
    if not isinstance(sample.id, str) or not sample.id.strip():
        raise RowError("bad-id", f"id is {_short(sample.id)}; expected a text that is not empty")
    for name in ("id", "source", "skill", "raw", "format", "form"):
        check_text(getattr(sample, name), name)
    unknown = next((message.role for message in sample.messages if message.role not in ("system", *_SPEAKERS)), None)
    if unknown is not None:
        raise RowError("bad-role", f"role {_short(unknown)}; expected system, user or assistant")
    for image in sample.images:
        if not re.fullmatch("[0-9a-f]{64}", image.sha256):
            raise RowError("bad-images", f"sha256 {_short(image.sha256)} of an image is not 64 hexadecimal digits")
        if not image.held and not Path(image.path).is_absolute():
            raise RowError("bad-images", f"image path {_short(image.path)} is not absolute")
    check_messages(sample.messages, len(sample.images))
