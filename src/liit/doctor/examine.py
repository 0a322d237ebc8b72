"""A model and a pool: what is there is looked at, a little of it is tried, and the extraction is predicted."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from liit.config import Continuum, FeatureSettings
from liit.data.part import ids_of, images_of, only, some_of
from liit.data.pool import Pool
from liit.data.sample import ImageRef, Sample
from liit.doctor.calibration import (
    CALIBRATION_SECONDS,
    Calibration,
    calibrate_extraction,
    matrix_rate,
    resident_memory,
)
from liit.doctor.prediction import Prediction, missing_of, predict_extraction
from liit.doctor.shape import ModelShape, outline, shape_of
from liit.doctor.workload import choose_rows, look_at
from liit.features import FeatureStore
from liit.features.extraction import Extractor
from liit.features.plan import plan_passes
from liit.features.rescore import count_again
from liit.features.settings import batch_tokens
from liit.features.sharing import may_share_images
from liit.features.store import open_tables
from liit.lifelong.stages import earlier_features
from liit.lifelong.workbench import Workbench
from liit.model.chat import ChatEncoder, RowRefusedError
from liit.model.vision import VisionInputs
from liit.model.vlm import DTYPES, VLM, usual_device

TRIED = 1024  # rows that a calibration may use at most
SHORT_SECONDS = 3.0  # of a calibration before an extraction that starts anyway
TRIAL_BATCHES = 4  # that a calibration scores at least, all its measurements together


class ModelAtHand:
    """The model of a continuum file for a prediction: loaded, or by its shapes alone.

    Args:
        continuum: names the model, the adapter's settings and the features' settings.
        adapter: adapter to score with; the run's fresh one unless given.
        run: load the weights, so that a little work can be tried.
        bench: has them loaded already.
    """

    def __init__(
        self, continuum: Continuum, adapter: Path | None = None, *, run: bool = True, bench: Workbench | None = None
    ) -> None:
        self.continuum, self.run = continuum, run
        self.bench: Workbench | None = None
        self.vision: VisionInputs | None = None
        self.vlm: VLM
        if run:
            self.bench = bench or Workbench(continuum)
            self.vlm, self.encoder = self.bench.with_adapter(adapter), self.bench.encoder
            self.vision = self.bench.vision
            self.base_memory: float | None = resident_memory(self.vlm.device)
            self.rate: float | None = None
            self.scoring_rate: float | None = None
        else:
            self.vlm = outline(continuum.model)
            self.encoder = ChatEncoder(self.vlm)
            self.base_memory = None
            device = usual_device()
            self.rate = matrix_rate(DTYPES[continuum.model.dtype], device)
            autocast = continuum.features.autocast
            self.scoring_rate = self.rate if autocast is None else matrix_rate(DTYPES[autocast], device)
        self.shape: ModelShape = shape_of(self.vlm, continuum.lora)
        self.share = shares_beginnings(self.vlm, continuum.features) if run else continuum.features.share_beginnings

    def shares_images(self, names: Sequence[str]) -> bool:
        """Whether rows of one image share the pass over it; without weights only what the family says is known."""
        settings = self.continuum.features
        if not settings.share_images or not plan_passes(names, settings, self.shape.layers).fork:
            return False
        return may_share_images(self.vlm) if not self.run else Extractor(self.vlm, names, settings).fork > 0

    @cached_property
    def scorer(self) -> ModelAtHand:
        """The model that extracts: this one, or the proxy that the settings name."""
        proxy = self.continuum.features.proxy
        if proxy is None:
            return self
        if self.bench is not None:
            bench = self.bench.scorer
            return ModelAtHand(bench.continuum, bench=bench)
        return ModelAtHand(Workbench(self.continuum).scorer.continuum, run=False)

    def fitting(self, samples: Sequence[Sample]) -> list[Sample]:
        """Those that the model can take."""
        found = []
        for sample in samples:
            try:
                self.encoder.encode(sample)
            except RowRefusedError:
                continue
            found.append(sample)
        return found

    def image_bytes(self, samples: Sequence[Sample]) -> float:
        """Bytes that the kept vision features of one image take, by the image tokens of the first row with images."""
        for sample in samples:
            if not sample.images:
                continue
            ids = self.encoder.encode(sample).input_ids
            tokens = int((ids == self.vlm.image_token_id).sum()) / len(sample.images)
            vision = getattr(self.vlm.base.config, "vision_config", None)
            return 2.0 * tokens * (getattr(vision, "hidden_size", None) or self.shape.hidden)
        return 0.0

    def calibrate(self, samples: Sequence[Sample], names: Sequence[str], budget: float) -> Calibration | None:
        """Try some of the work; None when the weights are not loaded or there is nothing to try."""
        usable = self.fitting(samples[:TRIED])
        if self.vision is None or not usable:
            return None
        return calibrate_extraction(
            self.vlm, usable, names, self.continuum.features, self.shape,
            vision=self.vision, encoder=self.encoder, share=self.share, share_images=self.shares_images(names),
            budget=budget,
        )  # fmt: skip


def examine_pool(
    model: ModelAtHand, pool: Pool, names: Sequence[str], *, budget: float = CALIBRATION_SECONDS
) -> Prediction:
    """Predict the extraction of all samples of a pool.

    Args:
        model: as it is at hand.
        pool: the samples.
        names: standard feature names.
        budget: seconds that trying may take.

    Raises:
        InputError: an unknown feature, an empty pool, or no row that fits the model.
    """
    model = model.scorer
    table = pool.columns(["id", "image_hashes"])
    ids = table["id"].to_pylist()
    hashes = {image for row in table["image_hashes"].to_pylist() for image in row or ()}
    chosen = pool.take([ids[i] for i in choose_rows(len(ids))])
    return examine(model, chosen, len(ids), hashes, names, budget=budget)


def examine(
    model: ModelAtHand,
    samples: Sequence[Sample],
    rows: int,
    hashes: set[str],
    names: Sequence[str],
    *,
    budget: float = CALIBRATION_SECONDS,
    share: float = 1.0,
) -> Prediction:
    """Predict an extraction from some of its samples.

    Args:
        model: as it is at hand.
        samples: some of them, drawn at random.
        rows: how many there are.
        hashes: SHA-256 of all their images.
        names: standard feature names.
        budget: seconds that trying may take.
        share: nothing is tried when that would score more than this share of the rows.
    """
    settings = model.continuum.features
    plan = plan_passes(names, settings, model.shape.layers)
    shares = model.shares_images(names)
    work = look_at(model.encoder, samples, rows, blind=plan.blind, share=model.share, share_images=shares)
    shuffled = [samples[i] for i in _shuffled(len(samples))]
    runs = plan.forward_layers > 0 or plan.blind
    per_batch = batch_tokens(settings, model.shape.device)
    worth = share >= 1 or TRIAL_BATCHES * per_batch <= share * work.with_images(per_batch).tokens
    calibration = model.calibrate(shuffled, names, budget) if worth and runs else None
    missing = len(hashes) if model.vision is None else missing_of(model.vision, [ImageRef("", h) for h in hashes])
    image_bytes = model.image_bytes(samples) if calibration is None else calibration.image_bytes
    return predict_extraction(
        model.shape, work, names, settings,
        calibration=calibration, matrix_rate=model.scoring_rate, missing_images=missing if plan.forward_layers else 0,
        image_bytes=image_bytes, base_memory=model.base_memory,
    )  # fmt: skip


def examine_step(
    bench: Workbench, adapter: Path | None, samples: Sequence[Sample], names: Sequence[str], out: Path
) -> Prediction:
    """Predict what `liit extract` is about to do; at most a tenth of the work is tried first.

    Args:
        bench: the model, loaded.
        adapter: to score with.
        samples: that the model can take.
        names: standard feature names.
        out: the feature store; rows that it has are not counted.
    """
    todo = not_stored(samples, names, out)
    model = ModelAtHand(bench.continuum, adapter, bench=bench).scorer
    chosen = some_of(todo, choose_rows(len(todo)))
    return examine(model, chosen, len(todo), images_of(todo), names, budget=SHORT_SECONDS, share=0.1)


def shares_beginnings(vlm: VLM, settings: FeatureSettings) -> bool:
    """Whether rows that begin alike share the work on their beginning; the extraction tries that on a few words."""
    blind = Extractor(vlm, ("blind_log_perplexity",), settings).blind
    return blind is not None and blind.share


def not_stored(samples: Sequence[Sample], names: Sequence[str], out: Path) -> Sequence[Sample]:
    """Samples of which a feature store lacks something."""
    if not open_tables(out):  # nothing yet, or what a killed extraction left before its first commit
        return samples
    store = FeatureStore(out)
    stored = set(store.stored_ids()) if set(names) <= set(store.names()) else set()
    return only(samples, lambda sample: sample not in stored)


def to_be_scored(samples: Sequence[Sample], continuum: Continuum, last: Path | None) -> Sequence[Sample]:
    """Samples that the model will see when a part of them keeps, or follows from, the last step's features.

    How many of the known samples that are follows from the strata of the last step; which ones is not known before.

    Args:
        samples: that have no features yet.
        continuum: settings of the extraction.
        last: folder of the last step, if there is one.
    """
    earlier = earlier_features(continuum, last)
    if earlier is None:
        return samples
    known = set(FeatureStore(earlier.features).stored_ids())
    old = [sample for sample in ids_of(samples) if sample in known]
    rescore = continuum.features.rescore
    count = 0
    if rescore is not None and old:
        sizes = np.unique(earlier.strata(old), return_counts=True)[1]
        count = count_again(sizes, rescore.share, rescore.sample)
    again = {old[i] for i in _shuffled(len(old))[:count]}
    return only(samples, lambda sample: sample not in known or sample in again)


def scored_again(rows: float, trained: float, clusters: int, settings: FeatureSettings) -> int:
    """How many rows known from the last step the model will see again, before any step has run.

    Args:
        rows: that are known.
        trained: of these, rows that were trained on.
        clusters: into which they fall, taken to be of equal size, of trained rows as well as of others.
        settings: of the extraction.
    """
    if settings.proxy is not None or not rows:
        return 0
    if settings.rescore is None:
        return round(rows)
    trained = min(trained, rows)
    sizes = np.repeat([trained / clusters, (rows - trained) / clusters], clusters)
    return count_again(sizes, settings.rescore.share, settings.rescore.sample)


def _shuffled(n: int) -> list[int]:
    order: list[int] = np.random.default_rng(0).permutation(n).tolist()
    return order
