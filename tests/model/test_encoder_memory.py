"""What a sample becomes is worked out once, and again when the sample or the template changes."""

from __future__ import annotations

import numpy as np
import pytest
from tiny_vlm import mixed_samples, talk

from liit.model import chat
from liit.model.chat import ChatEncoder
from liit.model.vlm import VLM


def test_sample_is_tokenised_once_with_and_once_without_its_images(tiny: VLM, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = ChatEncoder(tiny)
    first = [(encoder.encode(s), encoder.encode(s, images=False)) for s in mixed_samples()]
    monkeypatch.setattr(encoder, "_tokenise", lambda *_: pytest.fail("tokenised again"))
    again = [(encoder.encode(s), encoder.encode(s, images=False)) for s in mixed_samples()]
    for one, two in zip(first, again, strict=True):
        for a, b in zip(one, two, strict=True):
            assert a.id == b.id
            np.testing.assert_array_equal(a.input_ids, b.input_ids)
            np.testing.assert_array_equal(a.answer_mask, b.answer_mask)
            assert a.images == b.images


def test_changed_words_images_template_or_length_are_tokenised_anew(tiny: VLM) -> None:
    encoder = ChatEncoder(tiny)
    before = encoder.encode(talk("a", "<image>\nWhat is it?", "A cat.", images=[1]))
    words = encoder.encode(talk("a", "<image>\nWhat is it?", "A dog.", images=[1]))
    assert words.input_ids.tolist() != before.input_ids.tolist()
    picture = encoder.encode(talk("a", "<image>\nWhat is it?", "A cat.", images=[2]))
    assert picture.images != before.images
    tiny.processor.chat_template = "!" + tiny.processor.chat_template
    longer = encoder.encode(talk("a", "<image>\nWhat is it?", "A cat.", images=[1]))
    assert len(longer) == len(before) + 1
    tiny.max_length = 5
    with pytest.raises(chat.RowRefusedError):
        encoder.encode(talk("a", "<image>\nWhat is it?", "A cat.", images=[1]))


def test_memory_is_bounded(tiny: VLM, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat, "REMEMBERED_TOKENS", 60)
    encoder = ChatEncoder(tiny)
    rows = [encoder.encode(s) for s in mixed_samples()]
    assert 0 < sum(len(row) for row in encoder._memory.values()) <= 60
    assert [encoder.encode(s).input_ids.tolist() for s in mixed_samples()] == [r.input_ids.tolist() for r in rows]
