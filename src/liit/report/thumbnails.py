"""Small pictures inside the page, within a fixed number of bytes."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from liit.errors import InputError

SIDE = 112
"""Longest side of a thumbnail in pixels."""
_TEXT_LENGTH = 180
_IMAGES_PER_SAMPLE = 2


@dataclass(frozen=True)
class Card:
    """A sample as the page shows it; `pictures` are data URIs."""

    id: str
    source: str
    skill: str
    question: str
    answer: str
    pictures: list[str]
    pictures_missing: str = ""
    reason: str = ""


@dataclass
class Gallery:
    """Turns samples into cards until the budget for pictures is spent; what is left out is counted.

    Attributes:
        budget: bytes that pictures may still take.
        left_out: pictures not shown because the budget was spent.
        broken: pictures that could not be read.
    """

    budget: int
    left_out: int = 0
    broken: int = 0
    _known: dict[str, str] = field(default_factory=dict)

    def card(self, sample: Any, reason: str = "") -> Card:
        """The card of one `liit.data.sample.Sample`."""
        pictures, missing = [], []
        for image in sample.images[:_IMAGES_PER_SAMPLE]:
            uri, why_not = self._data_uri(image)
            pictures += [uri] if uri else []
            missing += [why_not] if why_not else []
        if len(sample.images) > _IMAGES_PER_SAMPLE:
            missing.append(f"{len(sample.images) - _IMAGES_PER_SAMPLE} more pictures")
        question = next((message.text for message in sample.messages if message.role == "user"), "")
        answer = next((message.text for message in sample.messages if message.role == "assistant"), "")
        turns = sum(message.role == "user" for message in sample.messages)
        if turns > 1:
            answer += f" (and {turns - 1} more turns)"
        return Card(
            id=shortened(sample.id, 60),
            source=shortened(sample.source, 40),
            skill=shortened(sample.skill, 40),
            question=shortened(question.replace("<image>", " ")),
            answer=shortened(answer),
            pictures=pictures,
            pictures_missing=", ".join(missing),
            reason=shortened(reason),
        )

    def _data_uri(self, image: Any) -> tuple[str, str]:
        if image.sha256 not in self._known:
            try:
                self._known[image.sha256] = _encode(image.open())
            except (InputError, OSError):  # the data set moved or changed since: the report is still worth having
                self.broken += 1
                return "", "picture not readable any more"
        uri = self._known[image.sha256]
        if len(uri) > self.budget:
            self.left_out += 1
            return "", "picture left out to keep the page small"
        self.budget -= len(uri)
        return uri, ""


def shortened(text: str, length: int = _TEXT_LENGTH) -> str:
    """The text on one line, cut at a length; lone surrogates, which no file can hold, are replaced."""
    line = " ".join(text.encode("utf-8", "replace").decode("utf-8").split())
    return line if len(line) <= length else line[: length - 1].rstrip() + "…"


def take(pool: Any, version: int | None, ids: list[str]) -> Mapping[str, Any]:
    """The samples of these ids from one version of the pool; none when `liit pool gc` has freed that version."""
    if pool is None or version is None or version < pool.oldest or not ids:
        return {}
    unique = list(dict.fromkeys(ids))
    return dict(zip(unique, pool.at(version).take(unique), strict=True))


def _encode(picture: Any) -> str:
    picture.thumbnail((SIDE, SIDE))
    out = io.BytesIO()
    picture.save(out, format="JPEG", quality=72, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(out.getvalue()).decode("ascii")
