"""Rows that do not say what they are, in tars and Parquet: the layout is told by the keys.

`conversations` is ShareGPT (LLaVA among it), `messages` is Hugging Face, `instruction` with `outputs` is M3IT, and
`texts` is The Cauldron: a list of `{"user", "assistant"}` pairs about the row's images.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from liit.data.formats import m3it, messages, sharegpt
from liit.data.formats.fields import image_sources, images_placed
from liit.data.formats.registry import Draft
from liit.data.sample import Message
from liit.data.validate import RowError


def parse_any(row: Mapping[str, Any]) -> Draft:
    """Read a row of one of these layouts.

    Args:
        row: The row.

    Returns:
        Its id, messages and images.

    Raises:
        RowError: It has none of the layouts, or a field has the wrong shape.
    """
    if row.get("conversations") is not None:
        return sharegpt.parse(row)
    if row.get("messages") is not None:
        return messages.parse(row)
    if row.get("texts") is not None:
        return _cauldron(row)
    if "instruction" in row and "outputs" in row:
        return m3it.parse(row)
    names = ", ".join(map(str, row))[:120]
    raise RowError(
        "bad-messages",
        f"the row has {names or 'no keys'}; expected conversations, messages, texts, or instruction and outputs",
    )


def _cauldron(row: Mapping[str, Any]) -> Draft:
    texts = row["texts"]
    if not isinstance(texts, list):
        raise RowError("bad-messages", f"texts is {type(texts).__name__}; expected a list")
    talk: list[Message] = []
    for number, pair in enumerate(texts, 1):
        user, assistant = (pair.get(who) if isinstance(pair, Mapping) else None for who in ("user", "assistant"))
        if not isinstance(user, str) or not isinstance(assistant, str):
            raise RowError("bad-messages", f"pair {number} of texts has no user and assistant text")
        talk += [Message("user", user), Message("assistant", assistant)]
    images = image_sources(row["images"] if row.get("images") is not None else row.get("image"))
    return Draft(row.get("id"), images_placed(tuple(talk), len(images)), images, row)
