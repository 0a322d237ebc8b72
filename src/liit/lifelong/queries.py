"""Query sets: examples of what the model should be good at, for the selectors that aim at them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from liit.config import Continuum
from liit.data.ingest import ingest
from liit.data.pool import Pool
from liit.data.sample import Sample, content_hash
from liit.errors import InputError
from liit.evaluation.evaluate import SkillTask
from liit.lifelong.workbench import derived_seed
from liit.selection import select

PER_SOURCE = 20
"""Queries of each source that kind ``replay`` draws where ``queries.per_group`` is not given."""


@dataclass(frozen=True)
class QueryRows:
    """Queries of one step.

    Attributes:
        samples: the queries.
        groups: the skill of each, or its source for kind ``replay``.
        left_out: pool samples that were not drawn because they are evaluation questions too.
    """

    samples: tuple[Sample, ...]
    groups: tuple[str, ...]
    left_out: int = 0


class QuerySource:
    """Where a run's queries come from. None of them is ever an evaluation question.

    Development rows and query files are read and checked once, into a pool of their own. Queries and evaluation
    questions are compared by the hash of what is asked and seen, so another id, file name or answer hides nothing.

    Args:
        continuum: names the rows.
        directory: of that pool.
        tasks: the evaluation questions.
    """

    def __init__(self, continuum: Continuum, directory: Path, tasks: Sequence[SkillTask]) -> None:
        self.continuum, self.directory = continuum, directory
        self._questions = {_asked(sample): task.skill for task in tasks for sample in task.samples}

    def check(self) -> None:
        """Read the rows, unless they come from the run's own pool.

        Raises:
            InputError: a bad row, an empty file, a row in two files, or an evaluation question among them.
        """
        if self.continuum.queries.kind != "replay":
            _ = self._held_out

    def at(self, number: int, pool: Pool, candidates: Sequence[str]) -> QueryRows:
        """The queries of a step: of all skills that have arrived by then.

        Args:
            number: of the step.
            pool: as it is after the step's ingest.
            candidates: ids in it that the model can take.
        """
        settings = self.continuum.queries
        if settings.kind == "replay":
            return self._from_pool(number, pool, candidates)
        groups = list(self._held_out)
        if settings.kind == "dev":
            arrived = {item.skill for step in self.continuum.steps[:number] for item in step.dev}
            groups = [group for group in groups if group in arrived]
        chosen = [(group, sample) for group in groups for sample in self._some(group)]
        return QueryRows(tuple(sample for _, sample in chosen), tuple(group for group, _ in chosen))

    def _some(self, group: str) -> list[Sample]:
        rows, most = self._held_out[group], self.continuum.queries.per_group
        if most is None or most >= len(rows):
            return rows
        drawn = np.random.default_rng(derived_seed(self.continuum.seed, 0, f"queries-{group}")).permutation(len(rows))
        return [rows[place] for place in sorted(drawn[:most])]

    @cached_property
    def _held_out(self) -> dict[str, list[Sample]]:
        pool = Pool.open_or_create(self.directory)
        settings = self.continuum.queries
        if settings.kind == "file":
            assert settings.path is not None, "checked by the configuration"
            files = [(settings.path, settings.format, "", settings.images, settings.allow_outside)]
        else:
            files = [
                (item.path, item.format, item.skill, item.images, item.allow_outside)
                for step in self.continuum.steps
                for item in step.dev
            ]
        for number, (path, form, skill, images, outside) in enumerate(files):
            report = ingest(
                pool, path, form, skill or "queries", image_root=images, skill_key=settings.skill_key,
                allow_outside=outside, strict=True, id_conflict="rename", key=f"queries-{number}",
            )  # fmt: skip
            if report.added != report.rows or not report.rows:
                raise InputError(
                    f"queries: {path} has {report.rows} rows, of which {report.added} are new; expected at least one, "
                    "and no row twice"
                )
        grouped: dict[str, list[Sample]] = {}
        for batch in pool.scan():
            for sample in batch:
                self._refuse_question(sample)
                group = sample.source if settings.kind == "dev" else sample.skill or sample.source
                grouped.setdefault(group, []).append(sample)
        return grouped

    def _refuse_question(self, sample: Sample) -> None:
        skill = self._questions.get(_asked(sample))
        if skill is not None:
            raise InputError(
                f"queries: row {sample.id!r} is also an evaluation question of {skill!r}; a method that sees test rows "
                "measures nothing, so take it out of the queries"
            )

    def _from_pool(self, number: int, pool: Pool, candidates: Sequence[str]) -> QueryRows:
        wanted = set(candidates)
        source_of: dict[str, str] = {}
        for batch in pool.scan():
            for sample in batch:
                if sample.id in wanted and _asked(sample) not in self._questions:
                    source_of[sample.id] = sample.source
        usable = [sample for sample in candidates if sample in source_of]
        sources = [source_of[sample] for sample in usable]
        each = self.continuum.queries.per_group or PER_SOURCE
        drawn: list[str] = []
        for source in dict.fromkeys(sources):
            ids = np.asarray([sample for sample, own in zip(usable, sources, strict=True) if own == source])
            seed = derived_seed(self.continuum.seed, number, f"queries-{source}")
            drawn += [str(sample) for sample in select("random", {"id": ids}, each, seed).ids]
        samples = pool.take(drawn)
        return QueryRows(tuple(samples), tuple(sample.source for sample in samples), len(candidates) - len(usable))


def _asked(sample: Sample) -> str:
    """Hash of what is asked and seen, whatever the answer."""
    return content_hash(tuple(message for message in sample.messages if message.role != "assistant"), sample.images)
