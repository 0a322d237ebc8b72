"""What a sample becomes is worked out once, and again when the sample or the template changes."""

from __future__ import annotations

import numpy as np
import pytest
from tiny_vlm import mixed_samples, talk

from liit.data.sample import ImageRef
from liit.model import chat, image_tokens
from liit.model.chat import ChatEncoder, Encoded
from liit.model.image_tokens import ImageTokens
from liit.model.remembered import Remembered
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


def same(one: Encoded, other: Encoded) -> bool:
    """Whether two rows are equal, array by array."""
    return (
        one.id == other.id
        and one.images == other.images
        and one.input_ids.tolist() == other.input_ids.tolist()
        and one.answer_mask.tolist() == other.answer_mask.tolist()
    )


@pytest.mark.parametrize("remember", [True, False])
@pytest.mark.parametrize("limit", [0, 3000, 64 << 20])
def test_rows_are_the_same_whatever_is_remembered(
    tiny: VLM, monkeypatch: pytest.MonkeyPatch, remember: bool, limit: int
) -> None:
    expected = [ChatEncoder(tiny, remember=False).encode(s) for s in mixed_samples()]
    monkeypatch.setattr(chat, "REMEMBERED_BYTES", limit)
    encoder = ChatEncoder(tiny, remember=remember)
    for _ in range(2):
        assert all(map(same, [encoder.encode(s) for s in mixed_samples()], expected))


def test_remembered_rows_take_no_more_than_their_bytes(tiny: VLM, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat, "REMEMBERED_BYTES", 4000)
    encoder = ChatEncoder(tiny)
    rows = [encoder.encode(s) for s in mixed_samples()]
    assert sum(row.input_ids.nbytes + row.answer_mask.nbytes + chat.ROW_BYTES for row in rows) > 4000
    kept = [row for row in rows if any(row is entry for entry, _ in encoder._memory._entries.values())]
    assert kept == rows[-len(kept) :]
    assert 0 < sum(row.size for row in kept) == encoder._memory.bytes <= 4000


def test_an_encoder_may_remember_nothing(tiny: VLM, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = ChatEncoder(tiny, remember=False)
    calls = []
    real = encoder._tokenise
    monkeypatch.setattr(encoder, "_tokenise", lambda *given: calls.append(1) or real(*given))
    sample = mixed_samples()[0]
    assert same(encoder.encode(sample), encoder.encode(sample))
    assert len(calls) == 2


def test_bytes_of_a_row_count_images_that_it_holds() -> None:
    ids, mask = np.zeros(10, np.int64), np.zeros(10, bool)
    plain = Encoded("a", ids, mask, (ImageRef("a.png", "0" * 64),))
    held = Encoded("a", ids, mask, (ImageRef("", "0" * 64, b"12345"),))
    assert plain.size == 90 + chat.ROW_BYTES
    assert held.size == plain.size + 5


def test_the_least_recently_used_goes_first() -> None:
    memory: Remembered[str, int] = Remembered(10)
    for name in "abc":
        memory.put(name, ord(name), 3)
    assert memory.get("a") == ord("a")
    memory.put("d", ord("d"), 3)
    assert [memory.get(name) for name in "abcd"] == [ord("a"), None, ord("c"), ord("d")]
    memory.put("c", 1, 6)  # anew and larger: a was used least recently
    assert [memory.get(name) for name in "acd"] == [None, 1, ord("d")]
    assert memory.bytes == 9
    memory.put("e", 1, 11)  # larger than the limit
    assert memory.get("e") is None
    assert len(memory) == 2


def test_sizes_of_images_are_remembered_for_the_latest_only(tiny: VLM, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_tokens, "SIZES_BYTES", 3 * image_tokens.SIZE_BYTES)
    tokens = ImageTokens(tiny)
    looked = []
    monkeypatch.setattr(image_tokens, "image_size", lambda image: looked.append(image.sha256) or (20, 20))
    images = [ImageRef("", f"{number:064x}", b"") for number in range(5)]
    expansions = [tokens.expansion(image) for image in images]
    assert len(tokens._sizes) == 3
    assert [tokens.expansion(image) for image in reversed(images)] == expansions[::-1]
    assert looked == [image.sha256 for image in (*images, images[1], images[0])]


def test_expansions_are_bounded_by_their_text(tiny: VLM, monkeypatch: pytest.MonkeyPatch) -> None:
    image = ImageRef("", "0" * 64, b"")
    sizes = iter([(20, 20), (20, 30)] * 3)
    monkeypatch.setattr(image_tokens, "SIZES_BYTES", 0)
    monkeypatch.setattr(image_tokens, "image_size", lambda _: next(sizes))
    monkeypatch.setattr(image_tokens, "EXPANSIONS_BYTES", len(ImageTokens(tiny).expansion(image).text) + 300)
    next(sizes)
    tokens = ImageTokens(tiny)
    assert tokens.expansion(image) == ImageTokens(tiny)._expand((20, 20), False)
    assert tokens.expansion(image) == ImageTokens(tiny)._expand((20, 30), False)
    assert len(tokens._known) == 1
