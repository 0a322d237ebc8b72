"""The answer mask covers the assistant's words and the end marker, and nothing else, whatever the template."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_vlm import mixed_samples, talk

from liit.data.sample import Message, Sample
from liit.errors import InputError
from liit.model.chat import ChatEncoder, Encoded, RowRefusedError
from liit.model.vlm import VLM

CHATML = (
    "{% for message in messages %}"
    "{% if loop.first and message['role'] != 'system' %}{{ '<|im_start|>system\nYou are helpful.<|im_end|>\n' }}"
    "{% endif %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}"
    "{{ '<|vision_start|><|image|><|vision_end|>' }}{% else %}{{ part['text'] }}{% endif %}{% endfor %}"
    "{{ '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAVA = (
    "{% for message in messages %}{% if message['role'] != 'system' %}{{ message['role'].upper() + ': ' }}{% endif %}"
    "{% for part in message['content'] | selectattr('type', 'equalto', 'image') %}{{ '<|image|>\n' }}{% endfor %}"
    "{% for part in message['content'] | selectattr('type', 'equalto', 'text') %}{{ part['text'] + ' ' }}{% endfor %}"
    "{% endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
ANSWERS = {
    "short": "4",
    "spaces": "  two  spaces   inside and  before",
    "newlines": "a list:\n- one\n\n- two\n    indented",
    "trailing": "ends with spaces  \n",
    "unicode": "naïve façade, 🙂 and \u00a0 no-break, e\u0301",
    "japanese": "これは猫です。\n二匹います。",
    "question": "What is it?",
    "roles": "user assistant system USER: ASSISTANT:",
}


def with_template(vlm: VLM, template: str, specials: tuple[str, ...] = ()) -> ChatEncoder:
    vlm.processor.chat_template = template
    vlm.tokenizer.add_special_tokens({"additional_special_tokens": list(specials)})
    return ChatEncoder(vlm)


def chatml(vlm: VLM) -> ChatEncoder:
    return with_template(vlm, CHATML, ("<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>"))


def answers(encoder: ChatEncoder, row: Encoded) -> list[str]:
    """What each run of masked tokens says."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], row.answer_mask.astype(int), [0]])))
    return [
        encoder.tokenizer.decode(row.input_ids[a:b], skip_special_tokens=False)
        for a, b in zip(edges[::2], edges[1::2], strict=True)
    ]


def said(sample: Sample, end: str) -> list[str]:
    return [m.text + end for m in sample.messages if m.role == "assistant"]


@pytest.mark.parametrize("images", [(), (1,), (1, 2)], ids=["text-only", "one-image", "two-images"])
@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
def test_masked_tokens_say_the_answer_and_the_end_marker(tiny: VLM, answer: str, images: tuple[int, ...]) -> None:
    sample = talk("a", "<image>\n" * len(images) + "What is it?", answer, images=images)
    encoder = ChatEncoder(tiny)
    assert answers(encoder, encoder.encode(sample)) == [answer + "<|end|>"]
    encoder = chatml(tiny)
    assert answers(encoder, encoder.encode(sample)) == [answer + "<|im_end|>"]


@pytest.mark.parametrize("sample", mixed_samples(), ids=lambda s: s.id)
@pytest.mark.parametrize(
    ("make", "end"), [(ChatEncoder, "<|end|>"), (chatml, "<|im_end|>")], ids=["built-in", "chatml"]
)
def test_every_turn_of_every_shape_of_row_is_masked(
    tiny: VLM, make: Callable[[VLM], ChatEncoder], end: str, sample: Sample
) -> None:
    encoder = make(tiny)
    assert answers(encoder, encoder.encode(sample)) == said(sample, end)


