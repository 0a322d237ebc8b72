"""From a conversation to tokens and an answer mask, through the model's own chat template.

The template is rendered for every prefix of the conversation that ends where the assistant starts to speak; what the
full rendering adds up to the end of that turn is the answer (its end marker included). So the mask follows any
template, without searching for the answer's tokens, which tokenise differently out of context.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np

from liit.data.sample import IMAGE_TAG, ImageRef, Message, Sample
from liit.errors import InputError
from liit.model.fingerprint import hash_settings
from liit.model.vlm import VLM

EXIF_ORIENTATION = 0x0112


class RowRefusedError(InputError):
    """One sample cannot be given to the model whole; the caller counts it and names its id."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """One tokenised sample.

    Attributes:
        id: the sample's id.
        input_ids: (T,) int64, image placeholders expanded to one token per image feature.
        answer_mask: (T,) bool, true where the token is part of an assistant's answer or its end marker.
        images: the images in order of appearance.
    """

    id: str
    input_ids: np.ndarray
    answer_mask: np.ndarray
    images: tuple[ImageRef, ...]

    def __len__(self) -> int:
        return len(self.input_ids)

    @property
    def n_answer_tokens(self) -> int:
        """Number of positions with a label."""
        return int(self.answer_mask.sum())


class ChatEncoder:
    """Turns samples into tokens for one model; remembers how many tokens an image of a given size takes."""

    def __init__(self, vlm: VLM) -> None:
        self.vlm = vlm
        self.processor = vlm.processor
        self.tokenizer = vlm.tokenizer
        self._expansions: dict[tuple[int, int], str] = {}

    @property
    def template_id(self) -> str:
        """Hex hash of everything that decides how a sample becomes tokens."""
        return hash_settings(
            {
                "template": self.processor.chat_template,
                "vocabulary": sorted(self.tokenizer.get_vocab().items()),
                "image": str(self.processor.image_processor.to_json_string()),
                "max_length": self.vlm.max_length,
            }
        )

    def encode(self, sample: Sample, *, images: bool = True) -> Encoded:
        """Tokenise a whole conversation.

        Args:
            sample: what to encode.
            images: false gives the no-image twin: the same words without images and their tags.

        Raises:
            RowRefusedError: longer than the model's ``max_length``, the model's own image token in the text, or a
                template or tokenizer under which the answer cannot be located.
            InputError: an image that is gone.
        """
        messages = sample.messages if images else without_images(sample.messages)
        text = self._render(messages)
        spans = [
            self._answer_span(sample.id, messages, turn, text)
            for turn, message in enumerate(messages)
            if message.role == "assistant"
        ]
        refs = sample.images if images else ()
        text, spans = self._expand_images(sample.id, text, spans, refs)
        return self._tokenise(sample.id, text, spans, refs)

    def encode_prompt(self, sample: Sample) -> Encoded:
        """Tokenise everything before the last answer, ready for generation; the mask is all false."""
        text = self._render(sample.messages[:-1], generate=True)
        text, _ = self._expand_images(sample.id, text, [], sample.images)
        return self._tokenise(sample.id, text, [], sample.images)

    def _tokenise(
        self, sample_id: str, text: str, spans: Sequence[tuple[int, int]], images: tuple[ImageRef, ...]
    ) -> Encoded:
        bos = self.tokenizer.bos_token  # as the model's own processor: added unless the template wrote it
        special = bos is None or not text.startswith(bos)
        out = self.tokenizer(text, add_special_tokens=special, return_offsets_mapping=True, verbose=False)
        ids = np.asarray(out["input_ids"], dtype=np.int64)
        if len(ids) > self.vlm.max_length:
            raise RowRefusedError(
                f"sample {sample_id!r} takes {len(ids)} tokens, the model's max_length is {self.vlm.max_length}; "
                "raise model.max_length or shorten the row (liit never truncates)"
            )
        offsets = np.asarray(out["offset_mapping"], dtype=np.int64).reshape(-1, 2)
        mask = np.zeros(len(ids), dtype=bool)
        for start, end in spans:
            mask |= self._tokens_of(sample_id, text, offsets, start, end)
        return Encoded(sample_id, ids, mask, images)

    def _tokens_of(self, sample_id: str, text: str, offsets: np.ndarray, start: int, end: int) -> np.ndarray:
        """Which tokens make up text[start:end]; a token may also hold white space of the template around it."""
        first, last = offsets.T
        inside: np.ndarray = (first < end) & (last > start)
        inside |= (first == last) & (last > start) & (last <= end)  # spaces that the tokenizer trims to nothing
        for i in np.flatnonzero(inside & ((first < start) | (last > end))):
            outside = text[first[i] : start] + text[end : last[i]]
            if outside.strip():
                raise RowRefusedError(
                    f"sample {sample_id!r}: the tokenizer of {self.vlm.path} joins the template's {outside!r} with an "
                    "answer in one token, so the answer cannot be masked; use a chat template with special tokens "
                    "around answers"
                )
        return inside

    def _render(self, messages: Sequence[Message], *, generate: bool = False) -> str:
        turns = [{"role": m.role, "content": _parts(m.text)} for m in messages]
        return str(self.processor.apply_chat_template(turns, tokenize=False, add_generation_prompt=generate))

    def _answer_span(self, sample_id: str, messages: Sequence[Message], turn: int, text: str) -> tuple[int, int]:
        prompt = self._render(messages[:turn], generate=True)
        through = self._render(messages[: turn + 1]) if turn + 1 < len(messages) else text
        if not (through.startswith(prompt) and text.startswith(through)):
            raise RowRefusedError(
                f"sample {sample_id!r}: the chat template of {self.vlm.path} rewrites earlier turns, so the answer of "
                f"turn {turn} cannot be located; give one row per answer"
            )
        return len(prompt), len(through.rstrip())

    def _expand_images(
        self, sample_id: str, text: str, spans: Sequence[tuple[int, int]], images: Sequence[ImageRef]
    ) -> tuple[str, list[tuple[int, int]]]:
        token = self.processor.image_token
        pieces = text.split(token)
        if len(pieces) != len(images) + 1:
            raise RowRefusedError(
                f"sample {sample_id!r}: the template produced {len(pieces) - 1} image places for {len(images)} images; "
                f"the text may contain the model's own image token {token!r}"
            )
        out = pieces[0]
        moved = list(spans)
        position = len(pieces[0])
        for image, piece in zip(images, pieces[1:], strict=True):
            expansion = self._expansion(image)
            growth = len(expansion) - len(token)
            moved = [
                (s + growth if old_s > position else s, e + growth if old_e > position else e)
                for (s, e), (old_s, old_e) in zip(moved, spans, strict=True)
            ]
            out += expansion + piece
            position += len(token) + len(piece)
        return out, moved

    def _expansion(self, image: ImageRef) -> str:
        """What one image tag becomes; depends on the image's size only, so it is asked once per size."""
        from PIL import Image

        size = _size(image)
        if size not in self._expansions:
            blank = [Image.new("RGB", size)]
            inputs = self.processor.image_processor(images=blank, return_tensors="pt")
            self._expansions[size] = str(self.processor.replace_image_token(inputs, 0))
        return self._expansions[size]


