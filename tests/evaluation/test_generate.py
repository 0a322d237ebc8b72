"""Answers do not depend on the batch, and the model never sees the reference."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pretend_card import Card, put_on_card
from tiny_vlm import mixed_samples, talk

from liit.data.sample import Message, Sample
from liit.errors import InputError
from liit.evaluation.evaluate import SkillTask, evaluate
from liit.evaluation.generate import generate_answers
from liit.model.batch import collate
from liit.model.chat import ChatEncoder
from liit.model.vision import Pixels, VisionCache
from liit.model.vlm import VLM


def answers(vlm: VLM, samples: list[Sample], batch_size: int = 64) -> list[str]:
    return generate_answers(vlm, samples, vision=Pixels(vlm), batch_size=batch_size, max_new_tokens=6)


@pytest.fixture
def prompts_seen(tiny: VLM, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every prompt the model is asked to go on from, as text."""
    seen: list[str] = []
    generate = type(tiny.model).generate

    def spy(self: object, **inputs: object) -> object:
        seen.extend(tiny.tokenizer.batch_decode(inputs["input_ids"], skip_special_tokens=True))
        return generate(self, **inputs)

    monkeypatch.setattr(type(tiny.model), "generate", spy)
    return seen


@torch.no_grad()
def slow_answer(vlm: VLM, sample: Sample, tokens: int) -> str:
    """Greedy decoding without cache, padding or batch: one full forward per token."""
    row = ChatEncoder(vlm).encode_prompt(sample)
    ids = row.input_ids.tolist()
    for _ in range(tokens):
        grown = replace(row, input_ids=np.array(ids), answer_mask=np.zeros(len(ids), dtype=bool))
        batch = collate(vlm, [grown], Pixels(vlm))
        batch.pop("labels")
        ids.append(int(vlm.model(**batch).logits[0, -1].argmax()))
        if ids[-1] == vlm.tokenizer.eos_token_id:
            break
    return str(vlm.tokenizer.decode(ids[len(row) :], skip_special_tokens=True)).strip()


def test_answers_are_greedy_decoding_row_by_row(tiny: VLM) -> None:
    got = answers(tiny, mixed_samples())
    assert got == [slow_answer(tiny, sample, 6) for sample in mixed_samples()]
    assert len(set(got)) > len(got) // 2


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_answers_do_not_depend_on_the_batch_size(tiny: VLM, batch_size: int) -> None:
    assert answers(tiny, mixed_samples(), batch_size) == answers(tiny, mixed_samples())


def test_answers_do_not_depend_on_the_order(tiny: VLM) -> None:
    order = np.random.default_rng(0).permutation(len(mixed_samples()))
    straight = answers(tiny, mixed_samples(), 4)
    assert answers(tiny, [mixed_samples()[i] for i in order], 4) == [straight[i] for i in order]


def room_for_two(vlm: VLM, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let generation run out of memory with more than two prompts; the sizes of the batches that it is given."""
    sizes = list[int]()
    generate = type(vlm.model).generate

    def full(self: object, **inputs: Any) -> object:
        sizes.append(len(inputs["input_ids"]))
        if sizes[-1] > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return generate(self, **inputs)

    monkeypatch.setattr(type(vlm.model), "generate", full)
    return sizes


def test_prompts_that_do_not_fit_together_are_answered_in_smaller_batches(
    tiny: VLM, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    expected, done = answers(tiny, mixed_samples(), 2), list[int]()
    sizes = room_for_two(tiny, monkeypatch)
    got = generate_answers(
        tiny, mixed_samples(), vision=Pixels(tiny), batch_size=8, max_new_tokens=6, progress=done.append
    )
    assert got == expected
    assert sizes == [8, 4, 2, 2, 2, 2, 1]
    assert sum(done) == len(expected)
    assert "out of memory with 8 at once (the prompt of sample); now 4" in caplog.text


def test_groups_of_skills_remember_how_many_prompts_fit(tiny: VLM, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = room_for_two(tiny, monkeypatch)
    monkeypatch.setattr("liit.evaluation.evaluate.GROUP_ROWS", 1)  # more than two batches is a group
    tasks = [SkillTask(f"s{n}", "exact-match", mixed_samples()) for n in range(2)]
    evaluate(tiny, tasks, vision=Pixels(tiny), batch_size=4, max_new_tokens=2)
    assert sizes == [4, 2, 2, 2, 2, 1, 2, 2, 2, 2, 1]


def test_a_prompt_that_does_not_fit_alone_is_refused(tiny: VLM, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: object, **_: Any) -> object:
        raise MemoryError

    monkeypatch.setattr(type(tiny.model), "generate", full)
    with pytest.raises(InputError, match=r"the prompt of sample 'long' does not fit into memory alone \(MemoryError\)"):
        answers(tiny, mixed_samples(), 4)


def test_answers_on_a_card_are_those_of_the_cpu(tiny: VLM) -> None:
    expected = answers(tiny, mixed_samples())
    with Card():
        put_on_card(tiny.model)
        assert answers(tiny, mixed_samples()) == expected


def test_answers_from_kept_vision_states_are_those_from_pixels(tiny: VLM, tmp_path: Path) -> None:
    kept = generate_answers(tiny, mixed_samples(), vision=VisionCache(tiny, tmp_path), max_new_tokens=6)
    same = sum(a == b for a, b in zip(kept, answers(tiny, mixed_samples()), strict=True))
    assert same >= len(kept) - 1  # random weights: float16 may turn one near-tie


def test_prompts_never_contain_the_reference_answer(tiny: VLM, prompts_seen: list[str]) -> None:
    secret = "zyxwv 98765"
    samples = [replace(s, messages=(*s.messages[:-1], Message("assistant", secret))) for s in mixed_samples()]
    got = answers(tiny, samples)
    assert len(prompts_seen) == len(samples)
    assert not any(secret in prompt or "98765" in prompt for prompt in prompts_seen)
    assert got == answers(tiny, mixed_samples())
    assert any("A dog" in prompt for prompt in prompts_seen)  # earlier turns are there


def test_image_is_used_for_the_answer(tiny: VLM) -> None:
    asked = [talk(str(i), "<image>\nWhat is it?", "A cat.", images=[i]) for i in range(8)]
    assert len(set(answers(tiny, asked))) > 1


def test_no_sample_gives_no_answer(tiny: VLM) -> None:
    assert answers(tiny, []) == []


def test_each_skill_is_scored_on_its_own_rows(tiny: VLM) -> None:
    """References are made from the model's own answers: all right in one skill, all wrong in the other."""
    samples = mixed_samples()
    given = answers(tiny, samples)

    def referenced(i: int, text: str) -> Sample:
        return replace(samples[i], messages=(*samples[i].messages[:-1], Message("assistant", text)))

    chosen = [i for i, text in enumerate(given) if text][:4]
    right = SkillTask("right", "exact-match", tuple(referenced(i, given[i]) for i in chosen))
    wrong = SkillTask("wrong", "exact-match", tuple(referenced(i, "nothing like it") for i in chosen[:3]))
    result = evaluate(tiny, [right, wrong], vision=Pixels(tiny), max_new_tokens=6, batch_size=3)
    assert [result.skills[s]["score"] for s in ("right", "wrong")] == [1, 0]
    assert [result.skills[s]["n"] for s in ("right", "wrong")] == [4, 3]
    assert [p["id"] for p in result.predictions] == [s.id for s in (*right.samples, *wrong.samples)]
    assert [p["prediction"] for p in result.predictions[:4]] == [given[i] for i in chosen]
