"""WebDataset: tars of rows; a `json` member holds the conversation, the other members the images.

The json member has any of the layouts `liit.data.formats.layouts` knows. The images are the members that are pictures
(`jpg`, `0.png`, `img1.webp`, ...), in the order in which the json member names them (by kind, or by file name), and in
the order of the tar when it does not. A row without an id has its key as id.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from liit.data.containers.tar import KEY
from liit.data.formats.fields import conversation
from liit.data.formats.layouts import parse_any
from liit.data.formats.registry import Draft, Format, register_format
from liit.data.sample import Sample
from liit.data.validate import RowError

PICTURES = ("jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "ppm", "avif", "jp2", "tga", "ico")


def parse(row: Mapping[str, Any]) -> Draft:
    """Read one row of a tar.

    Args:
        row: Kind of each member to its bytes, and the key.

    Returns:
        Its id, messages and images.

    Raises:
        RowError: There is no json member, it is not a JSON object, or it names images that are not there.
    """
    text = row.get("json")
    if text is None:
        kinds = ", ".join(kind for kind in row if kind != KEY)
        raise RowError("bad-messages", f"the row has members {kinds[:120]}; expected one named json")
    try:
        fields = json.loads(text.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise RowError("not-utf8", f"byte {error.start} of the json member is not UTF-8") from error
    except (ValueError, RecursionError) as error:
        raise RowError("not-json", f"the json member: {' '.join(str(error).split())[:200]}") from error
    if not isinstance(fields, dict):
        raise RowError("not-an-object", f"the json member is {type(fields).__name__}; expected an object")
    pictures = {kind: data for kind, data in row.items() if kind.rpartition(".")[2] in PICTURES}
    named = fields.get("images") if fields.get("images") is not None else fields.get("image")
    kinds_in_order = _order(str(row[KEY]), list(pictures), named)
    images = [{"bytes": pictures[kind], "path": f"{row[KEY]}.{kind}"} for kind in kinds_in_order]
    draft = parse_any({**fields, "images": images} if images or named else fields)
    return Draft(draft.id if draft.id is not None else row[KEY], draft.messages, draft.images, fields)


def _order(key: str, kinds: list[str], named: object) -> list[str]:
    names = [named] if isinstance(named, str) and named else named if isinstance(named, list) else []
    if not names:
        return kinds
    known = {kind: kind for kind in kinds} | {f"{key}.{kind}": kind for kind in kinds}
    known |= {f"{PurePosixPath(key).name}.{kind}": kind for kind in kinds}
    found = [known.get(name) if isinstance(name, str) else None for name in names]
    if all(kind is not None for kind in found):
        return [kind for kind in found if kind is not None]
    if len(names) != len(kinds):
        raise RowError("bad-images", f"the json member names {len(names)} images, the row has {len(kinds)}")
    return kinds  # named after the files they were made from


def render(sample: Sample, images: Sequence[Any]) -> dict[str, Any]:
    """Write one row; `images` are the kinds of its picture members."""
    key = sample.id if re.fullmatch(r"[A-Za-z0-9_~-]{1,100}", sample.id) else sample.content_hash[:32]
    row: dict[str, Any] = {KEY: key, "id": sample.id, "conversations": conversation(sample.messages)}
    return row | ({"images": list(images)} if images else {}) | ({"skill": sample.skill} if sample.skill else {})


register_format(
    Format(
        "webdataset", "WebDataset: a json member and pictures per key; .tar or .tar.gz",
        parse, render, ("tar",), "member",
    )
)  # fmt: skip
