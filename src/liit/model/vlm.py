"""One loaded vision-language model: the network, its processor, and the few places in it that liit touches."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from textwrap import shorten
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

from liit.errors import InputError
from liit.model.fingerprint import hash_directory
from liit.model.memory import is_out_of_memory
from liit.model.processing import load_processor

BUILTIN = "builtin:"
LOADING_ERRORS = (OSError, ValueError, KeyError, RuntimeError, AttributeError, TypeError, ImportError, SafetensorError)
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass
class VLM:
    """A Hugging Face image-text-to-text model with its processor.

    Attributes:
        model: the network; a ``PeftModel`` once an adapter is attached.
        processor: its processor, with a chat template.
        path: what the user named (a directory, a hub name or ``builtin:demo``).
        base_id: hex hash of the base weights; part of every feature key.
        max_length: longest sequence in tokens; longer rows are refused by id, never truncated.
        adapter_id: hash of the adapter that is attached.
        merged_id: hash of the adapters that have gone into the weights, in their order; empty for none.
    """

    model: Any
    processor: Any
    path: str
    base_id: str
    max_length: int = 2048
    adapter_id: str = field(default="")
    merged_id: str = field(default="")

    @property
    def tokenizer(self) -> Any:
        """The processor's tokenizer."""
        return self.processor.tokenizer

    @property
    def checkpoint_id(self) -> str:
        """Hex hash of base weights and adapter together: what makes two feature matrices comparable."""
        merged = f"+{self.merged_id[:16]}" if self.merged_id else ""
        return f"{self.base_id[:16]}{merged}-{self.adapter_id[:16] or 'base'}"

    @property
    def base(self) -> Any:
        """The network without the adapter's wrapper (its linear layers may carry LoRA)."""
        return self.model.get_base_model() if hasattr(self.model, "peft_config") else self.model

    @property
    def backbone(self) -> Any:
        """Everything below the language-model head; its first output is the last hidden state (N, T, d)."""
        return self.base.model

    @property
    def lm_head(self) -> nn.Module:
        """The head that turns hidden states into logits."""
        head = self.base.get_output_embeddings()
        if not isinstance(head, nn.Module):
            raise InputError(f"model: {self.path} has no output embeddings; expected a causal language-model head")
        return head

    @property
    def device(self) -> torch.device:
        """Where the parameters live."""
        device: torch.device = next(self.base.parameters()).device
        return device

    @property
    def text_config(self) -> Any:
        """The language model's configuration."""
        return self.base.config.get_text_config()

    @cached_property
    def layers_name(self) -> str:
        """Dotted name, inside ``base``, of the list of decoder layers."""
        count = self.text_config.num_hidden_layers
        names = [
            name
            for name, module in self.base.named_modules()
            if isinstance(module, nn.ModuleList) and len(module) == count and name.endswith("layers")
        ]
        language = [name for name in names if not re.search(r"vision|visual|image", name)]
        if len(language) != 1:
            raise InputError(
                f"model: found {len(language)} lists of {count} decoder layers in {self.path} ({', '.join(names)}); "
                "expected exactly one language model"
            )
        return str(language[0])

    @property
    def decoder_layers(self) -> nn.ModuleList:
        """The language model's decoder layers, first to last."""
        layers = self.base.get_submodule(self.layers_name)
        assert isinstance(layers, nn.ModuleList)
        return layers

    @property
    def image_token_id(self) -> int:
        """Token id that stands for one image feature."""
        for name in ("image_token_id", "image_token_index"):
            value = getattr(self.base.config, name, None)
            if value is not None:
                return int(value)
        return int(self.processor.image_token_id)

    @cached_property
    def takes(self) -> frozenset[str]:
        """Names of the network's inputs; which ones a family adds to the usual ones decides what a batch holds."""
        return frozenset(inspect.signature(self.base.forward).parameters)


