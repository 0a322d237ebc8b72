"""What a row of an evaluation file asks and which answers are right, beyond its conversation."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from liit.data.sample import Message, Sample
from liit.errors import InputError
from liit.evaluation.metrics import References


def references_of(sample: Sample, key: str | None) -> References:
    """The right answers of a row: the list under a key of the user's row, or its last message alone.

    The list may hold texts, or objects with a text under "answer", as in VQAv2. It is no part of the conversation, so
    neither the prompt nor the row's content hash depends on it.

    Args:
        sample: a conversation that ends with a reference answer.
        key: of the row's list; None for the last message.

    Returns:
        The last message's text, or the list of right answers.

    Raises:
        InputError: the row has no such key, or something else under it.
    """
    if key is None:
        return sample.messages[-1].text
    given: Any = json.loads(sample.raw).get(key)
    texts = [one.get("answer") if isinstance(one, dict) else one for one in given] if isinstance(given, list) else []
    right = [text for text in texts if isinstance(text, str)]
    if not texts or len(right) < len(texts):
        raise InputError(
            f"answers_key: row {sample.id!r} has {json.dumps(given, ensure_ascii=False)[:80]} under {key!r}, expected "
            'a list of texts or of {"answer": text}'
        )
    return right


def with_instruction(sample: Sample, instruction: str) -> Sample:
    """The sample with an instruction below its last question, on a line of its own; unchanged for an empty one."""
    if not instruction:
        return sample
    *before, question, answer = sample.messages
    return replace(sample, messages=(*before, Message(question.role, f"{question.text}\n{instruction}"), answer))
