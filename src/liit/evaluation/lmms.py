"""A bridge to lmms-eval (`liit[lmms]`): its standard benchmarks, answered by one of our checkpoints.

Written against lmms-eval 0.7: `lmms_eval.api.model.lmms` is the interface of a model, `evaluator.simple_evaluate` takes
an object of it. `LmmsAnswers` implements that interface on our own encoder and generation, so a benchmark sees exactly
the checkpoint, chat template and image processing that training saw. It imports nothing of lmms-eval.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from liit.data.sample import IMAGE_TAG, ImageRef, Message, Sample
from liit.errors import InputError, unknown_name
from liit.evaluation.generate import generate_answers
from liit.model.batch import IGNORE, collate
from liit.model.chat import ChatEncoder
from liit.model.vision import Pixels
from liit.model.vlm import VLM

MODEL_NAME = "liit"
"""By this name a benchmark may have settings of its own for our models (its `lmms_eval_specific_kwargs`)."""
EXAMPLES_APART = "\n\n"
"""Lmms-eval's default stop string, for prompts with examples: ours have none, and an answer may have a blank line."""
LONGEST_ANSWER = 1024
"""Tokens, where a benchmark does not say; what lmms-eval's own models take."""


@dataclass(frozen=True, slots=True)
class Benchmark:
    """What lmms-eval says about one benchmark.

    Attributes:
        results: its metrics, as lmms-eval names them.
        version: of the benchmark, as its file gives it.
        n: questions that were asked.
    """

    results: dict[str, Any]
    version: Any
    n: int


class LmmsAnswers:
    """A checkpoint as a model of lmms-eval.

    Args:
        vlm: the model with its adapter.
        batch_size: questions per batch.
    """

    is_simple = True  # requests carry a text and images, not chat messages

    def __init__(self, vlm: VLM, batch_size: int) -> None:
        super().__init__()
        self.vlm, self.batch_size = vlm, batch_size
        self.vision, self.encoder = Pixels(vlm), ChatEncoder(vlm)
        self.task_dict: dict[str, Any] = {}

    @property
    def device(self) -> torch.device:
        """Where the parameters live."""
        return self.vlm.device

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """Greedy answers, cut at the first of a benchmark's stop strings.

        Args:
            requests: with arguments (text, generation settings, document to images, document's number, task, split).

        Returns:
            One answer per request.

        Raises:
            InputError: settings that are not greedy decoding, images that are no pictures, or a question that does not
                fit the model.
        """
        groups: dict[int, list[int]] = defaultdict(list)
        samples: list[Sample] = []
        stops: list[list[str]] = []
        for number, request in enumerate(requests):
            text, settings, to_images, document, task, split = request.args
            longest, stop = _greedy(settings, task)
            groups[longest].append(number)
            stops.append(stop)
            samples.append(self._sample(text, "", to_images, document, task, split))
        answers = [""] * len(samples)
        for longest, members in groups.items():
            found = generate_answers(
                self.vlm,
                [samples[number] for number in members],
                vision=self.vision,
                batch_size=self.batch_size,
                max_new_tokens=longest,
                encoder=self.encoder,
            )
            for number, answer in zip(members, found, strict=True):
                answers[number] = _cut(answer, stops[number])
        return answers

    @torch.no_grad()
    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        """Mean negative log-likelihood of answers, and whether greedy decoding would give them.

        lmms-eval takes the choice with the *smallest* number (its own models return their loss), so this is what it
        calls a log-likelihood. The mean is over the answer's tokens with the end marker, in nats.

        Args:
            requests: with arguments (text, answer or document to answer, document to images, number, task, split).

        Returns:
            One pair per request.

        Raises:
            InputError: images that are no pictures, or a row that does not fit the model.
        """
        rows = []
        for request in requests:
            if len(request.args) != 6:  # of acc_mutual_info, which asks without the question
                raise InputError("tasks: a benchmark asks for answers without a question; liit has no such answers")
            text, answer, to_images, document, task, split = request.args
            if callable(answer):
                answer = answer(self.task_dict[task][split][document])
            rows.append(self.encoder.encode(self._sample(text, str(answer).strip(), to_images, document, task, split)))
        found: list[tuple[float, bool]] = []
        self.vlm.model.eval()
        for start in range(0, len(rows), self.batch_size):
            batch = collate(self.vlm, rows[start : start + self.batch_size], self.vision)
            labels = batch.pop("labels")[:, 1:]
            logits = self.vlm.model(**batch).logits[:, :-1]
            for row, wanted in zip(logits, labels, strict=True):
                at = wanted != IGNORE
                chosen = row[at].float()
                loss = torch.nn.functional.cross_entropy(chosen, wanted[at])
                found.append((float(loss), bool((chosen.argmax(dim=-1) == wanted[at]).all())))
        return found

    def generate_until_multi_round(self, requests: Sequence[Any]) -> list[str]:
        """Refused: conversations that depend on the model's own answers."""
        raise InputError(f"tasks: {requests[0].task_name} has several rounds; liit answers one question at a time")

    def _sample(self, text: str, answer: str, to_images: Any, document: int, task: str, split: str) -> Sample:
        name = f"{task}/{split}/{document}"
        pictures = to_images(self.task_dict[task][split][document]) if callable(to_images) else to_images
        images = tuple(_held(picture, name) for picture in pictures or ())
        tags = text.count(IMAGE_TAG)
        if images and not tags:
            text = f"{' '.join([IMAGE_TAG] * len(images))}\n{text}"
        elif tags != len(images):
            raise InputError(f"tasks: question {name} has {tags} {IMAGE_TAG} tags for {len(images)} images")
        return Sample(name, (Message("user", text), Message("assistant", answer)), images)