@pytest.mark.parametrize("sample", mixed_samples(), ids=lambda s: s.id)
def test_template_without_end_marker_gets_the_tokenizers_end_of_sequence(tiny: VLM, sample: Sample) -> None:
    """LLaVA-1.5's template ends answers with a space; the space after "ASSISTANT:" belongs to the first token."""
    encoder = with_template(tiny, LLAVA)
    assert [text.removeprefix(" ") for text in answers(encoder, encoder.encode(sample))] == said(sample, "<|end|>")


@pytest.mark.parametrize("answer", [a for name, a in ANSWERS.items() if name != "roles"])
def test_first_word_is_not_lost_to_a_prompt_that_ends_with_a_space(tiny: VLM, answer: str) -> None:
    """Byte-level tokens join a word with the space before it, which here comes from the template."""
    encoder = with_template(tiny, LLAVA.replace("'ASSISTANT:'", "'ASSISTANT: '"))
    row = encoder.encode(talk("a", "What is it?", answer))
    assert [text.removeprefix(" ") for text in answers(encoder, row)] == [answer.removeprefix(" ") + "<|end|>"]


def test_template_and_tokenizer_without_any_end_are_refused(tiny: VLM) -> None:
    """A model trained on such rows would never stop."""
    tiny.tokenizer.eos_token = None
    with pytest.raises(InputError, match=r"no end of sequence.*learn to stop"):
        with_template(tiny, LLAVA).encode(talk("a", "What is it?", "A cat."))


def test_template_that_asks_otherwise_than_it_writes_is_refused(tiny: VLM) -> None:
    """As of models that think first: asked to think, but the thoughts are not in the history."""
    thinking = tiny.processor.chat_template.replace("{{ '<|assistant|>' }}", "{{ '<|assistant|><think>' }}")
    with pytest.raises(InputError, match=r"asks for an answer with '<think>' but writes ''"):
        with_template(tiny, thinking).encode(talk("a", "What is it?", "A cat."))


def test_words_that_the_template_puts_before_answers_are_learnt(tiny: VLM) -> None:
    marked = "{{ '<|' + message['role'] + '|>' }}{% if message['role'] == 'assistant' %}{{ 'Hm: ' }}{% endif %}"
    template = tiny.processor.chat_template.replace("{{ '<|' + message['role'] + '|>' }}", marked)
    encoder = with_template(tiny, template)
    row = encoder.encode(talk("a", "What?", "A cat.", "And?", "no"))
    assert answers(encoder, row) == ["Hm: A cat.<|end|>", "Hm: no<|end|>"]


def test_history_and_prompt_that_differ_in_white_space_are_written_as_the_prompt(tiny: VLM) -> None:
    """LLaVA-OneVision's template asks with "assistant\\n" and writes "assistant \\n"."""
    template = tiny.processor.chat_template.replace("+ '|>' }}", "+ '|> \n' }}").replace("t|>' }}", "t|>\n' }}")
    encoder = with_template(tiny, template)
    sample = talk("a", "What?", "A cat.", "And?", "no")
    row, prompt = encoder.encode(sample), encoder.encode_prompt(sample)
    assert answers(encoder, row) == ["A cat.<|end|>", "no<|end|>"]
    assert encoder.tokenizer.decode(row.input_ids).count("<|assistant|>\n") == 2
    np.testing.assert_array_equal(prompt.input_ids, row.input_ids[: len(prompt)])


def test_conversation_that_the_template_refuses_is_refused_by_id(tiny: VLM) -> None:
    picky = "{{ raise_exception('no system here') if messages[0].role == 'system' }}" + tiny.processor.chat_template
    encoder = with_template(tiny, picky)
    encoder.encode(talk("fine", "What?", "no"))
    with pytest.raises(RowRefusedError, match=r"sample 'a'.*refuses the conversation \(no system here\)"):
        encoder.encode(talk("a", "What?", "no", system="Be brief."))


def test_conversation_that_begins_with_the_assistant_is_refused_by_id(tiny: VLM) -> None:
    with pytest.raises(RowRefusedError, match=r"sample 'a'.*refuses the conversation"):
        ChatEncoder(tiny).encode(Sample("a", (Message("assistant", "Hello."),)))


