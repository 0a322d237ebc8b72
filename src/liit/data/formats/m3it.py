"""M3IT: `{"instruction", "inputs", "outputs", "image_base64_str": [base64, ...]}`, one turn a row.

The question is the instruction and, on the next line, the inputs, if there are any. The images come first, each on a
line of its own, unless the text has ``<image>`` tags.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from liit.data.formats.fields import base64_image, image_sources
from liit.data.formats.registry import Draft, Format, register_format
from liit.data.sample import IMAGE_TAG, Message, Sample
from liit.data.validate import RowError
from liit.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa

_LINE = IMAGE_TAG + "\n"


def parse(row: Mapping[str, Any]) -> Draft:
    """Read one M3IT row.

    Args:
        row: The row; `inputs`, `image_base64_str` and `id` may be missing.

    Returns:
        Its id, one question and answer, and its images.

    Raises:
        RowError: A field has the wrong type, or an image is not base64.
    """
    instruction, inputs, outputs = (_text(row, key) for key in ("instruction", "inputs", "outputs"))
    if not instruction and not inputs:
        raise RowError("bad-messages", "instruction and inputs are empty; expected a question")
    value = row.get("image_base64_str")
    images = tuple(map(base64_image, value if isinstance(value, list) else [value] if value else []))
    images += image_sources(row.get("images"))  # where such rows lie in a tar, their pictures are members
    question = "\n".join(filter(None, (instruction, inputs)))
    if IMAGE_TAG not in question:
        question = _LINE * len(images) + question
    return Draft(row.get("id"), (Message("user", question), Message("assistant", outputs)), images, row)


def _text(row: Mapping[str, Any], key: str) -> str:
    value = row.get(key)
    if value is None and key != "outputs":
        return ""
    if not isinstance(value, str):
        raise RowError("bad-messages", f"{key} is {type(value).__name__}; expected a text")
    return value


def render(sample: Sample, images: Sequence[Any]) -> dict[str, Any]:
    """Write one M3IT row.

    Raises:
        InputError: The sample has a system message or several turns, which M3IT has no place for.
    """
    if [message.role for message in sample.messages] != ["user", "assistant"]:
        raise InputError(
            f"format: sample {sample.id!r} has a system message or several turns, and m3it holds one question and "
            "answer; write it as llava-json, messages or sharegpt"
        )
    question, answer = (message.text for message in sample.messages)
    head = _LINE * len(images)
    plain = question.removeprefix(head)
    instruction = plain if images and IMAGE_TAG not in plain and plain else question
    row = {"id": sample.id, "instruction": instruction, "inputs": "", "outputs": answer}
    return row | {"image_base64_str": list(images)} | ({"skill": sample.skill} if sample.skill else {})


def columns() -> pa.Schema:
    """Columns of a Parquet file of M3IT rows."""
    import pyarrow as pa

    names = ("id", "instruction", "inputs", "outputs")
    images = pa.list_(pa.string())
    return pa.schema([*((name, pa.string()) for name in names), ("image_base64_str", images), ("skill", pa.string())])


register_format(
    Format(
        "m3it", "M3IT: instruction, inputs, outputs and base64 images; .jsonl, .json list or .parquet",
        parse, render, ("json", "parquet"), "base64", columns,
    )
)  # fmt: skip
