"""The model as a run uses it: loaded once, with the adapter that the stage at hand asks for."""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path

import numpy as np

from liit.config import Continuum
from liit.data import checksums
from liit.errors import InputError
from liit.model.chain import CHAIN, merge_adapter, read_chain, restore_weights
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


ADAPTER_RULES = {
    "continue": "every step trains the adapter of the last step on",
    "merge": "every step merges the adapter of the last step into the weights and trains a fresh one",
    "new": "every step trains a fresh adapter on the base model",
}
"""What ``lora.adapter`` means, in words."""


class Workbench:
    """Loads the continuum's model when it is first needed.

    Args:
        continuum: names the model, the LoRA settings and the seed.
    """

    def __init__(self, continuum: Continuum) -> None:
        self.continuum = continuum
        self.merged: tuple[Path, ...] = ()
        self._adapter: Path | None = None
        self._fresh = False

    @cached_property
    def vlm(self) -> VLM:
        """The model without an adapter or with the last one asked for."""
        return self._load()

    def _load(self, device: str | None = None) -> VLM:
        model = self.continuum.model
        return load_vlm(
            model.path,
            dtype=model.dtype,
            revision=model.revision,
            trust_remote_code=model.trust_remote_code,
            max_length=model.max_length,
            image_options=model.image_options,
            device=device,
        )

    @cached_property
    def scorer(self) -> Workbench:
        """What features are extracted with: this model, or the one of `features.proxy`, which is not trained."""
        proxy = self.continuum.features.proxy
        if proxy is None:
            return self
        model = self.continuum.model.model_copy(update={"path": proxy, "revision": None})
        features = self.continuum.features.model_copy(update={"proxy": None})
        return _Scorer(self.continuum.model_copy(update={"model": model, "features": features}))

    @cached_property
    def encoder(self) -> ChatEncoder:
        """Tokens of samples, for this model."""
        return ChatEncoder(self.vlm)

    @cached_property
    def vision(self) -> VisionInputs:
        """Vision inputs, kept on disk where the continuum wants it and the family allows it."""
        return vision_inputs(self.vlm, cache_directory() / "vision" if self.continuum.model.vision_cache else None)

    def with_adapter(self, adapter: Path | None) -> VLM:
        """The model with a saved adapter and those that it builds on, or with the run's fresh one (None).

        The fresh adapter changes no output; it is made anew whenever it is asked for, from the same seed.
        """
        if adapter is not None:
            if self._adapter != adapter:
                files = [file for name in (WEIGHTS, CONFIG, CHAIN) if (file := adapter / name).is_file()]
                checksums.compare(adapter, files)  # safetensors has no sum of its own
                self._merge(read_chain(adapter))
                load_adapter(self.vlm, adapter)
            self._adapter, self._fresh = adapter, False
        elif not self._fresh:
            self._merge(())
            self._attach(0)
            self._adapter, self._fresh = None, True
        return self.vlm

    def trainee(self, adapter: Path | None, step: int) -> VLM:
        """The model with the adapter that a step trains, by the rule ``lora.adapter``.

        Whoever trains it calls `forget_adapter`.

        Args:
            adapter: of the last step that trained; None at the first.
            step: number of the step; fresh adapters of later steps start from a seed of their own.
        """
        rule = self.continuum.lora.adapter
        if adapter is None or rule == "continue":
            return self.with_adapter(adapter)
        if rule == "merge":
            self.with_adapter(adapter)  # the checks
            self._merge((*read_chain(adapter), adapter))
        else:
            self._merge(())
        self._attach(step)
        self.forget_adapter()
        return self.vlm

    def forget_adapter(self) -> None:
        """The model's adapter has been trained on: load or make it anew at the next request."""
        self._adapter, self._fresh = None, False

    def _merge(self, chain: tuple[Path, ...]) -> None:
        """Have exactly these adapters in the weights, and none attached."""
        self.forget_adapter()
        if hasattr(self.vlm.model, "peft_config"):
            self.vlm.model = self.vlm.model.unload()
        if self.merged != chain[: len(self.merged)]:  # what was added to weights cannot be taken away exactly
            restore_weights(self.vlm, self._load("cpu"))
            self.merged = ()
        for adapter in chain[len(self.merged) :]:
            merge_adapter(self.vlm, adapter)
            self.merged = (*self.merged, adapter)

    def _attach(self, step: int) -> None:
        """Attach a fresh adapter, from the run's seed and a step's number."""
        lora = self.continuum.lora
        attach_lora(
            self.vlm,
            r=lora.r,
            alpha=lora.alpha,
            dropout=lora.dropout,
            modules=lora.target_modules,
            seed=derived_seed(self.continuum.seed, step, "lora"),
        )


class _Scorer(Workbench):
    """The bench of a proxy."""

    def _load(self, device: str | None = None) -> VLM:
        try:
            return super()._load(device)
        except InputError as error:
            raise InputError(str(error).replace("model.path", "features.proxy", 1)) from error
