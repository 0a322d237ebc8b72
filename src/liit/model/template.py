r"""A conversation as text: through the model's own chat template, written so that answers follow the prompt.

The template is rendered twice per answer: up to where the assistant starts to speak, and through the end of its turn.
What lies between is the answer, as the template writes it, and what ends it. So the mask follows any template, without
searching for the answer's words, which tokenise differently out of context.

Two habits of published templates are put right, because a model learns only what stands in its rows:

- An answer that nothing ends (LLaVA-1.5's template) gets the tokenizer's end of sequence in place of the template's
  white space, as the original LLaVA code does; else the model would never learn to stop.
- Where white space before answers differs between the generation prompt and the history (LLaVA-OneVision's template:
  ``assistant\n`` and ``assistant \n``), the prompt's is written, which is what the model meets when it is asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from liit.data.sample import IMAGE_TAG, Message
from liit.errors import InputError
from liit.model.vlm import VLM

STAND_IN = "\ue000answer\ue001"
Span = tuple[int, int]


class RowRefusedError(InputError):
    """One sample cannot be given to the model whole; the caller counts it and names its id."""


@dataclass(frozen=True, slots=True)
class Frame:
    """What a template writes around an answer.

    Attributes:
        asked: end of the generation prompt, from where it differs from what stands before an answer in a history.
        written: what stands there in a history.
        after: what follows the answer's words to the end of the turn.
    """

    asked: str
    written: str
    after: str

    @property
    def lead(self) -> str:
        """What the model has to say between the prompt and the answer's first word."""
        return "" if self.asked else self.written

    @property
    def fits(self) -> bool:
        """Whether prompt and history differ at most in white space, or by words that the model is to say."""
        return not self.asked or self.asked.strip() == self.written.strip()


class Template:
    """Lays conversations out as text for one model."""

    def __init__(self, vlm: VLM) -> None:
        self.name = vlm.path
        self.processor = vlm.processor
        self.end: str | None = vlm.tokenizer.eos_token
        self._frame: Frame | None = None

    def lay_out(self, sample_id: str, messages: Sequence[Message]) -> tuple[str, list[Span]]:
        """The whole conversation, and where in it the answers and what ends them are.

        Raises:
            RowRefusedError: the template refuses the conversation, or its answers cannot be located.
        """
        text, spans, seen = self._through_answers(sample_id, messages, len(messages))
        whole = seen if messages[-1].role == "assistant" else self._render(sample_id, messages)
        return text + self._rest(sample_id, whole, seen), spans

    def prompt(self, sample_id: str, messages: Sequence[Message]) -> str:
        """The conversation up to where the assistant starts to speak; `messages` end with the user's."""
        text, _, seen = self._through_answers(sample_id, messages, len(messages))
        return text + self._rest(sample_id, self._render(sample_id, messages, generate=True), seen)

    def end_marker(self) -> str:
        """What ends every answer."""
        frame = self._probe("", [Message("user", "?")])
        return frame.after.strip() or self.end or ""

    def _through_answers(self, sample_id: str, messages: Sequence[Message], stop: int) -> tuple[str, list[Span], str]:
        """Text up to the end of the last answer before `stop`, the answers' places, and the template's own text."""
        text, seen, spans = "", "", []
        for turn in range(stop):
            if messages[turn].role != "assistant":
                continue
            if IMAGE_TAG in messages[turn].text:
                raise RowRefusedError(f"sample {sample_id!r}: turn {turn} is an answer with an image; expected words")
            prompt = self._render(sample_id, messages[:turn], generate=True)
            through = self._render(sample_id, messages[: turn + 1])
            frame, answer = self._answer(sample_id, messages[:turn], prompt, through)
            text += self._rest(sample_id, prompt, seen)
            start = len(text)
            text += frame.lead + answer
            if ending := frame.after.rstrip():
                spans.append((start, len(text) + len(ending)))
                text += frame.after
            else:
                text += self._end_of_sequence()
                spans.append((start, len(text)))
            seen = through
        return text, spans, seen

    def _answer(self, sample_id: str, before: Sequence[Message], prompt: str, through: str) -> tuple[Frame, str]:
        """The frame that fits this answer (the same for all, in known templates) and the answer as it is written."""
        for frame in (self._frame, None):
            if frame is None:
                frame = self._probe(sample_id, before)
            head = prompt.removesuffix(frame.asked) + frame.written
            if prompt.endswith(frame.asked) and through.startswith(head) and through.endswith(frame.after):
                self._frame = frame
                return frame, through[len(head) : len(through) - len(frame.after)]
        raise self._refusal(sample_id)

    def _probe(self, sample_id: str, before: Sequence[Message]) -> Frame:
        asked = self._render(sample_id, before, generate=True)
        written, found, after = self._render(sample_id, [*before, Message("assistant", STAND_IN)]).partition(STAND_IN)
        if not found:
            raise InputError(f"model: the chat template of {self.name} leaves an assistant's answer out")
        if not written.startswith(self._render(sample_id, before)):
            raise self._refusal(sample_id)
        differ = (i for i, (a, b) in enumerate(zip(asked, written, strict=False)) if a != b)
        common = next(differ, min(len(asked), len(written)))
        frame = Frame(asked[common:], written[common:], after)
        if not frame.fits:
            raise InputError(
                f"model: the chat template of {self.name} asks for an answer with {frame.asked!r} but writes "
                f"{frame.written!r} before one that was given; train with a template that does the same in both"
            )
        return frame

    def _end_of_sequence(self) -> str:
        if not self.end:
            raise InputError(
                f"model: the chat template of {self.name} ends answers with nothing and its tokenizer has no end of "
                "sequence, so the model could not learn to stop; use a chat template with an end marker"
            )
        return self.end

    def _rest(self, sample_id: str, text: str, seen: str) -> str:
        if not text.startswith(seen):
            raise self._refusal(sample_id)
        return text[len(seen) :]

    def _refusal(self, sample_id: str) -> RowRefusedError:
        return RowRefusedError(
            f"sample {sample_id!r}: the chat template of {self.name} rewrites earlier turns, so its answers cannot be "
            "located; give one row per answer"
        )

    def _render(self, sample_id: str, messages: Sequence[Message], *, generate: bool = False) -> str:
        from jinja2 import TemplateError

        turns = [{"role": m.role, "content": _parts(m.text)} for m in messages]
        try:
            return str(self.processor.apply_chat_template(turns, tokenize=False, add_generation_prompt=generate))
        except (TemplateError, IndexError) as error:  # IndexError: a conversation that begins with the assistant
            reason = str(error) or type(error).__name__
            raise RowRefusedError(
                f"sample {sample_id!r}: the chat template of {self.name} refuses the conversation ({reason})"
            ) from error


def _parts(text: str) -> list[dict[str, Any]]:
    """Split text with image tags into the content parts that chat templates understand; never an empty list."""
    parts: list[dict[str, Any]] = []
    for index, piece in enumerate(text.split(IMAGE_TAG)):
        if index:
            parts.append({"type": "image"})
        words = piece.strip("\n") if index or IMAGE_TAG in text else piece
        if words:
            parts.append({"type": "text", "text": words})
    return parts or [{"type": "text", "text": ""}]
