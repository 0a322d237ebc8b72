"""What a batch's images become: pixels, or the frozen vision tower's outputs kept on disk.

A frozen tower gives the same output for an image for ever, so a lifelong run needs it once per image, not once per
step and method. Towers of the LLaVA family hand one hidden state to the projector; that tensor is what is kept. The
model still runs through its own code: the tower's ``forward`` passes kept tensors on instead of computing them.

The cache is a folder of immutable shards (``.npy`` values and ``.json`` index, each written beside and renamed), so
several processes may fill it at once: at worst an image is computed twice.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol
from uuid import uuid4

import numpy as np
import torch
from torch import Tensor, nn

from liit.data.sample import ImageRef
from liit.model.fingerprint import hash_settings
from liit.model.vlm import VLM

SHARD_IMAGES = 1024


class VisionInputs(Protocol):
    """Gives a batch's vision inputs by keyword."""

    def inputs(self, images: Sequence[ImageRef]) -> dict[str, Tensor]:
        """Vision keyword arguments of the model for these images, in this order."""
        ...


class Pixels:
    """Runs the processor's image processor every time; works for any model whose images concatenate."""

    def __init__(self, vlm: VLM) -> None:
        self.processor = vlm.processor.image_processor
        self.dtype = next(vlm.base.parameters()).dtype

    def inputs(self, images: Sequence[ImageRef]) -> dict[str, Tensor]:
        """Open and preprocess the images."""
        out = self.processor(images=[image.open() for image in images], return_tensors="pt")
        return {k: v.to(self.dtype) if v.is_floating_point() else v for k, v in out.items() if isinstance(v, Tensor)}


class BlankPixels:
    """Zeros in place of every image (``blind: zeros``, as the official code does)."""

    def __init__(self, vlm: VLM) -> None:
        self.pixels = Pixels(vlm)

    def inputs(self, images: Sequence[ImageRef]) -> dict[str, Tensor]:
        """The shapes of the real inputs with every float set to zero."""
        real = self.pixels.inputs(images)
        return {k: torch.zeros_like(v) if v.is_floating_point() else v for k, v in real.items()}


class SameAtEveryLayer(tuple[Tensor, ...]):
    """A stand-in for a tower's hidden states of which only the selected one was kept."""

    def __getitem__(self, index: Any) -> Any:
        return super().__getitem__(0)


def cacheable_tower(vlm: VLM) -> nn.Module | None:
    """The vision tower whose selected hidden state can be kept, or None when the architecture differs."""
    tower = getattr(vlm.backbone, "vision_tower", None)
    layer = getattr(vlm.base.config, "vision_feature_layer", None)
    if vlm.base.config.model_type == "llava" and isinstance(tower, nn.Module) and isinstance(layer, int):
        return tower
    return None


