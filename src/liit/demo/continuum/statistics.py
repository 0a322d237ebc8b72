"""What the manifest says about the rows: how many, how alike, and how well one can answer without looking."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np

from liit.demo.continuum.rows import Row
from liit.evaluation.metrics import score_skill

REDRAWN = {"naming-outline": "naming"}
RULE = (
    "A row is a near-duplicate of an earlier one if it is reworded (same pictures, skill and answer, other question;"
    " rows without a picture are never counted) or redrawn (the other vendor's drawing of a concept"
    " that an earlier row names in the first vendor's drawing)."
)


def near_duplicates(rows: Sequence[Row]) -> dict[str, int]:
    """Count the near-duplicates among rows in the order in which they arrive, by `RULE`."""
    seen: set[tuple[str, tuple[str, ...], str]] = set()
    named: set[tuple[str, str]] = set()
    found = {"reworded": 0, "redrawn": 0}
    for row in rows:
        key = (row.skill, row.images, row.answer)
        if row.images and key in seen:
            found["reworded"] += 1
        elif (REDRAWN.get(row.skill, ""), row.answer) in named:
            found["redrawn"] += 1
        seen.add(key)
        named.add((row.skill, row.answer))
    return found


def blind_score(train: Sequence[Row], test: Sequence[Row], metric: str) -> float:
    """Return what is reached without looking, judged by the skill's metric.

    A blind answer is the most frequent training answer to the same question, or to any question of the skill if that
    one is new. Boxes are all different, so there it is their median, edge by edge.

    Args:
        train: Training rows of one skill.
        test: Evaluation rows of that skill.
        metric: How its answers are judged.
    """
    by_question: dict[str, list[str]] = defaultdict(list)
    for row in train:
        by_question[row.question].append(row.answer)
    every = [row.answer for row in train]
    usual = {"box-iou": _median_box, "boxes-iou": _median_box}.get(metric, _most_frequent)
    blind = [usual(by_question.get(row.question) or every) for row in test]
    return round(score_skill(metric, blind, [row.answer for row in test])[0].score, 4)


def _most_frequent(answers: Sequence[str]) -> str:
    return Counter(answers).most_common(1)[0][0]


def _median_box(answers: Sequence[str]) -> str:
    records = [json.loads(answer) for answer in answers]
    return json.dumps({key: np.median([record[key] for record in records], axis=0).tolist() for key in records[0]})
