"""Predictions along a run: each extraction from the speed of the one before, and each compared with what happened."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from liit.data.part import images_of, some_of
from liit.data.sample import ImageRef, Sample
from liit.doctor.calibration import Calibration, Watch, watched
from liit.doctor.examine import ModelAtHand, not_stored, to_be_scored
from liit.doctor.prediction import Compared, Prediction, compare, missing_of, predict_extraction
from liit.doctor.text import duration, number
from liit.doctor.workload import choose_rows, look_at
from liit.features import ExtractionReport
from liit.features.plan import plan_passes
from liit.lifelong import stages
from liit.lifelong.workbench import Workbench

LOOKED_AT = 512  # rows, so that looking costs little beside scoring


class Forecaster:
    """Wraps the extractions of a run.

    Args:
        bench: the run's model.
    """

    def __init__(self, bench: Workbench) -> None:
        self.bench = bench
        self.speed: Calibration | None = None

    def extract(
        self,
        adapter: Path | None,
        samples: Sequence[Sample],
        names: Sequence[str],
        out: Path,
        progress: Callable[[int], None] | None,
        note: Callable[[str], None],
        last: Path | None = None,
    ) -> stages.Facts:
        """`stages.extract_step`, with a note on how it compares with what was predicted.

        The first extraction of a process has nothing to take its speed from, so its time is not predicted.
        """
        prediction = self._predict(adapter, samples, names, out, last)
        report = ExtractionReport()
        with watched(self.bench.vlm.device) as watch:
            facts = stages.extract_step(self.bench, adapter, samples, names, out, progress, report, last=last)
        if report.predicted or report.carried:
            note(report.notes[-1])
        if words := in_short(compare(prediction, report, watch)):
            note(words)
        self._learn(prediction, report, watch)
        return facts

    def _predict(
        self, adapter: Path | None, samples: Sequence[Sample], names: Sequence[str], out: Path, last: Path | None
    ) -> Prediction:
        model = ModelAtHand(self.bench.continuum, adapter, bench=self.bench).scorer
        settings = self.bench.continuum.features
        missing = not_stored(samples, names, out)
        todo = to_be_scored(missing, self.bench.continuum, last)
        plan = plan_passes(names, settings, model.shape.layers)
        chosen = some_of(todo, choose_rows(len(todo), most=LOOKED_AT))
        shares = model.shares_images(names)
        work = look_at(
            model.encoder, chosen, len(todo), blind=plan.blind, share=model.share, share_images=shares
        )  # fmt: skip
        return predict_extraction(
            model.shape, work, names, settings,
            calibration=self.speed, base_memory=model.base_memory, image_bytes=model.image_bytes(chosen),
            missing_images=missing_of(self.bench.scorer.vision, [ImageRef("", one) for one in images_of(todo)]),
            known=len(missing) - len(todo),
        )  # fmt: skip

    def _learn(self, prediction: Prediction, report: ExtractionReport, watch: Watch) -> None:
        if not (report.scored and prediction.flops and report.seconds):
            return
        tower = max(0.0, watch.seconds - report.seconds)  # vision features are filled before the rows are scored
        self.speed = Calibration(
            rows=report.scored,
            flops_per_second=prediction.flops / report.seconds,
            overhead=0.0,
            seconds_per_image=tower / report.tower_images if report.tower_images else 0.0,
            image_bytes=0.0,
            peak_memory=watch.peak_memory,
            seconds=0.0,
        )


def in_short(rows: Sequence[Compared]) -> str:
    """Prediction and fact in one line; empty when nothing was to be done."""
    by_name = {row.name: row for row in rows}
    parts = []
    calls = [by_name[name] for name in by_name if name.startswith("model calls")]
    if calls:
        planned, made = sum(row.predicted for row in calls), sum(row.fact for row in calls)
        parts.append(f"{number(planned)} model calls predicted, {number(made)} made")
    if time := by_name.get("time"):
        parts.append(f"{duration(time.predicted)} predicted, {duration(time.fact)} taken")
    return ", ".join(parts)
