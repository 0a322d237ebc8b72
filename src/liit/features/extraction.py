"""`liit.extract`: features of every sample that has none yet, appended shard by shard."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from liit.config import FeatureSettings
from liit.data.sample import Sample
from liit.errors import InputError
from liit.features.engine import Extractor, Twin
from liit.features.key import FeatureKey, feature_parameters, model_key
from liit.features.plan import plan_passes
from liit.features.report import ExtractionReport
from liit.features.rescore import AGE, Earlier
from liit.features.store import FeatureStore
from liit.features.writer import Job, only_writer, plan_jobs
from liit.model.chat import ChatEncoder
from liit.model.fingerprint import hash_file
from liit.model.vision import Pixels, VisionCache, VisionInputs
from liit.model.vlm import VLM, load_vlm

SHARD_ROWS = 1024

__all__ = ["SHARD_ROWS", "Extractor", "Twin", "extract"]


def extract(
    vlm: VLM | str,
    samples: Sequence[Sample] | Any,
    features: Sequence[str],
    out: Path | str,
    settings: FeatureSettings | None = None,
    *,
    seed: int = 0,
    vision: VisionInputs | None = None,
    encoder: ChatEncoder | None = None,
    optimizer_state: Path | str | None = None,
    refresh: bool = False,
    progress: Callable[[int], None] | None = None,
    report: ExtractionReport | None = None,
    earlier: Earlier | None = None,
) -> FeatureStore:
    """Compute features of every sample that has none yet, in the fewest model passes.

    Killed at any moment, the same call continues where it was and repeats no more than one shard. A sample whose
    content has changed under its id is computed again. Features that the store lacks are added to it; those that it
    has are not computed again.

    Args:
        vlm: the model, with its adapter; or what `liit.load_vlm` takes, for features without LoRA gradients.
        samples: the samples in ingestion order, or a pool.
        features: standard feature names (see ``liit.features.FEATURES``).
        out: directory of the feature store.
        settings: what changes the values, and ``batch_tokens``, which changes speed and memory only.
        seed: of the gradient sketch.
        vision: where vision inputs come from; pixels by default.
        encoder: reuse of an encoder's memory; without one nothing is remembered, as every row is encoded once.
        optimizer_state: Adam's state by parameter name, from `liit.training.save_adam_state`; gradients are then those
            along which Adam would step (LESS).
        refresh: compute all rows anew when the store was written for another checkpoint or other settings, instead of
            refusing it.
        progress: called with the number of rows just finished.
        report: is counted into while the work goes on; also the store's ``report``.
        earlier: the last step's features. Under the same key they are taken over; under another checkpoint they are
            what ``settings.rescore`` predicts from. Without either setting they are not looked at.

    Returns:
        The store; its ``report`` says what was done.

    Raises:
        InputError: unknown feature; another checkpoint's store at ``out``; another process extracting into it; a sample
            that does not fit into memory alone; a number that ``features.dtype`` cannot hold.
        RowRefusedError: a sample that does not fit the model.
    """
    if isinstance(vlm, str):
        vlm = load_vlm(vlm)
    work = Extraction(vlm, settings or FeatureSettings(), seed, vision, encoder, optimizer_state, report)
    store = work.run(Listing(samples), features, Path(out), earlier, refresh=refresh, progress=progress)
    store.report = work.report
    return store


class Listing:
    """Samples by number: a list, or a pool of which only ids and hashes are held."""

    def __init__(self, samples: Any) -> None:
        self.pool = samples if hasattr(samples, "take") and hasattr(samples, "columns") else None
        if self.pool is not None:
            table = self.pool.columns(["id", "content_hash"])
            self.ids, self.contents = (_array(table[name]) for name in ("id", "content_hash"))
            return
        self.samples: list[Sample] = list(samples)
        self.ids = pa.array([sample.id for sample in self.samples], pa.string())
        self.contents = pa.array([sample.content_hash for sample in self.samples], pa.string())
        if len(self.ids.unique()) != len(self.ids):
            raise InputError("samples: an id occurs twice; ids must be unique")

    def take(self, rows: Sequence[int]) -> list[Sample]:
        """The samples with these numbers."""
        if self.pool is None:
            return [self.samples[row] for row in rows]
        found: list[Sample] = self.pool.take(self.ids.take(pa.array(rows, pa.int64())).to_pylist())
        return found


class Extraction:
    """One call of `extract`.

    Attributes:
        predicted: what the columns depend on besides, where some of their rows are predicted.
    """

    def __init__(
        self,
        vlm: VLM,
        settings: FeatureSettings,
        seed: int,
        vision: VisionInputs | None,
        encoder: ChatEncoder | None,
        optimizer_state: Path | str | None,
        report: ExtractionReport | None,
    ) -> None:
        self.vlm, self.settings, self.seed = vlm, settings, seed
        self.vision: VisionInputs = vision if vision is not None else Pixels(vlm)
        self.encoder = encoder or ChatEncoder(vlm, remember=False)  # every row is met once
        self.state = None if optimizer_state is None else Path(optimizer_state)
        self.report = report if report is not None else ExtractionReport()
        self.predicted: dict[str, Any] | None = None
        if self.state is not None and not self.state.is_file():
            raise InputError(f"optimizer_state: there is no file {str(self.state)!r}")
        self._start = time.perf_counter(), time.process_time()
        self._model = model_key(vlm, self.encoder.template_id, self.vision)
        self._optimizer = None if self.state is None else hash_file(self.state)

    def key_of(self, names: Sequence[str]) -> FeatureKey:
        """The key of some columns."""
        n_layers = self.vlm.text_config.num_hidden_layers
        computed = [name for name in names if name != AGE]
        columns: dict[str, dict[str, Any]] = {AGE: {}}
        if computed:
            columns |= feature_parameters(self.settings, n_layers, self.seed, computed, self._optimizer)
        key = FeatureKey(self._model, {name: columns[name] for name in names})
        return key if self.predicted is None else key.with_parameters(predicted=self.predicted)

    def run(
        self,
        listing: Listing,
        features: Sequence[str],
        out: Path,
        earlier: Earlier | None,
        *,
        refresh: bool,
        progress: Callable[[int], None] | None,
    ) -> FeatureStore:
        """Do what is missing and give the store."""
        from liit.features.carrying import carry  # which is built on this

        names = plan_passes(features, self.settings, self.vlm.text_config.num_hidden_layers).features
        with only_writer(out):
            if earlier is None:
                if self.settings.rescore is not None:
                    self.report.note("features.rescore: there is no earlier step to predict from; every row is scored")
                self.score(listing, np.arange(len(listing.ids)), names, out, refresh=refresh, progress=progress)
            else:
                names = carry(self, earlier, listing, names, out, refresh=refresh, progress=progress)
        self.clock()
        return FeatureStore(out, key=self.key_of(names))

    def score(
        self,
        listing: Listing,
        rows: np.ndarray,
        names: Sequence[str],
        out: Path,
        *,
        refresh: bool = False,
        progress: Callable[[int], None] | None = None,
    ) -> None:
        """Compute what is missing of some rows, by number."""
        for job in self.plan(listing, rows, names, out, refresh=refresh):
            self._do(job, listing, rows, progress)

    def plan(
        self, listing: Listing, rows: np.ndarray, names: Sequence[str], out: Path, *, refresh: bool = False
    ) -> list[Job]:
        """What is missing of some rows; the report counts them beside those of earlier calls."""
        report, taken = self.report, pa.array(rows)
        before = report.rows, report.fresh, report.scored
        ids, contents = listing.ids.take(taken), listing.contents.take(taken)
        jobs = plan_jobs(out, names, self.key_of, ids, contents, report, refresh=refresh)
        now = report.rows, report.fresh, report.scored
        report.rows, report.fresh, report.scored = (old + new for old, new in zip(before, now, strict=True))
        return jobs

    def _do(self, job: Job, listing: Listing, numbers: np.ndarray, progress: Callable[[int], None] | None) -> None:
        computed = [name for name in job.features if name != AGE]
        extractor = Extractor(
            self.vlm, computed, self.settings, self.vision, self.seed, optimizer_state=self.state, report=self.report
        )

        def done(rows: int) -> None:
            self.report.done += rows
            self.clock()
            if progress is not None:
                progress(rows)

        for start in range(0, len(job.rows), SHARD_ROWS):
            shard = listing.take(numbers[job.rows[start : start + SHARD_ROWS]].tolist())
            twins = [self._twin(sample, blind=extractor.plan.blind) for sample in shard]
            if isinstance(self.vision, VisionCache) and extractor.plan.forward_layers:
                self.report.tower_images += self.vision.fill_rows(sample.images for sample in shard)
            columns = {**extractor(twins, done), AGE: np.zeros(len(shard), dtype=np.float32)}
            ids, contents = [sample.id for sample in shard], [sample.content_hash for sample in shard]
            for table in job.tables:
                self.report.bytes_written += table.append(ids, contents, columns)
            del columns  # before the next shard's are made

    def _twin(self, sample: Sample, *, blind: bool) -> Twin:
        row = self.encoder.encode(sample)
        if not (blind and sample.images):
            return Twin(row, None)
        return Twin(row, row if self.settings.blind == "zeros" else self.encoder.encode(sample, images=False))

    def clock(self) -> None:
        """Put the time so far into the report."""
        wall, cpu = self._start
        self.report.seconds, self.report.cpu_seconds = time.perf_counter() - wall, time.process_time() - cpu


def _array(column: pa.ChunkedArray) -> pa.Array:
    """One array of a column."""
    array = column.combine_chunks()
    return pa.concat_arrays(array.chunks) if isinstance(array, pa.ChunkedArray) else array