def usual_device() -> torch.device:
    """Where a model goes unless it is told: the first GPU when there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def load_vlm(
    path: str,
    *,
    dtype: str = "float32",
    revision: str | None = None,
    trust_remote_code: bool = False,
    max_length: int = 2048,
    image_options: Mapping[str, Any] | None = None,
    device: str | None = None,
) -> VLM:
    """Load a model and its processor, frozen and in evaluation mode.

    Args:
        path: ``builtin:demo``, a directory, or a Hugging Face hub name.
        dtype: parameter type, one of float32, bfloat16, float16.
        revision: hub revision.
        trust_remote_code: run code that comes with the weights; off unless the user asks.
        max_length: longest sequence in tokens.
        image_options: settings of the image processor to change, such as Qwen's ``max_pixels``.
        device: where to put it; `usual_device` unless given.

    Raises:
        InputError: unknown dtype or image option, nothing loadable at ``path``, weights missing there, or a processor
            without chat template, image token or fast tokenizer.
    """
    from transformers import AutoModelForImageTextToText

    if dtype not in DTYPES:
        raise InputError(f"model.dtype: got {dtype!r}, expected one of {', '.join(DTYPES)}")
    location = _resolve(path)
    options: dict[str, Any] = {"revision": revision, "trust_remote_code": trust_remote_code}
    try:
        loaded: Any = AutoModelForImageTextToText.from_pretrained(
            location, dtype=DTYPES[dtype], use_safetensors=True, output_loading_info=True, **options
        )
        model, loading = loaded
        processor = load_processor(location, model.config, image_options or {}, **options)
    except InputError:
        raise
    except LOADING_ERRORS as error:
        reason = shorten(str(error).strip() or type(error).__name__, 200, placeholder=" ...")  # some list all types
        raise InputError(
            f"model.path: cannot load {path!r} ({reason}); expected {BUILTIN}demo, a directory or a hub name of an "
            "image-text-to-text model with safetensors weights, tokenizer and image processor"
        ) from error
    if lacking := sorted(loading["missing_keys"]):  # transformers would leave them at random values
        raise InputError(
            f"model.path: {path!r} lacks {len(lacking)} weights, first {lacking[0]}; expected a whole "
            f"{type(model).__name__}"
        )
    _check_processor(path, processor)
    network: nn.Module = model
    target = torch.device(device or usual_device())
    try:
        network.to(target)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        size = sum(p.numel() * p.element_size() for p in network.parameters()) / 1e9
        raise InputError(
            f"model.path: the {size:.1f} GB of {path!r} do not fit on {target}; expected a card with more free memory, "
            "or a smaller model.dtype"
        ) from error
    network.eval().requires_grad_(False)
    base_id = hash_directory(Path(location)) if Path(location).is_dir() else _hub_id(path, model)
    return VLM(model, processor, path, base_id, max_length)


def _check_processor(path: str, processor: Any) -> None:
    """What liit uses of a processor must be there."""
    if lacking := [n for n in ("tokenizer", "image_processor", "image_token") if getattr(processor, n, None) is None]:
        raise InputError(
            f"model.path: the processor of {path!r} ({type(processor).__name__}) has no {lacking[0]}; expected a "
            "processor with tokenizer, image processor and a token that stands for images"
        )
    if getattr(processor, "chat_template", None) is None:
        raise InputError(f"model.path: the processor of {path!r} has no chat template; liit needs one")
    if not processor.tokenizer.is_fast:
        raise InputError(
            f"model.path: {type(processor.tokenizer).__name__} of {path!r} does not say where its tokens lie in the "
            "text; expected a fast tokenizer (a tokenizer.json)"
        )


def _resolve(path: str) -> str:
    if not path.startswith(BUILTIN):
        return path
    if path != f"{BUILTIN}demo":
        raise InputError(f"model.path: got {path!r}, but the only built-in model is {BUILTIN}demo")
    from liit.demo.vlm import base_directory

    return str(base_directory())


def _hub_id(path: str, model: Any) -> str:
    import hashlib

    commit = getattr(model.config, "_commit_hash", None)
    if commit is None:
        raise InputError(f"model.path: cannot tell which revision of {path!r} was loaded; name a directory")
    return hashlib.sha256(f"{path}@{commit}".encode()).hexdigest()
