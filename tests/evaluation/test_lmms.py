"""The bridge to lmms-eval: on its interface always, on the package itself where it is installed."""

from __future__ import annotations

import importlib.util
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from tiny_vlm import talk

from liit.errors import InputError
from liit.evaluation.generate import generate_answers
from liit.evaluation.lmms import LmmsAnswers, evaluate_benchmarks
from liit.model.batch import collate
from liit.model.chat import ChatEncoder
from liit.model.vision import Pixels
from liit.model.vlm import VLM

QUESTIONS = ("What is it?", "Is it a dog?", "Which is red?", "How many legs has a cat?", "And its colour?")
GREEDY = {"max_new_tokens": 6, "temperature": 0, "do_sample": False, "num_beams": 1, "until": ["\n\n"]}


@dataclass
class Request:
    """What lmms-eval hands to a model, in the parts that models read."""

    args: tuple[Any, ...]
    task_name: str = "cats"


def documents() -> list[dict[str, Any]]:
    """Questions about pictures; the fourth has none."""
    return [
        {"question": text, "image": None if i == 3 else talk("x", images=[i]).images[0].open()}
        for i, text in enumerate(QUESTIONS)
    ]


def pictures(document: dict[str, Any]) -> list[Image.Image]:
    return [document["image"]] if document["image"] is not None else []


@pytest.fixture
def model(tiny: VLM) -> LmmsAnswers:
    answers = LmmsAnswers(tiny, batch_size=2)
    answers.task_dict = {"cats": {"test": documents()}}
    return answers


def requests(**settings: Any) -> list[Request]:
    return [Request((text, {**GREEDY, **settings}, pictures, i, "cats", "test")) for i, text in enumerate(QUESTIONS)]


def ours(tiny: VLM, tokens: int = 6) -> list[str]:
    samples = [
        talk(str(i), text if i == 3 else f"<image>\n{text}", "-", images=[] if i == 3 else [i])
        for i, text in enumerate(QUESTIONS)
    ]
    return generate_answers(tiny, samples, vision=Pixels(tiny), max_new_tokens=tokens)


def test_benchmarks_get_the_answers_that_our_own_evaluation_gets(tiny: VLM, model: LmmsAnswers) -> None:
    got = model.generate_until(requests())
    assert got == ours(tiny)
    assert len(set(got)) > 1


def test_every_question_has_its_own_settings(tiny: VLM, model: LmmsAnswers) -> None:
    mixed = [*requests()[:2], *requests(max_new_tokens=2)[2:]]
    assert model.generate_until(mixed) == [*ours(tiny)[:2], *ours(tiny, 2)[2:]]


def test_answers_end_at_stop_strings_but_not_at_the_separator_of_examples(tiny: VLM, model: LmmsAnswers) -> None:
    whole = ours(tiny)
    letter = next(text for text in whole if len(text) > 2)[2]
    cut = model.generate_until(requests(until=["\n\n", letter]))
    assert cut == [text.partition(letter)[0].strip() for text in whole]
    assert model.generate_until(requests(until="\n\n")) == whole


def test_what_is_not_greedy_is_refused_with_the_way_out(model: LmmsAnswers) -> None:
    for settings in ({"temperature": 0.7}, {"do_sample": True, "temperature": None}, {"num_beams": 4}):
        with pytest.raises(InputError, match=r"cats asks for .* --generation"):
            model.generate_until(requests(**settings))


def test_what_is_no_picture_is_refused_by_name(model: LmmsAnswers) -> None:
    with pytest.raises(InputError, match=r"cats/test/1 shows a str; liit takes pictures only"):
        model.generate_until([Request(("Q", GREEDY, lambda _: ["clip.mp4"], 1, "cats", "test"))])
    with pytest.raises(InputError, match=r"cats/test/0 has 2 <image> tags for 1 images"):
        model.generate_until([Request(("<image> <image>", GREEDY, pictures, 0, "cats", "test"))])
    with pytest.raises(InputError, match="several rounds"):
        model.generate_until_multi_round([Request(())])


def choices() -> list[Request]:
    options = ("A cat.", "4", "the first one, on the left")
    return [
        Request((text, answer, pictures, i, "cats", "test")) for i, text in enumerate(QUESTIONS) for answer in options
    ]


@torch.no_grad()
def test_loglikelihood_is_the_mean_loss_of_the_answer(tiny: VLM, model: LmmsAnswers) -> None:
    got = model.loglikelihood(choices())
    for request, (loss, greedy) in zip(choices(), got, strict=True):
        text, answer, _, i, _, _ = request.args
        sample = talk("x", text if i == 3 else f"<image>\n{text}", answer, images=[] if i == 3 else [i])
        batch = collate(tiny, [ChatEncoder(tiny).encode(sample)], Pixels(tiny))
        assert loss == pytest.approx(float(tiny.model(**batch).loss), abs=1e-4)
        assert not greedy
    assert len({round(loss, 3) for loss, _ in got}) > 3


