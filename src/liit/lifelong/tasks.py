"""The evaluation questions of a continuum, read and checked once."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from liit.config import EvaluationSet
from liit.data.ingest import ingest
from liit.data.pool import Pool
from liit.data.sample import Sample
from liit.errors import InputError
from liit.evaluation.evaluate import SkillTask
from liit.evaluation.metrics import score_skill
from liit.evaluation.questions import references_of


def read_tasks(directory: Path, sets: Sequence[EvaluationSet]) -> list[SkillTask]:
    """Read the evaluation questions into a pool of their own.

    Args:
        directory: of that pool.
        sets: the skills and their files.

    Raises:
        InputError: a bad row, a row that measures two skills, an empty file or split, a row without the reference
            answers that `answers_key` names, or a metric that cannot be used.
    """
    pool = Pool.open_or_create(directory)
    files: dict[tuple[object, ...], str] = {}
    splits: set[tuple[object, ...]] = set()
    for item in sets:
        file = _file(item)
        first = files.setdefault(file, item.skill)
        if first != item.skill and ({(file, item.split), (file, None)} & splits or item.split is None):
            raise InputError(
                f"evaluation: {item.path} is read for {first!r} and for {item.skill!r}; give each a 'split' of its own"
            )
        splits.add((file, item.split))
        if first != item.skill:  # a file of several splits is read once
            continue
        report = ingest(
            pool, item.path, item.format, item.skill, image_root=item.images, allow_outside=item.allow_outside,
            strict=True, id_conflict="rename", key=f"evaluation-{item.skill}",
        )  # fmt: skip
        if report.added != report.rows or not report.rows:
            raise InputError(
                f"evaluation: {item.path} has {report.rows} rows, of which {report.added} are new; expected at least "
                "one, and no row that another skill's file has too"
            )
    by_source: dict[str, list[Sample]] = {skill: [] for skill in files.values()}
    for batch in pool.scan():
        for sample in batch:
            if sample.source in by_source:
                by_source[sample.source].append(sample)
    return [_task(item, by_source[files[_file(item)]]) for item in sets]


def _file(item: EvaluationSet) -> tuple[object, ...]:
    return item.path, item.format, item.images, item.allow_outside


def _task(item: EvaluationSet, rows: Sequence[Sample]) -> SkillTask:
    samples = tuple(rows)
    if item.split is not None:
        splits = [str(_row(sample).get("split", "")) for sample in rows]
        samples = tuple(sample for sample, split in zip(rows, splits, strict=True) if split == item.split)
        if not samples:
            raise InputError(
                f"evaluation: {item.path} has no row whose key 'split' is {item.split!r}, only "
                f"{', '.join(repr(split) for split in sorted(set(splits)))}"
            )
    task = SkillTask(
        item.skill,
        item.metric,
        samples,
        options=item.metric_options,
        instruction=item.instruction,
        answers_key=item.answers_key,
        version=item.version,
    )
    _try_metric(task)
    return task


def _try_metric(task: SkillTask) -> None:
    """Score the references against one of them, so that one which the metric cannot read shows before the training."""
    references = [references_of(sample, task.answers_key) for sample in task.samples]
    first = references[0] if isinstance(references[0], str) else references[0][0]
    try:
        score_skill(task.metric, [first] * len(references), references, task.options)
    except InputError as error:
        raise InputError(f"evaluation of {task.skill!r}: {error}") from error
    except TypeError as error:  # an option of a wrong type
        if not task.options:
            raise
        raise InputError(f"evaluation of {task.skill!r}: metric_options {dict(task.options)}: {error}") from error


def _row(sample: Sample) -> Mapping[str, object]:
    row: Mapping[str, object] = json.loads(sample.raw)
    return row
