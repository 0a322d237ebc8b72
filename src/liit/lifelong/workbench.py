"""The model as a run uses it: loaded once, with the adapter that the stage at hand asks for."""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path

import numpy as np

from liit.config import Continuum
from liit.data import checksums
from liit.model.chat import ChatEncoder
from liit.model.lora import CONFIG, WEIGHTS, attach_lora, load_adapter
from liit.model.vision import VisionInputs, vision_inputs
from liit.model.vlm import VLM, load_vlm


def cache_directory() -> Path:
    """Where things that can be made again are kept: ``$LIIT_CACHE``, else ``~/.cache/liit``."""
    return Path(os.environ.get("LIIT_CACHE") or Path.home() / ".cache" / "liit")


def derived_seed(seed: int, step: int, purpose: str) -> int:
    """A seed for one purpose at one step, from the run's one seed."""
    words = np.random.SeedSequence([seed, step, *purpose.encode()]).generate_state(1)
    return int(words[0])


class Workbench:
    """Loads the continuum's model when it is first needed.

    Args:
        continuum: names the model, the LoRA settings and the seed.
    """

    def __init__(self, continuum: Continuum) -> None:
        self.continuum = continuum
        self._adapter: Path | None = None
        self._fresh = False

    @cached_property
    def vlm(self) -> VLM:
        """The model without an adapter or with the last one asked for."""
        model = self.continuum.model
        return load_vlm(
            model.path,
            dtype=model.dtype,
            revision=model.revision,
            trust_remote_code=model.trust_remote_code,
            max_length=model.max_length,
            image_options=model.image_options,
        )

    @cached_property
    def encoder(self) -> ChatEncoder:
        """Tokens of samples, for this model."""
        return ChatEncoder(self.vlm)

    @cached_property
    def vision(self) -> VisionInputs:
        """Vision inputs, kept on disk where the continuum wants it and the family allows it."""
        return vision_inputs(self.vlm, cache_directory() / "vision" if self.continuum.model.vision_cache else None)

    def with_adapter(self, adapter: Path | None) -> VLM:
        """The model with a saved adapter, or with the run's fresh one (None), which changes no output.

        The fresh adapter is made anew whenever it is asked for, from the same seed.
        """
        if adapter is not None:
            if self._adapter != adapter:
                files = [file for name in (WEIGHTS, CONFIG) if (file := adapter / name).is_file()]
                checksums.compare(adapter, files)  # safetensors has no sum of its own
                load_adapter(self.vlm, adapter)
            self._adapter, self._fresh = adapter, False
        elif not self._fresh:
            if hasattr(self.vlm.model, "peft_config"):
                self.vlm.model = self.vlm.model.unload()
            lora = self.continuum.lora
            attach_lora(
                self.vlm,
                r=lora.r,
                alpha=lora.alpha,
                dropout=lora.dropout,
                modules=lora.target_modules,
                seed=derived_seed(self.continuum.seed, 0, "lora"),
            )
            self._adapter, self._fresh = None, True
        return self.vlm

    def forget_adapter(self) -> None:
        """The model's adapter has been trained on: load or make it anew at the next request."""
        self._adapter, self._fresh = None, False
