"""One-pass extraction: all features of a batch from one forward, one partial backward and one no-image forward."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from liit.config import FeatureSettings
from liit.data.sample import Sample
from liit.errors import InputError
from liit.features.gradients import LoraGradients
from liit.features.hidden import masked_mean, position_weighted_mean
from liit.features.losses import AnswerStatistics, answer_statistics
from liit.features.settings import BACKWARD, BLIND, VECTORS, check_features, embedding_layer, gradient_layers
from liit.features.sketch import SignedFold
from liit.features.store import FeatureStore
from liit.model.batch import bucket_by_length, collate
from liit.model.chat import ChatEncoder, Encoded
from liit.model.lora import folded_adapter
from liit.model.vision import BlankPixels, Pixels, VisionInputs
from liit.model.vlm import VLM, load_vlm

SHARD_ROWS = 1024


@dataclass(frozen=True, slots=True)
class Twin:
    """A row as the model sees it, and without its images (None for a text-only row)."""

    row: Encoded
    blind: Encoded | None


class Extractor:
    """Computes features of encoded rows with one checkpoint.

    Args:
        vlm: the model, with an adapter when gradients are asked for.
        features: standard feature names.
        settings: what changes their values.
        vision: where vision inputs come from.
        seed: of the gradient sketch; the same for every matrix that is to be compared.
    """

    def __init__(
        self,
        vlm: VLM,
        features: Sequence[str],
        settings: FeatureSettings,
        vision: VisionInputs | None = None,
        seed: int = 0,
    ) -> None:
        self.vlm, self.settings, self.seed = vlm, settings, seed
        self.features = check_features(features)
        self.vision = vision if vision is not None else Pixels(vlm)
        self.blank = BlankPixels(vlm) if settings.blind == "zeros" and BLIND & set(features) else None
        for attribute in ("final_logit_softcapping", "logit_scale"):
            if getattr(vlm.text_config, attribute, None) not in (None, 1, 1.0):
                raise InputError(f"model: {vlm.path} changes its logits after the head ({attribute}), not supported")
        n_layers = vlm.text_config.num_hidden_layers
        self.embedding_layer = embedding_layer(settings, n_layers)
        self.gradient_layers: tuple[int, ...] = ()
        self.gradients: LoraGradients | None = None
        self.sketch: SignedFold | None = None
        if BACKWARD & set(self.features):
            self.gradient_layers = gradient_layers(settings, n_layers)
            self.gradients = LoraGradients(vlm, self.gradient_layers)
            self.sketch = SignedFold(self.gradients.length, settings.dim, seed, vlm.device)
        self.model_calls = 0

    def key(self, template_id: str) -> dict[str, Any]:
        """What the values depend on, JSON-serialisable."""
        return {
            "checkpoint": self.vlm.checkpoint_id,
            "template": template_id,
            "features": list(self.features),
            "settings": self.settings.model_dump(mode="json", exclude={"batch_tokens"}),
            "sketch_seed": self.seed,
        }

    def __call__(self, twins: Sequence[Twin]) -> dict[str, np.ndarray]:
        """Features of some rows, in their order, whatever the batches were.

        Returns:
            (N,) float32 per scalar and (N, d) arrays in the stored type per vector.
        """
        columns: dict[str, np.ndarray] = {}
        with folded_adapter(self.vlm, self.gradient_layers):
            for rows in bucket_by_length([len(t.row) for t in twins], self.settings.batch_tokens):
                self._scatter(columns, rows, len(twins), self._with_images([twins[i].row for i in rows]))
            if BLIND & set(self.features):
                self._blind(columns, twins)
        return {name: columns[name] for name in self.features}

    def _with_images(self, rows: Sequence[Encoded]) -> dict[str, Tensor]:
        wanted = set(self.features)
        batch = collate(self.vlm, rows, self.vision)
        states: dict[str, Tensor] = {}
        handle = None
        if "embedding" in wanted:
            handle = self.vlm.decoder_layers[self.embedding_layer].register_forward_hook(
                lambda _m, _i, out: states.update(layer=(out[0] if isinstance(out, tuple) else out).detach())
            )
        recording = self.gradients.recording() if self.gradients is not None else nullcontext()
        try:
            with recording, torch.set_grad_enabled(self.gradients is not None):
                statistics, hidden = self._forward(batch, gradient=self.gradients is not None)
                out = {
                    "log_perplexity": statistics.log_perplexity,
                    "el2n": statistics.el2n,
                    "entropy": statistics.entropy,
                    "n_answer_tokens": statistics.n_answer_tokens,
                    "n_tokens": batch["attention_mask"].sum(1).float(),
                }
                if "embedding" in wanted:
                    out["embedding"] = masked_mean(states["layer"], batch["attention_mask"])
                if "last_hidden_weighted" in wanted:
                    out["last_hidden_weighted"] = position_weighted_mean(hidden.detach(), batch["attention_mask"])
                if self.gradients is not None:
                    out.update(self._gradient(hidden, statistics))
        finally:
            if handle is not None:
                handle.remove()
        return {name: value for name, value in out.items() if name in wanted or name == "log_perplexity"}

    def _forward(self, batch: dict[str, Tensor], *, gradient: bool) -> tuple[AnswerStatistics, Tensor]:
        self.model_calls += 1
        inputs = {name: value for name, value in batch.items() if name != "labels"}
        hidden: Tensor = self.vlm.backbone(**inputs, use_cache=False)[0]
        return answer_statistics(hidden, batch["labels"], self.vlm.lm_head, gradient=gradient), hidden

    def _gradient(self, hidden: Tensor, statistics: AnswerStatistics) -> dict[str, Tensor]:
        assert self.gradients is not None
        assert self.sketch is not None
        assert statistics.grad_hidden is not None
        squares = torch.zeros(len(hidden), device=hidden.device)
        parts = []
        with torch.no_grad():
            for part in self.gradients.per_sample(hidden, statistics.grad_hidden):
                squares += (part * part).sum(1)
                parts.append(part)
            no_label = statistics.n_answer_tokens == 0  # a missing value, not a gradient of zero
            out = {"grad_norm": squares.sqrt().masked_fill(no_label, torch.nan)}
            if "gradient" in self.features:
                out["gradient"] = self.sketch(parts)
        return out

    @torch.no_grad()
    def _blind(self, columns: dict[str, np.ndarray], twins: Sequence[Twin]) -> None:
        """Log-perplexity of the answer without the image; NaN where there is no image to take away."""
        with_image = [i for i, twin in enumerate(twins) if twin.blind is not None]
        blind = np.full(len(twins), np.nan, dtype=np.float32)
        rows = [twins[i].blind if self.blank is None else twins[i].row for i in with_image]
        for chosen in bucket_by_length([len(r) for r in rows if r is not None], self.settings.batch_tokens):
            batch = collate(self.vlm, [r for i in chosen if (r := rows[i]) is not None], self.blank or self.vision)
            statistics, _ = self._forward(batch, gradient=False)
            blind[np.asarray(with_image)[chosen]] = statistics.log_perplexity.cpu().numpy()
        columns["blind_log_perplexity"] = blind
        columns["image_grounding"] = np.exp(blind - columns["log_perplexity"])

    def _scatter(self, columns: dict[str, np.ndarray], rows: np.ndarray, n: int, values: dict[str, Tensor]) -> None:
        for name, value in values.items():
            array = value.detach().float().cpu().numpy()
            if name not in columns:
                dtype = np.dtype(self.settings.dtype) if name in VECTORS else np.dtype(np.float32)
                columns[name] = np.zeros((n, *array.shape[1:]), dtype=dtype)
            columns[name][rows] = array


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
    progress: Callable[[int], None] | None = None,
) -> FeatureStore:
    """Compute features of every sample that has none yet, appending shard by shard.

    Killed at any moment, the same call continues where it was.

    Args:
        vlm: the model, with its adapter; or what `liit.load_vlm` takes, for features without gradients.
        samples: the samples in ingestion order, or a pool.
        features: standard feature names (see ``liit.features.FEATURES``).
        out: directory of the feature store.
        settings: what changes the values, and ``batch_tokens``, which changes speed and memory only.
        seed: of the gradient sketch.
        vision: where vision inputs come from; pixels by default.
        encoder: reuse of an encoder's memory.
        progress: called with the number of rows just stored.

    Raises:
        InputError: unknown feature, another checkpoint's store at ``out``.
        RowRefusedError: a sample that does not fit the model.
    """
    if isinstance(vlm, str):
        vlm = load_vlm(vlm)
    settings = settings or FeatureSettings()
    encoder = encoder or ChatEncoder(vlm)
    extractor = Extractor(vlm, features, settings, vision, seed)
    store = FeatureStore(Path(out), extractor.key(encoder.template_id))
    done = set(store.stored_ids())
    todo = [s for s in _listed(samples) if s.id not in done]
    needs_blind = bool(BLIND & set(extractor.features))
    for start in range(0, len(todo), SHARD_ROWS):
        shard = todo[start : start + SHARD_ROWS]
        twins = [
            Twin(encoder.encode(s), encoder.encode(s, images=False) if needs_blind and s.images else None)
            for s in shard
        ]
        store.append([s.id for s in shard], extractor(twins))
        if progress is not None:
            progress(len(shard))
    return store


def _listed(samples: Any) -> list[Sample]:
    if hasattr(samples, "scan"):
        return [sample for batch in samples.scan() for sample in batch]
    return list(samples)
