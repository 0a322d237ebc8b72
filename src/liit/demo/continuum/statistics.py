"""What the manifest says about the rows: how many, how alike, and how well one can answer without looking."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np

from liit.demo.continuum.rows import Row

REDRAWN = {"naming-outline": "naming"}
RULE = (
    "A row is a near-duplicate of an earlier one if it is reworded (same pictures, skill and answer, other question;"
    " rows without a picture and yes/no rows are never counted) or redrawn (the other vendor's drawing of a concept"
    " that an earlier row names in the first vendor's drawing)."
)


def near_duplicates(rows: Sequence[Row]) -> dict[str, int]:
    """Count the near-duplicates among rows in the order in which they arrive, by `RULE`."""
    seen: set[tuple[str, tuple[str, ...], str]] = set()
    named: set[tuple[str, str]] = set()
    found = {"reworded": 0, "redrawn": 0}
    for row in rows:
        key = (row.skill, row.images, row.answer)
        if row.images and row.answer not in ("yes", "no") and key in seen:
            found["reworded"] += 1
        elif (REDRAWN.get(row.skill, ""), row.answer) in named:
            found["redrawn"] += 1
        seen.add(key)
        named.add((row.skill, row.answer))
    return found


def blind_score(train: Sequence[Row], test: Sequence[Row], metric: str) -> float:
    """Return what is reached without looking: the most frequent training answer to the same question, else to any.

    For boxes the answer is the median training box of the same question, and the result the mean intersection over
    union.

    Args:
        train: Training rows of one skill.
        test: Evaluation rows of that skill.
        metric: How its answers are judged.
    """
    by_question: dict[str, list[str]] = defaultdict(list)
    for row in train:
        by_question[row.question].append(row.answer)
    every = [row.answer for row in train]
    scores = []
    for row in test:
        answers = by_question.get(row.question) or every
        if metric == "box-iou":
            median = np.median([json.loads(a)["box"] for a in answers], axis=0)
            scores.append(iou(median.tolist(), json.loads(row.answer)["box"]))
        else:
            scores.append(float(bool(answers) and Counter(answers).most_common(1)[0][0] == row.answer))
    return round(sum(scores) / len(scores), 4)


def iou(a: Sequence[float], b: Sequence[float]) -> float:
    """Return the intersection over union of two boxes (left, top, right, bottom)."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    common = max(0.0, width) * max(0.0, height)
    return common / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - common)
