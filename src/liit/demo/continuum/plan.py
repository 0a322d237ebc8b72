"""How many rows of which skill, in which step, and how answers are judged."""

from __future__ import annotations

from typing import NamedTuple


class Skill(NamedTuple):
    """A skill of a step: the number of its training rows and the metric of its answers."""

    step: str
    name: str
    train: int
    metric: str = "exact-match"


# As uneven as the mixes of the papers: one skill is above 30 % of the rows, four are below 1 %.
SKILLS: tuple[Skill, ...] = (
    Skill("easy-vqa", "colour", 400),
    Skill("easy-vqa", "shape", 400),
    Skill("easy-vqa", "description", 280),
    Skill("pictures", "naming", 3250),
    Skill("pictures", "category", 280),
    Skill("pictures", "background", 280),
    Skill("pictures", "caption", 280),
    Skill("reading", "digit", 320),
    Skill("reading", "parity", 240),
    Skill("reading", "word", 320),
    Skill("reading", "number", 280, "numeric"),
    Skill("reading", "sum", 90),
    Skill("outline", "naming-outline", 800),
    Skill("outline", "count", 280, "numeric"),
    Skill("outline", "count-kind", 240, "numeric"),
    Skill("outline", "existence", 280),
    Skill("outline", "side", 90),
    Skill("grounding", "box", 480, "box-iou"),
    Skill("grounding", "corner", 240),
    Skill("grounding", "boxes", 100, "boxes-iou"),
    Skill("world", "name-es", 140),
    Skill("world", "name-fr", 140),
    Skill("world", "name-de", 140),
    Skill("world", "name-it", 140),
    Skill("world", "name-ja", 70),
    Skill("world", "country", 210),
    Skill("world", "capital", 210),
    Skill("world", "continent", 160),
    Skill("world", "pair", 160),
    Skill("world", "ordinal", 160),
    Skill("world", "facts", 240),
)
# What the base model knows and no step teaches: does it survive?
UNSEEN: tuple[Skill, ...] = (
    Skill("unseen", "general-naming", 0),
    Skill("unseen", "general-caption", 0),
    Skill("unseen", "general-reading", 0),
    Skill("unseen", "general-count", 0, "numeric"),
)
STEPS: tuple[str, ...] = tuple(dict.fromkeys(skill.step for skill in SKILLS))
# Written as Hugging Face messages; the others as LLaVA JSON.
MESSAGES_STEPS = frozenset({"outline"})
EVAL_ROWS = 20


def quota(split: str) -> dict[str, int]:
    """Return the number of rows of every skill in a split; `dev` has as many as `eval`."""
    return {skill.name: skill.train if split == "train" else EVAL_ROWS for skill in (*SKILLS, *UNSEEN)}