def test_an_answer_given_as_a_function_is_asked_of_the_document(model: LmmsAnswers) -> None:
    plain = model.loglikelihood([Request((QUESTIONS[0], " A cat.", pictures, 0, "cats", "test"))])
    asked = model.loglikelihood([Request((QUESTIONS[0], lambda _: "A cat.", pictures, 0, "cats", "test"))])
    assert plain == asked


def test_without_the_package_one_line_says_what_to_install(tiny: VLM, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("liit.evaluation.lmms.find_spec", lambda _: None)
    with pytest.raises(InputError, match=r"lmms: .*pip install 'liit\[lmms\]'"):
        evaluate_benchmarks(tiny, ["mme"])


needs_lmms = pytest.mark.skipif(importlib.util.find_spec("lmms_eval") is None, reason="lmms-eval is not installed")

GENERATING = """
task: liit_cats
dataset_path: json
dataset_kwargs:
  data_files: {{test: {data}}}
test_split: test
output_type: generate_until
doc_to_visual: !function cats.pictures
doc_to_text: "{{{{question}}}}"
doc_to_target: answer
generation_kwargs: {{max_new_tokens: 6, temperature: 0, do_sample: false}}
metric_list:
  - {{metric: exact_match, aggregation: mean, higher_is_better: true, ignore_case: true}}
metadata:
  - version: 3.0
"""
CHOOSING = """
task: liit_choice
dataset_path: json
dataset_kwargs:
  data_files: {{test: {data}}}
test_split: test
output_type: multiple_choice
doc_to_visual: !function cats.pictures
doc_to_text: "{{{{question}}}}"
doc_to_target: gold
doc_to_choice: choices
metric_list:
  - {{metric: acc, aggregation: mean, higher_is_better: true}}
metadata:
  - version: 1.0
"""
FUNCTIONS = """
from PIL import Image

def pictures(doc):
    return [Image.open(doc["image"])] if doc["image"] else []
"""


@pytest.fixture
def local(tiny: VLM, model: LmmsAnswers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two benchmarks on disk; the first three of five answers are right, and so are all choices but the last."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    options = ["A cat.", "4", "the first one, on the left"]
    losses = [loss for loss, _ in model.loglikelihood(choices())]
    rows = []
    for i, (document, answer) in enumerate(zip(documents(), ours(tiny), strict=True)):
        file = tmp_path / f"{i}.png"
        if document["image"] is not None:
            document["image"].save(file)
        best = min(range(3), key=lambda choice: losses[3 * i + choice])
        rows.append(
            {
                "question": document["question"],
                "image": str(file) if document["image"] is not None else "",
                "answer": answer if i < 3 else "nothing like it",
                "choices": options,
                "gold": best if i < 4 else (best + 1) % 3,
            }
        )
    data = tmp_path / "cats.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    folder = tmp_path / "benchmarks"
    folder.mkdir()
    (folder / "cats.py").write_text(FUNCTIONS, encoding="utf-8")
    (folder / "cats.yaml").write_text(GENERATING.format(data=data), encoding="utf-8")
    (folder / "choice.yaml").write_text(CHOOSING.format(data=data), encoding="utf-8")
    return folder


@needs_lmms
@pytest.mark.slow
def test_lmms_eval_itself_asks_and_scores_our_model(tiny: VLM, local: Path) -> None:
    found = evaluate_benchmarks(tiny, ["liit_cats", "liit_choice"], batch_size=2, include=local)
    assert found["liit_cats"].results["exact_match,none"] == pytest.approx(0.6)
    assert found["liit_choice"].results["acc,none"] == pytest.approx(0.8)
    assert {name: benchmark.n for name, benchmark in found.items()} == {"liit_cats": 5, "liit_choice": 5}
    assert found["liit_cats"].version == 3.0
    limited = evaluate_benchmarks(tiny, ["liit_cats"], include=local, limit=3)
    assert limited["liit_cats"].results["exact_match,none"] == 1
    assert limited["liit_cats"].n == 3


@needs_lmms
@pytest.mark.slow
def test_an_unknown_benchmark_is_answered_with_the_nearest(tiny: VLM, local: Path) -> None:
    with pytest.raises(InputError, match="unknown benchmark 'liit_cat'; did you mean 'liit_cats'"):
        evaluate_benchmarks(tiny, ["liit_cat"], include=local)
    assert "lmms_eval" in sys.modules