def evaluate_benchmarks(
    vlm: VLM,
    tasks: Sequence[str],
    *,
    batch_size: int = 16,
    limit: int | None = None,
    include: Path | None = None,
    generation: str | None = None,
) -> dict[str, Benchmark]:
    """Have lmms-eval ask a checkpoint its benchmarks.

    The benchmarks and their data are lmms-eval's: it downloads what is not there, and it runs the Python functions that
    a benchmark's YAML file names, those of `include` too.

    Args:
        vlm: the model with its adapter.
        tasks: names of benchmarks or groups, as `lmms-eval tasks` lists them.
        batch_size: questions per batch.
        limit: at most so many questions of each; for a try, not for a result.
        include: folder with benchmarks of your own, in lmms-eval's form.
        generation: instead of the benchmarks' settings, such as "max_new_tokens=64,temperature=0".

    Returns:
        What lmms-eval found, by benchmark.

    Raises:
        InputError: lmms-eval is not installed, an unknown benchmark, or several processes.
    """
    if find_spec("lmms_eval") is None:
        raise InputError("lmms: the package lmms-eval is not installed; pip install 'liit[lmms]'")
    if not tasks:
        raise InputError("tasks: none given; name at least one benchmark of lmms-eval, such as mme")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise InputError("lmms: started as one of several processes; start it as one")
    base = import_module("lmms_eval.api.model").lmms
    evaluator, manager = import_module("lmms_eval.evaluator"), import_module("lmms_eval.tasks").TaskManager
    known = manager(model_name=MODEL_NAME, include_path=None if include is None else str(include))
    for name in tasks:
        if name not in known.all_tasks:
            raise InputError(f"tasks: {_without_the_list(unknown_name('benchmark', name, known.all_tasks))}")
    result = import_module("lmms_eval.api.instance").GenerationResult

    def wrapped(self: LmmsAnswers, requests: Sequence[Any]) -> list[Any]:
        # The evaluator of 0.7 makes text of a bare pair; the content of a result it hands on as it is.
        return [result(pair) for pair in LmmsAnswers.loglikelihood(self, requests)]

    model = type("LiitModel", (LmmsAnswers, base), {"loglikelihood": wrapped})(vlm, batch_size)
    found = evaluator.simple_evaluate(
        model,
        tasks=list(tasks),
        task_manager=known,
        batch_size=batch_size,
        limit=limit,
        gen_kwargs=generation,
        log_samples=False,
        bootstrap_iters=0,
    )
    counts = found.get("n-samples", {})
    return {
        name: Benchmark(
            {key: float(value) if isinstance(value, float) else value for key, value in results.items()},  # no NumPy
            _version(found["configs"].get(name, {})),
            int(counts.get(name, {}).get("effective", 0)),
        )
        for name, results in found["results"].items()
    }


def _version(config: Mapping[str, Any]) -> Any:
    """A benchmark's version, which its file gives under `metadata`, a mapping or a list of them."""
    metadata = config.get("metadata") or {}
    parts = [metadata] if isinstance(metadata, Mapping) else metadata
    return next((part["version"] for part in parts if isinstance(part, Mapping) and "version" in part), None)


def _greedy(settings: Mapping[str, Any], task: str) -> tuple[int, list[str]]:
    """Longest answer and stop strings of a benchmark's generation settings."""
    sampled = settings.get("do_sample") and settings.get("temperature") != 0
    if sampled or (settings.get("temperature") or 0) > 0 or (settings.get("num_beams") or 1) > 1:
        raise InputError(
            f"tasks: {task} asks for {dict(settings)}, liit answers greedily; override it with "
            "--generation temperature=0,do_sample=False,num_beams=1"
        )
    until = settings.get("until") or []
    stops = [stop for stop in ([until] if isinstance(until, str) else until) if stop and stop != EXAMPLES_APART]
    return int(settings.get("max_new_tokens") or LONGEST_ANSWER), stops


def _cut(answer: str, stops: Sequence[str]) -> str:
    for stop in stops:
        answer = answer.partition(stop)[0]
    return answer.strip()


def _held(picture: Any, name: str) -> ImageRef:
    """A PIL image as an image of a sample, by value."""
    if not hasattr(picture, "convert"):
        raise InputError(f"tasks: question {name} shows a {type(picture).__name__}; liit takes pictures only")
    stream = io.BytesIO()
    picture.convert("RGB").save(stream, "PNG", compress_level=1)
    data = stream.getvalue()
    return ImageRef("", hashlib.sha256(data).hexdigest(), data)


def _without_the_list(message: str) -> str:
    """Lmms-eval has over a thousand benchmarks."""
    return f"{message.partition(' (known:')[0]}; `lmms-eval tasks` lists them"
