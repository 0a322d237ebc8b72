"""From a conversation to tokens and an answer mask, through the model's own chat template and processor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from liit.data.sample import IMAGE_TAG, ImageRef, Message, Sample
from liit.errors import InputError
from liit.model.fingerprint import hash_settings
from liit.model.image_tokens import ImageTokens
from liit.model.remembered import Remembered
from liit.model.template import RowRefusedError, Span, Template
from liit.model.vlm import VLM

__all__ = ["ChatEncoder", "Encoded", "RowRefusedError", "without_images"]

REMEMBERED_BYTES = 64 << 20  # of encoded rows
ROW_BYTES = 1024  # of an encoded row beside its arrays: objects, id, hashes and paths
LAYOUT = 2  # counts up when the same template and settings give other tokens than before


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

    @property
    def size(self) -> int:
        """Bytes of memory that it takes, with images that it holds by value."""
        held = sum(len(image.data) for image in self.images if image.data is not None)
        return self.input_ids.nbytes + self.answer_mask.nbytes + held + ROW_BYTES


class ChatEncoder:
    """Turns samples into tokens for one model.

    What a sample becomes does not depend on the weights, so it is remembered: a lifelong run meets a row at every step.
    What is remembered takes `REMEMBERED_BYTES` at most; the rows that were asked for least recently go first.

    Args:
        vlm: the model.
        remember: false for whoever asks for every row once; nothing is remembered then.
    """

    def __init__(self, vlm: VLM, *, remember: bool = True) -> None:
        self.vlm = vlm
        self.processor = vlm.processor
        self.tokenizer = vlm.tokenizer
        self.template = Template(vlm)
        self.image_tokens = ImageTokens(vlm)
        self._memory: Remembered[tuple[str, str, bool], Encoded] | None = None
        if remember:
            self._memory = Remembered(REMEMBERED_BYTES)
        self._memory_of = self._settings()

    @property
    def template_id(self) -> str:
        """Hex hash of everything that decides how a sample becomes tokens."""
        return hash_settings(
            {
                "layout": LAYOUT,
                "template": self.processor.chat_template,
                "vocabulary": sorted(self.tokenizer.get_vocab().items()),
                "image": str(self.processor.image_processor.to_json_string()),
                "max_length": self.vlm.max_length,
            }
        )

    @cached_property
    def stop_ids(self) -> list[int]:
        """Ids of the tokens at which an answer ends: the model's and the tokenizer's own, and the template's marker."""
        configured = getattr(getattr(self.vlm.base, "generation_config", None), "eos_token_id", None)
        stops = list(configured) if isinstance(configured, list | tuple) else [configured]
        stops.append(self.tokenizer.eos_token_id)
        marker = self.tokenizer(self.template.end_marker(), add_special_tokens=False)["input_ids"]
        if len(marker) == 1:  # several tokens are words, which answers may contain
            stops += marker
        return list(dict.fromkeys(int(stop) for stop in stops if stop is not None))

    def encode(self, sample: Sample, *, images: bool = True) -> Encoded:
        """Tokenise a whole conversation.

        Args:
            sample: what to encode.
            images: false gives the no-image twin: the same words without images, their tags and what wraps them.

        Raises:
            RowRefusedError: longer than the model's ``max_length``, the model's own image token in the text, or a
                template or tokenizer under which the answer cannot be located.
            InputError: an image that is gone.
        """
        if self._memory is None:
            return self._encode(sample, images)
        if self._memory_of != self._settings():
            self._memory.clear()
            self._memory_of = self._settings()
        key = (sample.id, sample.content_hash, images)
        encoded = self._memory.get(key)
        if encoded is None:
            encoded = self._encode(sample, images)
            self._memory.put(key, encoded, encoded.size)
        return encoded

    def _encode(self, sample: Sample, images: bool) -> Encoded:
        messages = sample.messages if images else without_images(sample.messages)
        text, spans = self.template.lay_out(sample.id, messages)
        return self._tokenise(sample.id, text, spans, sample.images if images else ())

    def encode_prompt(self, sample: Sample) -> Encoded:
        """Tokenise everything before the last answer, ready for generation; the mask is all false."""
        text = self.template.prompt(sample.id, sample.messages[:-1])
        return self._tokenise(sample.id, text, [], sample.images)

    def _settings(self) -> tuple[str, int]:
        return str(self.processor.chat_template), self.vlm.max_length

    def _tokenise(self, sample_id: str, text: str, spans: Sequence[Span], images: tuple[ImageRef, ...]) -> Encoded:
        bos = self.tokenizer.bos_token  # as the model's own processor: added unless the template wrote it
        special = bos is None or not text.startswith(bos)
        text, spans, features = self._expand_images(sample_id, text, spans, images)
        out = self.tokenizer(text, add_special_tokens=special, return_offsets_mapping=True, verbose=False)
        ids = np.asarray(out["input_ids"], dtype=np.int64)
        self._check(sample_id, ids, features)
        offsets = np.asarray(out["offset_mapping"], dtype=np.int64).reshape(-1, 2)
        mask = np.zeros(len(ids), dtype=bool)
        for start, end in spans:
            mask |= self._tokens_of(sample_id, text, offsets, start, end)
        return Encoded(sample_id, ids, mask, images)

    def _check(self, sample_id: str, ids: np.ndarray, features: int) -> None:
        """Refuse a row that the model cannot take whole, or whose placeholders are not those of its images."""
        if len(ids) > self.vlm.max_length:
            raise RowRefusedError(
                f"sample {sample_id!r} takes {len(ids)} tokens, {features} of them for images; the model's max_length "
                f"is {self.vlm.max_length}; raise model.max_length or shorten the row (liit never truncates)"
            )
        found = int((ids == self.vlm.image_token_id).sum())
        if found != features:
            raise RowRefusedError(
                f"sample {sample_id!r}: {found} image placeholders for {features} vision features; the text contains "
                f"the model's own image token {self.image_tokens.placeholder!r}"
            )
        video = getattr(self.processor, "video_token_id", None)
        if video is not None and (ids == video).any():
            raise RowRefusedError(f"sample {sample_id!r}: the text contains the model's own video token")

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

    def _expand_images(
        self, sample_id: str, text: str, spans: Sequence[Span], images: Sequence[ImageRef]
    ) -> tuple[str, list[Span], int]:
        """Put each image's placeholders into the text; spans move along. Also the number of vision features."""
        token = self.processor.image_token
        pieces = text.split(token)
        if len(pieces) != len(images) + 1:
            raise RowRefusedError(
                f"sample {sample_id!r}: the template produced {len(pieces) - 1} image places for {len(images)} images; "
                f"the text may contain the model's own image token {token!r}"
            )
        together = self.image_tokens.together(len(images))
        out, moved = pieces[0], list(spans)
        position, features = len(pieces[0]), 0
        for image, piece in zip(images, pieces[1:], strict=True):
            try:
                expansion = self.image_tokens.expansion(image, together=together)
            except InputError:
                raise
            except ValueError as error:  # such as an image too narrow to resize
                raise RowRefusedError(
                    f"sample {sample_id!r}: the processor of {self.vlm.path} refuses image {image.path!r} ({error})"
                ) from error
            growth = len(expansion.text) - len(token)
            moved = [
                (s + growth if old_s > position else s, e + growth if old_e > position else e)
                for (s, e), (old_s, old_e) in zip(moved, spans, strict=True)
            ]
            out += expansion.text + piece
            position += len(token) + len(piece)
            features += expansion.features
        return out, moved, features


def without_images(messages: Sequence[Message]) -> tuple[Message, ...]:
    """The same conversation with every image tag taken out."""
    return tuple(Message(m.role, _without_tags(m.text)) if IMAGE_TAG in m.text else m for m in messages)


def _without_tags(text: str) -> str:
    return text.replace(f"{IMAGE_TAG}\n", "").replace(IMAGE_TAG, "").strip()
