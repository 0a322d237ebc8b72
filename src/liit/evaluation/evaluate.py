"""Evaluating a model on every skill of a continuum."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median_low
from typing import Any

from liit.data.sample import Sample
from liit.evaluation.generate import PROMPT, generate_answers
from liit.evaluation.metrics import SkillResult, score_skill
from liit.evaluation.questions import references_of, with_instruction
from liit.model.chat import ChatEncoder
from liit.model.memory import Pieces
from liit.model.vision import VisionInputs
from liit.model.vlm import VLM

GROUP_ROWS = 128
"""Skills are answered together until there are so many questions (or two batches of them): then batches are full, and
hardly more than these answers are lost when the process is killed."""


@dataclass(frozen=True, slots=True)
class SkillTask:
    """The questions that measure one skill.

    Attributes:
        skill: its name.
        metric: a registered metric.
        samples: conversations whose last message is the reference answer.
        options: of the metric.
        instruction: put below every question, on a line of its own.
        answers_key: key of a row's list of right answers; None: its last message is the only one.
        version: of the questions, as their task file gives it; None without one.
    """

    skill: str
    metric: str
    samples: tuple[Sample, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    instruction: str = ""
    answers_key: str | None = None
    version: int | None = None

    @property
    def identity(self) -> str:
        """Hash of all that is asked and of how answers are judged; equal exactly when results may be compared."""
        settings = [self.metric, dict(self.options), self.instruction, self.answers_key, self.version]
        asked = [[s.id, s.content_hash, references_of(s, self.answers_key)] for s in self.samples]
        return hashlib.sha256(json.dumps([settings, asked], sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class SkillAnswers:
    """One skill's answers and what they are worth.

    Attributes:
        skill: its name.
        result: what `evaluation.json` says of it: metric, score (mean over rows, 0 to 1), n, wrong_format; facts about
            all rows together where the metric gives some, and the version of the questions where they have one.
        predictions: per row: skill, id, prediction, reference, score, wrong_format. With several right answers,
            `reference` is their list.
    """

    skill: str
    result: dict[str, Any]
    predictions: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Results of one checkpoint.

    Attributes:
        skills: the result of every skill, see `SkillAnswers`.
        predictions: of all rows, skill after skill.
    """

    skills: dict[str, dict[str, Any]]
    predictions: list[dict[str, Any]]


def evaluate(
    vlm: VLM,
    tasks: Sequence[SkillTask],
    *,
    vision: VisionInputs,
    batch_size: int = 64,
    max_new_tokens: int = 32,
    encoder: ChatEncoder | None = None,
    progress: Callable[[int], None] | None = None,
    known: Mapping[str, SkillAnswers] | None = None,
    save: Callable[[Sequence[SkillAnswers]], None] | None = None,
) -> Evaluation:
    """Generate answers, a few skills together, and score each skill by its metric.

    Args:
        vlm: the model.
        tasks: skills with their questions.
        vision: where vision inputs come from.
        batch_size: prompts per batch; changes speed and memory only.
        max_new_tokens: longest answer in tokens.
        encoder: reuse of an encoder's memory.
        progress: called with the number of answers just made.
        known: skills that have been answered before, by name; they are not answered again.
        save: called with skills as soon as all their answers are there. Called with what was saved, in `known`, the
            same function goes on with the same groups and so with the same batches.

    Returns:
        Results and answers of all tasks, in their order.

    Raises:
        InputError: a reference that a metric cannot read.
    """
    encoder = encoder or ChatEncoder(vlm)
    done, pieces = dict(known or {}), Pieces(batch_size, PROMPT)
    for group in _groups([task for task in tasks if task.skill not in done], max(GROUP_ROWS, 2 * batch_size)):
        answers = iter(
            generate_answers(
                vlm,
                [with_instruction(sample, task.instruction) for task in group for sample in task.samples],
                vision=vision,
                max_new_tokens=max_new_tokens,
                encoder=encoder,
                progress=progress,
                pieces=pieces,
            )
        )
        finished = [score_answers(task, [next(answers) for _ in task.samples]) for task in group]
        if save is not None:
            save(finished)
        done.update((skill.skill, skill) for skill in finished)
    return Evaluation(
        {task.skill: done[task.skill].result for task in tasks},
        [row for task in tasks for row in done[task.skill].predictions],
    )


def score_answers(task: SkillTask, answers: Sequence[str]) -> SkillAnswers:
    """Score one skill's answers, one per sample.

    Raises:
        InputError: a reference that the metric cannot read.
    """
    references = [references_of(sample, task.answers_key) for sample in task.samples]
    result, scores = score_skill(task.metric, answers, references, task.options)
    predictions = [
        {
            "skill": task.skill,
            "id": sample.id,
            "prediction": answer,
            "reference": reference,
            "score": score.value,
            "wrong_format": score.wrong_format,
        }
        for sample, answer, reference, score in zip(task.samples, answers, references, scores, strict=True)
    ]
    return SkillAnswers(task.skill, _entry(task, result), predictions)


def _entry(task: SkillTask, result: SkillResult) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "metric": result.metric,
        "score": result.score,
        "n": result.n,
        "wrong_format": result.wrong_format,
    }
    given = {"options": dict(task.options), "facts": result.facts, "version": task.version}
    return entry | {name: value for name, value in given.items() if value}


def _groups(tasks: Sequence[SkillTask], rows: int) -> Iterator[list[SkillTask]]:
    """Consecutive skills, those with short answers first, so many together that there are at least `rows` questions.

    A batch is generated until its longest answer ends, so skills with answers of like length belong together. What is
    left after some groups falls into the same groups as before.
    """

    def length(task: SkillTask) -> tuple[int, int]:
        words = [(len(sample.messages[-1].text), sum(len(m.text) for m in sample.messages)) for sample in task.samples]
        return median_low([answer for answer, _ in words]), median_low([whole for _, whole in words])

    group: list[SkillTask] = []
    for task in sorted(tasks, key=lambda task: length(task) if task.samples else (0, 0)):
        group.append(task)
        if sum(len(one.samples) for one in group) >= rows:
            yield group
            group = []
    if group:
        yield group
