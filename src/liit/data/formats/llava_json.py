"""LLaVA JSON: `{"id", "image": path or list, "conversations": [{"from": "human" | "gpt" | "system", "value"}]}`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from liit.data.formats.fields import conversation, image_column, image_sources, turns_column, turns_of
from liit.data.formats.registry import Draft, Format, register_format
from liit.data.sample import Role, Sample

if TYPE_CHECKING:
    import pyarrow as pa

ROLES: dict[str, Role] = {"human": "user", "gpt": "assistant", "system": "system"}


def parse(row: Mapping[str, Any]) -> Draft:
    """Read one LLaVA row.

    Args:
        row: The JSON object; `image` may be missing for a text-only one.

    Returns:
        Its id, messages and images; texts are kept to the letter.

    Raises:
        RowError: `conversations` or `image` has the wrong shape, or a speaker is unknown.
    """
    messages = turns_of(row.get("conversations"), "conversations", [("from", "value")], ROLES)
    return Draft(row.get("id"), messages, image_sources(row.get("image")), row)


def render(sample: Sample, images: Sequence[Any]) -> dict[str, Any]:
    """Write one LLaVA row; `image` is a text for one image and a list for several."""
    row: dict[str, Any] = {"id": sample.id}
    if images:
        row["image"] = images[0] if len(images) == 1 and isinstance(images[0], str) else list(images)
    row["conversations"] = conversation(sample.messages)
    return row | ({"skill": sample.skill} if sample.skill else {})


def columns() -> pa.Schema:
    """Columns of a Parquet file of LLaVA rows."""
    import pyarrow as pa

    text = pa.string()
    return pa.schema(
        [("id", text), ("image", pa.list_(image_column())), ("conversations", turns_column()), ("skill", text)]
    )


register_format(
    Format(
        "llava-json", "LLaVA: image + conversations; .json list, .jsonl or .parquet",
        parse, render, ("json", "parquet"), columns=columns,
    )
)  # fmt: skip
