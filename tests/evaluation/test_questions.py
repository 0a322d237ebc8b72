from __future__ import annotations

import json
from dataclasses import replace

import pytest
from tiny_vlm import talk

from liit.data.sample import Sample
from liit.errors import InputError
from liit.evaluation.questions import references_of, with_instruction


def asked(**row: object) -> Sample:
    return replace(talk("x", "<image>\nWhat is it?", "a cat", images=[1]), raw=json.dumps(row))


def test_without_a_key_the_last_message_is_the_reference() -> None:
    assert references_of(asked(answers=["a dog"]), None) == "a cat"


def test_the_row_s_list_holds_texts_or_answers_as_vqa_writes_them() -> None:
    assert references_of(asked(answers=["cat", "kitten"]), "answers") == ["cat", "kitten"]
    vqa = [{"answer": "cat", "answer_confidence": "yes", "answer_id": 1}, {"answer": "kitten", "answer_id": 2}]
    assert references_of(asked(people=vqa), "people") == ["cat", "kitten"]


@pytest.mark.parametrize(
    "row", [{}, {"answers": []}, {"answers": "cat"}, {"answers": [1]}, {"answers": [{"text": "a"}]}]
)
def test_anything_else_is_refused_by_the_row_s_name(row: dict[str, object]) -> None:
    with pytest.raises(InputError, match=r"answers_key: row 'x' has .* under 'answers', expected a list"):
        references_of(asked(**row), "answers")


def test_other_answers_change_neither_the_conversation_nor_its_hash() -> None:
    assert asked(answers=["cat"]).content_hash == asked().content_hash


def test_an_instruction_stands_below_the_last_question() -> None:
    sample = talk("x", "<image>\nWhat is it?", "a cat", "Which colour?", "red", images=[1])
    changed = with_instruction(sample, "Answer in one word.")
    assert [message.text for message in changed.messages] == [
        "<image>\nWhat is it?",
        "a cat",
        "Which colour?\nAnswer in one word.",
        "red",
    ]
    assert with_instruction(sample, "") is sample