class VisionCache:
    """The frozen tower's outputs, computed once per image and kept on disk as float16.

    Args:
        vlm: a model for which `cacheable_tower` gives a tower.
        directory: parent folder; outputs of different towers or settings lie in different folders below it.
    """

    def __init__(self, vlm: VLM, directory: Path) -> None:
        tower = cacheable_tower(vlm)
        assert tower is not None, "ask cacheable_tower first"
        self.pixels = Pixels(vlm)
        self.device = vlm.device
        self.layer: int = vlm.base.config.vision_feature_layer
        self.tower = tower
        self.run = accept_kept_states(tower)
        self.key = hash_settings(
            {
                "weights": vlm.base_id,
                "layer": self.layer,
                "processor": str(vlm.processor.image_processor.to_json_string()),
            }
        )
        self.directory = directory / self.key[:32]
        self.directory.mkdir(parents=True, exist_ok=True)
        self.computed = 0
        self._place: dict[str, tuple[np.ndarray, int]] = {}
        self._shards: set[str] = set()
        self._read_shards()

    def __len__(self) -> int:
        return len(self._place)

    def inputs(self, images: Sequence[ImageRef]) -> dict[str, Tensor]:
        """Kept states (n, tokens, channels), computing and keeping those that are missing; pixels if it is trained."""
        if not self.frozen:
            return self.pixels.inputs(images)
        self.fill(images)
        rows = np.stack([self._place[i.sha256][0][self._place[i.sha256][1]] for i in images])
        return {"pixel_values": torch.from_numpy(rows.astype(np.float32)).to(self.pixels.dtype)}

    @property
    def frozen(self) -> bool:
        """Whether the tower still is the base model's: neither trained nor under an adapter."""
        return not any(p.requires_grad or ".lora_" in name for name, p in self.tower.named_parameters())

    def missing(self, images: Iterable[ImageRef]) -> list[ImageRef]:
        """Images that have no kept state yet, each once."""
        return list({i.sha256: i for i in images if i.sha256 not in self._place}.values())

    def fill(self, images: Iterable[ImageRef], progress: Callable[[int], None] | None = None) -> int:
        """Compute what is missing; returns how many images that were (none when the tower is not frozen)."""
        todo = self.missing(images) if self.frozen else []
        if todo:
            self._read_shards()  # another process may have been here
            todo = self.missing(todo)
        for start in range(0, len(todo), SHARD_IMAGES):
            shard = todo[start : start + SHARD_IMAGES]
            blocks = []
            for begin in range(0, len(shard), 32):
                blocks.append(self._compute(shard[begin : begin + 32]))
                if progress is not None:
                    progress(len(blocks[-1]))
            self._write_shard([i.sha256 for i in shard], np.concatenate(blocks))
        return len(todo)

    @torch.no_grad()
    def _compute(self, images: Sequence[ImageRef]) -> np.ndarray:
        pixels = self.pixels.inputs(images)["pixel_values"].to(self.device)
        states = self.run(pixels, output_hidden_states=True, return_dict=True).hidden_states[self.layer]
        self.computed += len(images)
        return np.asarray(states.float().cpu().numpy().astype(np.float16))

    def _write_shard(self, hashes: Sequence[str], values: np.ndarray) -> None:
        name = uuid4().hex
        part = self.directory / f"{name}.npy.part"
        with part.open("wb") as stream:
            np.save(stream, values, allow_pickle=False)
            stream.flush()
            os.fsync(stream.fileno())
        part.rename(self.directory / f"{name}.npy")
        index = self.directory / f"{name}.json.part"
        index.write_text(json.dumps(list(hashes)))
        index.rename(self.directory / f"{name}.json")
        self._read_shards()

    def _read_shards(self) -> None:
        for index in sorted(self.directory.glob("*.json")):
            if index.stem in self._shards:
                continue
            self._shards.add(index.stem)
            try:
                values = np.load(index.with_suffix(".npy"), mmap_mode="r", allow_pickle=False)
                names = json.loads(index.read_text())
            except (OSError, ValueError, EOFError):
                continue  # damaged by a crash or a cleaning hand: its images are computed again
            if not isinstance(names, list) or values.ndim != 3 or len(names) != len(values):
                continue
            for row, name in enumerate(names):
                self._place.setdefault(name, (values, row))


def accept_kept_states(tower: nn.Module) -> Callable[..., Any]:
    """Let the tower pass three-dimensional inputs on as its own output; returns the forward that computes."""
    from transformers.modeling_outputs import BaseModelOutputWithPooling

    inner: Callable[..., Any] = getattr(tower, "computing_forward", None) or tower.forward

    def forward(pixel_values: Tensor, **options: Any) -> Any:
        if pixel_values.dim() != 3:
            return inner(pixel_values, **options)
        states = SameAtEveryLayer((pixel_values,))
        return BaseModelOutputWithPooling(last_hidden_state=pixel_values, hidden_states=states)

    tower.computing_forward = inner  # type: ignore[assignment]
    tower.forward = forward
    return inner


def vision_inputs(vlm: VLM, cache: Path | None) -> VisionInputs:
    """The cache where it is wanted and the architecture allows it, else pixels."""
    if cache is not None and cacheable_tower(vlm) is not None:
        return VisionCache(vlm, cache)
    return Pixels(vlm)
