"""The sizes of a model that its cost follows from, counted on the network itself, with or without its weights."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from liit.config import LoraSettings, ModelSettings
from liit.errors import InputError
from liit.model.lora import lora_parameters, target_modules
from liit.model.processing import load_processor
from liit.model.vlm import BUILTIN, DTYPES, VLM, usual_device


@dataclass(frozen=True, slots=True)
class ModelShape:
    """Sizes of a model; counts of numbers unless another unit is named.

    Attributes:
        parameters: of the whole network, adapter excluded.
        width: bytes of one of them.
        layers: decoder layers.
        hidden: d, size of a hidden state.
        layer_linear: weights of the linear layers of one decoder layer (mean over layers).
        key_value_linear: of these, weights that make keys and values.
        attention: query heads times their size.
        inner: size of the largest activation inside a decoder layer.
        vocabulary: V, number of logits.
        vision: parameters outside language model and head: vision tower and projector.
        lora_layer: LoRA parameters in one decoder layer (mean over layers).
        lora_total: LoRA parameters.
        device: kind of device that it runs on.
    """

    parameters: int
    width: int
    layers: int
    hidden: int
    layer_linear: int
    key_value_linear: int
    attention: int
    inner: int
    vocabulary: int
    vision: int
    lora_layer: int
    lora_total: int
    device: str


def outline(settings: ModelSettings) -> VLM:
    """The model without its weights: shapes on torch's meta device, tokenizer and image processor as they are.

    Raises:
        InputError: nothing there that has a configuration and a processor.
    """
    from transformers import AutoConfig, AutoModelForImageTextToText

    location = settings.path
    if location.startswith(BUILTIN):
        from liit.demo.vlm import base_directory

        location = str(base_directory())
    options: dict[str, Any] = {"revision": settings.revision, "trust_remote_code": settings.trust_remote_code}
    try:
        config = AutoConfig.from_pretrained(location, **options)
        with torch.device("meta"):
            model: nn.Module = AutoModelForImageTextToText.from_config(
                config, dtype=DTYPES[settings.dtype], trust_remote_code=settings.trust_remote_code
            )
        processor = load_processor(location, config, settings.image_options or {}, **options)
    except (OSError, ValueError, KeyError, RuntimeError, AttributeError, TypeError, ImportError) as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise InputError(
            f"--model: {settings.path!r} has no configuration and processor that can be read ({reason}); expected "
            f"{BUILTIN}demo, a directory or a hub name of an image-text-to-text model"
        ) from error
    return VLM(model.eval(), processor, settings.path, "outline", settings.max_length)


def shape_of(vlm: VLM, lora: LoraSettings) -> ModelShape:
    """Count a model's sizes.

    Args:
        vlm: the model, with or without an adapter, with or without weights.
        lora: the adapter that training and scoring will use.
    """
    config = vlm.text_config
    layers = len(vlm.decoder_layers)
    named = {n: m for n, m in vlm.base.named_modules() if isinstance(m, nn.Linear) and ".lora_" not in n}
    inside = {n: m for n, m in named.items() if n.startswith(vlm.layers_name + ".")}
    own = {n: p for n, p in vlm.base.named_parameters() if ".lora_" not in n}
    language = vlm.layers_name.rpartition(".")[0] + "."
    head = _numbers(vlm.lm_head)
    vision = sum(p.numel() for n, p in own.items() if not n.startswith(language) and not n.startswith("lm_head"))
    heads = config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // heads
    groups = getattr(config, "num_key_value_heads", None) or heads
    lora_layers, lora_total = _lora_sizes(vlm, lora)
    return ModelShape(
        parameters=sum(p.numel() for p in own.values()),
        width=next(iter(own.values())).element_size(),
        layers=layers,
        hidden=config.hidden_size,
        layer_linear=sum(m.in_features * m.out_features for m in inside.values()) // layers,
        key_value_linear=2 * config.hidden_size * groups * size,
        attention=heads * size,
        inner=max([m.out_features for m in inside.values()], default=config.hidden_size),
        vocabulary=head // config.hidden_size,
        vision=vision,
        lora_layer=math.ceil(lora_layers / layers),
        lora_total=lora_total,
        device=(usual_device() if vlm.device.type == "meta" else vlm.device).type,
    )


def _numbers(head: nn.Module) -> int:
    weight: Any = head.get_parameter("base_layer.weight" if hasattr(head, "base_layer") else "weight")
    return int(weight.numel())


def _lora_sizes(vlm: VLM, lora: LoraSettings) -> tuple[int, int]:
    """LoRA parameters inside the decoder layers, and all of them: of the adapter there, else of the one planned."""
    if hasattr(vlm.model, "peft_config"):
        layers = range(len(vlm.decoder_layers))
        return tuple(sum(p.numel() for p in lora_parameters(vlm, of).values()) for of in (layers, None))  # type: ignore[return-value]
    numbers = {
        name: _factors(vlm.base.get_submodule(name), lora.r) for name in target_modules(vlm, lora.target_modules)
    }
    return sum(n for name, n in numbers.items() if name.startswith(vlm.layers_name + ".")), sum(numbers.values())


def _factors(layer: Any, r: int) -> int:
    return int(r * (layer.in_features + layer.out_features))
