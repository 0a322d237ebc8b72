"""Making the built-in base model: `liit demo --rebuild-base`.

The base is to the continuum what LLaVA's alignment stage is to instruction tuning: a competent start that knows the
words, reads simple pictures and has seen none of the continuum's evaluation rows.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from liit.config import TrainingSettings
from liit.data.sample import Sample
from liit.demo.vlm.architecture import make_model, make_processor, make_tokenizer, standardise_tower
from liit.model.chat import ChatEncoder
from liit.model.vision import Pixels, VisionCache
from liit.model.vlm import VLM
from liit.training import TrainReport, fit

TRAINING = TrainingSettings(
    epochs=4,
    batch_size=32,
    learning_rate=4e-3,
    optimizer="muon",
    schedule="cosine",
    warmup_ratio=0.03,
    weight_decay=0.5,
    max_grad_norm=1.0,
)
STANDARDISE_IMAGES = 1024
MAX_LENGTH = 256


def train_base(
    samples: list[Sample],
    out: Path,
    *,
    seed: int = 0,
    cache: Path,
    training: TrainingSettings = TRAINING,
    progress: Callable[[int, int], None] | None = None,
) -> TrainReport:
    """Train the base model on the general mix and write it, as float16 safetensors, with its processor.

    Args:
        samples: the general mix.
        out: directory to write; replaced only when everything is done.
        seed: of the initial weights and the order of the rows.
        cache: folder for the tower's kept outputs.
        training: optimizer and schedule.
        progress: called with the optimizer steps done and their total.
    """
    vlm = untrained(samples, seed)
    vlm.model.requires_grad_(True)
    vlm.backbone.vision_tower.requires_grad_(False)
    encoder = ChatEncoder(vlm)
    vision = VisionCache(vlm, cache)
    vision.fill(image for sample in samples for image in sample.images)
    report = fit(
        vlm, [encoder.encode(sample) for sample in samples], training, vision=vision, seed=seed, progress=progress
    )
    part = out.with_name(out.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    vlm.model.half().save_pretrained(part, safe_serialization=True)
    vlm.processor.save_pretrained(part)
    (part / "training.json").write_text(json.dumps(_facts(report, training, seed), indent=1) + "\n")
    shutil.rmtree(out, ignore_errors=True)
    part.rename(out)
    return report


def untrained(samples: list[Sample], seed: int) -> VLM:
    """The model before training, its tower standardised on the mix's first images."""
    tokenizer = make_tokenizer(message.text for sample in samples for message in sample.messages)
    processor = make_processor(tokenizer)
    model = make_model(tokenizer, seed).eval()
    vlm = VLM(model, processor, "builtin:demo", "untrained", MAX_LENGTH)
    standardise_tower(model.model.vision_tower, _pixels(vlm, samples))
    tower: dict[str, Any] = model.model.vision_tower.state_dict()
    vlm.base_id = "untrained-" + str(float(sum(v.double().abs().sum() for v in tower.values())))
    return vlm


def _pixels(vlm: VLM, samples: list[Sample]) -> Iterator[torch.Tensor]:
    images = list({i.sha256: i for s in samples for i in s.images}.values())
    stride = max(1, len(images) // STANDARDISE_IMAGES)
    chosen = images[::stride][:STANDARDISE_IMAGES]
    pixels = Pixels(vlm)
    for start in range(0, len(chosen), 64):
        yield pixels.inputs(chosen[start : start + 64])["pixel_values"]


def _facts(report: TrainReport, training: TrainingSettings, seed: int) -> dict[str, Any]:
    return {
        "rows": report.samples,
        "samples_seen": report.samples_seen,
        "optimizer_steps": report.optimizer_steps,
        "trained_parameters": report.trainable_parameters,
        "loss_last": round(report.loss_last, 4),
        "seed": seed,
        "training": training.model_dump(mode="json"),
    }
