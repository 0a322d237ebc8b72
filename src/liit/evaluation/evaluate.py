"""Evaluating a model on every skill of a continuum."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from liit.data.sample import Sample
from liit.evaluation.generate import generate_answers
from liit.evaluation.metrics import score_skill
from liit.model.chat import ChatEncoder
from liit.model.vision import VisionInputs
from liit.model.vlm import VLM


@dataclass(frozen=True, slots=True)
class SkillTask:
    """The questions that measure one skill.

    Attributes:
        skill: its name.
        metric: a registered metric.
        samples: conversations whose last message is the reference answer.
    """

    skill: str
    metric: str
    samples: tuple[Sample, ...]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Results of one checkpoint.

    Attributes:
        skills: per skill: metric, score (mean over rows, 0 to 1), n, wrong_format.
        predictions: per row: skill, id, prediction, reference, score, wrong_format.
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
) -> Evaluation:
    """Generate answers for all tasks at once and score each skill by its metric.

    Args:
        vlm: the model.
        tasks: skills with their questions.
        vision: where vision inputs come from.
        batch_size: prompts per batch; changes speed and memory only.
        max_new_tokens: longest answer in tokens.
        encoder: reuse of an encoder's memory.
        progress: called with the number of answers just made.
    """
    samples = [sample for task in tasks for sample in task.samples]
    answers = iter(
        generate_answers(
            vlm,
            samples,
            vision=vision,
            batch_size=batch_size,
            max_new_tokens=max_new_tokens,
            encoder=encoder,
            progress=progress,
        )
    )
    skills: dict[str, dict[str, Any]] = {}
    predictions: list[dict[str, Any]] = []
    for task in tasks:
        given = [next(answers) for _ in task.samples]
        references = [sample.messages[-1].text for sample in task.samples]
        result, scores = score_skill(task.metric, given, references)
        skills[task.skill] = asdict(result)
        predictions += [
            {
                "skill": task.skill,
                "id": sample.id,
                "prediction": prediction,
                "reference": reference,
                "score": score.value,
                "wrong_format": score.wrong_format,
            }
            for sample, prediction, reference, score in zip(task.samples, given, references, scores, strict=True)
        ]
    return Evaluation(skills, predictions)