def test_image_in_an_answer_is_refused_by_id(tiny: VLM) -> None:
    with pytest.raises(RowRefusedError, match=r"sample 'a': turn 1 is an answer with an image"):
        ChatEncoder(tiny).encode(talk("a", "Show me.", "<image>", images=[1]))


def test_message_without_words_is_still_a_message(tiny: VLM) -> None:
    """Templates look at the first part of a message; the no-image twin of a bare image must have one."""
    first = tiny.processor.chat_template.replace("{{ '<|'", "{{ message['content'][0]['type'] and '<|'", 1)
    encoder = with_template(tiny, first)
    blind = encoder.encode(talk("a", "<image>", "A cat.", images=[1]), images=False)
    assert answers(encoder, blind) == ["A cat.<|end|>"]


def test_stop_ids_are_those_of_model_tokenizer_and_template(tiny: VLM) -> None:
    tiny.base.generation_config.eos_token_id = [7, 8]
    end = tiny.tokenizer.eos_token_id
    assert ChatEncoder(tiny).stop_ids == [7, 8, end]
    assert chatml(tiny).stop_ids == [7, 8, end, tiny.tokenizer.convert_tokens_to_ids("<|im_end|>")]


def test_template_glued_to_the_answer_is_refused_by_id(tiny: VLM) -> None:
    template = "{% for m in messages %}{% for p in m['content'] %}{{ p['text'] }}{% endfor %}{% endfor %}"
    encoder = with_template(tiny, template)
    encoder.tokenizer.add_tokens(["Itis"])
    with pytest.raises(RowRefusedError, match=r"sample 'glued'.*'It'"):
        encoder.encode(talk("glued", "It", "is"))


@pytest.mark.parametrize("trim", [True, False])
def test_spaces_inside_an_answer_are_masked_when_the_tokenizer_trims_offsets(tiny: VLM, trim: bool) -> None:
    """Llama-3's and GPT-2's tokenizers report tokens of spaces as empty ranges of the text."""
    from tokenizers import processors

    tiny.tokenizer.backend_tokenizer.post_processor = processors.ByteLevel(trim_offsets=trim)
    encoder = ChatEncoder(tiny)
    answer = "if x:\n        return  1   "
    assert answers(encoder, encoder.encode(talk("a", "Code?   ", answer))) == [answer + "<|end|>"]


def test_template_that_rewrites_earlier_turns_is_refused_by_id(tiny: VLM) -> None:
    rewriting = "{{ messages | length }}" + tiny.processor.chat_template
    with pytest.raises(RowRefusedError, match=r"sample 'a'.*rewrites earlier turns"):
        with_template(tiny, rewriting).encode(talk("a", "What?", "no", "And?", "yes"))


@pytest.mark.parametrize("bos", [False, True], ids=["no-bos", "bos"])
@pytest.mark.parametrize("template", [None, CHATML, "<|bos|>" + CHATML], ids=["own", "chatml", "bos-in"])
def test_tokens_are_the_ones_of_the_models_own_processor(tiny: VLM, template: str | None, bos: bool) -> None:
    if bos:
        from tokenizers import processors

        tiny.tokenizer.add_special_tokens({"bos_token": "<|bos|>"})
        tiny.tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
            single="<|bos|> $A", special_tokens=[("<|bos|>", tiny.tokenizer.bos_token_id)]
        )
    encoder = ChatEncoder(tiny) if template is None else with_template(tiny, template)
    for sample in mixed_samples():
        expected = processor_tokens(tiny, sample)
        np.testing.assert_array_equal(encoder.encode(sample).input_ids, expected, err_msg=sample.id)


