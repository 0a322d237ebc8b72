"""ShareGPT: `{"conversations": [{"from", "value"}], "images": [...], "system"}`, as LLaMA-Factory and others write it.

Speakers go by many names (human, user; gpt, assistant, chatgpt, model, ...), some files have `role` and `content`
instead of `from` and `value`, and the system message may be a field of its own. The images are a list, `images`, or
one path, `image` (ShareGPT4V); the texts have an ``<image>`` tag for each, or none, and they go first then.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from liit.data.formats.fields import (
    conversation,
    image_column,
    image_sources,
    images_placed,
    turns_column,
    turns_of,
)  # fmt: skip
from liit.data.formats.registry import Draft, Format, register_format
from liit.data.sample import Message, Role, Sample
from liit.data.validate import RowError

if TYPE_CHECKING:
    import pyarrow as pa

ROLES: dict[str, Role] = {
    "human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "chatgpt": "assistant",
    "bing": "assistant", "bard": "assistant", "model": "assistant", "system": "system",
}  # fmt: skip


def parse(row: Mapping[str, Any]) -> Draft:
    """Read one ShareGPT row.

    Args:
        row: The row.

    Returns:
        Its id, messages and images.

    Raises:
        RowError: `conversations`, `images` or `system` has the wrong shape, or a speaker is unknown (calls of tools
            among them).
    """
    messages = turns_of(row.get("conversations"), "conversations", [("from", "value"), ("role", "content")], ROLES)
    system = row.get("system")
    if system is not None and not isinstance(system, str):
        raise RowError("bad-messages", f"system is {type(system).__name__}; expected a text")
    if system and not (messages and messages[0].role == "system"):
        messages = (Message("system", system), *messages)
    images = image_sources(row["images"] if row.get("images") is not None else row.get("image"))
    return Draft(row.get("id"), images_placed(messages, len(images)), images, row)


def render(sample: Sample, images: Sequence[Any]) -> dict[str, Any]:
    """Write one ShareGPT row; the system message is a turn."""
    row: dict[str, Any] = {"id": sample.id, "conversations": conversation(sample.messages), "images": list(images)}
    return row | ({"skill": sample.skill} if sample.skill else {})


def columns() -> pa.Schema:
    """Columns of a Parquet file of ShareGPT rows."""
    import pyarrow as pa

    text = pa.string()
    return pa.schema(
        [("id", text), ("conversations", turns_column()), ("images", pa.list_(image_column())), ("skill", text)]
    )


register_format(
    Format(
        "sharegpt", "ShareGPT: conversations + images list; .json list, .jsonl or .parquet",
        parse, render, ("json", "parquet"), columns=columns,
    )
)  # fmt: skip