def without_images(messages: Sequence[Message]) -> tuple[Message, ...]:
    """The same conversation with every image tag taken out."""
    return tuple(Message(m.role, _without_tags(m.text)) if IMAGE_TAG in m.text else m for m in messages)


def _without_tags(text: str) -> str:
    return text.replace(f"{IMAGE_TAG}\n", "").replace(IMAGE_TAG, "").strip()


def _size(image: ImageRef) -> tuple[int, int]:
    """Width and height from the file's header, without decoding the pixels."""
    from PIL import Image

    try:
        with Image.open(BytesIO(image.data) if image.data is not None else image.path) as opened:
            width, height = opened.size
            turned = opened.getexif().get(EXIF_ORIENTATION, 1) in (5, 6, 7, 8)
    except OSError as error:
        raise InputError(
            f"image {image.path!r} cannot be read any more ({error}); put the original file back or remove its rows"
        ) from error
    return (height, width) if turned else (width, height)


def _parts(text: str) -> list[dict[str, Any]]:
    """Split text with image tags into the content parts that chat templates understand."""
    parts: list[dict[str, Any]] = []
    for index, piece in enumerate(text.split(IMAGE_TAG)):
        if index:
            parts.append({"type": "image"})
        words = piece.strip("\n") if index or IMAGE_TAG in text else piece
        if words:
            parts.append({"type": "text", "text": words})
    return parts