def processor_tokens(vlm: VLM, sample: Sample) -> list[int]:
    """The whole road through `transformers`, with real pixels."""
    pictures = iter(sample.images)
    turns: list[dict[str, Any]] = []
    for message in sample.messages:
        content: list[dict[str, Any]] = []
        for piece in re.split(r"\n?(<image>)\n?", message.text):
            if piece == "<image>":
                content.append({"type": "image", "image": next(pictures).open()})
            elif piece:
                content.append({"type": "text", "text": piece})
        turns.append({"role": message.role, "content": content})
    out = vlm.processor.apply_chat_template(turns, tokenize=True, return_dict=True)
    return list(out["input_ids"][0])


def test_row_longer_than_max_length_is_refused_by_id(load_tiny: Callable[..., VLM]) -> None:
    fits = talk("fits", "<image>\nWhat is it?", "A cat.", images=[1])
    length = len(ChatEncoder(load_tiny()).encode(fits))
    assert len(ChatEncoder(load_tiny(max_length=length)).encode(fits)) == length
    with pytest.raises(RowRefusedError, match=rf"sample 'fits' takes {length} tokens.*max_length is {length - 1}"):
        ChatEncoder(load_tiny(max_length=length - 1)).encode(fits)


@pytest.mark.parametrize("images", [(), (1,)], ids=["text-only", "one-image"])
def test_image_token_in_the_text_is_refused_not_miscounted(tiny: VLM, images: tuple[int, ...]) -> None:
    sample = talk("hostile", "<image>\n" * len(images) + "Is <|image|> a word?", "no", images=images)
    with pytest.raises(RowRefusedError, match=r"sample 'hostile'.*<\|image\|>"):
        ChatEncoder(tiny).encode(sample)


def test_image_places_keep_their_order_and_take_17_tokens_each(tiny: VLM) -> None:
    sample = talk("a", "<image>\nWhat?", "no", "<image>\nAnd <image>?", "yes", images=[1, 2, 3])
    row = ChatEncoder(tiny).encode(sample)
    assert (row.input_ids == tiny.image_token_id).sum() == 3 * 17
    assert [i.sha256 for i in row.images] == [i.sha256 for i in sample.images]
    assert not row.answer_mask[row.input_ids == tiny.image_token_id].any()


def test_no_image_twin_has_the_same_answer_and_no_image(tiny: VLM) -> None:
    encoder = ChatEncoder(tiny)
    for text in ["  spaces around ", "line\n"]:
        sample = talk("a", "<image>\nWhat is it?", text, images=[1])
        blind = encoder.encode(sample, images=False)
        assert answers(encoder, blind) == [text + "<|end|>"]
        assert blind.images == ()
        assert tiny.image_token_id not in blind.input_ids
    same_words = Sample("b", (Message("user", "What is it?"), sample.messages[1]))
    np.testing.assert_array_equal(blind.input_ids, encoder.encode(same_words).input_ids)


@pytest.mark.parametrize("sample", mixed_samples(), ids=lambda s: s.id)
def test_prompt_is_the_row_up_to_its_last_answer(tiny: VLM, sample: Sample) -> None:
    encoder = ChatEncoder(tiny)
    row, prompt = encoder.encode(sample), encoder.encode_prompt(sample)
    end = len(row) - len(encoder.tokenizer(sample.messages[-1].text + "<|end|>", add_special_tokens=False)["input_ids"])
    np.testing.assert_array_equal(prompt.input_ids, row.input_ids[:end])
    assert not prompt.answer_mask.any()


def test_image_that_is_gone_is_named(tiny: VLM, tmp_path: Path, make_image: Callable[..., Path]) -> None:
    from liit.data.sample import ImageRef

    path = make_image(tmp_path / "gone.png")
    path.unlink()
    sample = Sample("a", talk("a", "<image>\nWhat?", "no", images=[1]).messages, (ImageRef(str(path), "0" * 64),))
    with pytest.raises(InputError, match=r"gone\.png"):
        ChatEncoder(tiny).encode(sample)
