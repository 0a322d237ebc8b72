"""The LoRA adapter: attaching a fresh one, saving it, loading it back and checking that every weight arrived."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from liit.errors import InputError
from liit.model.fingerprint import hash_file, hash_settings
from liit.model.vlm import VLM

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
FOLDED_BYTES = 1 << 30
PRESETS = ("language-linear", "language-and-projector-linear", "all-but-vision")


def target_modules(vlm: VLM, wanted: str | Sequence[str]) -> list[str]:
    """Full names of the linear layers that get LoRA factors, in the model's own order.

    Args:
        vlm: the model.
        wanted: ``language-linear`` (every linear layer of the decoder), ``language-and-projector-linear`` (those and
            the layers between vision tower and decoder), ``all-but-vision`` (those and the language-model head), a
            regular expression on full names, or a list of name ends.

    Raises:
        InputError: nothing matches, or not a regular expression.
    """
    linear = [name for name, module in vlm.base.named_modules() if isinstance(module, nn.Linear)]
    if wanted in PRESETS:
        names = [name for name in linear if name.startswith(vlm.layers_name + ".")]
        if wanted != "language-linear":
            names += [name for name in linear if re.search(r"projector|connector|merger", name)]
        if wanted == "all-but-vision":
            names += [name for name in linear if vlm.base.get_submodule(name) is vlm.lm_head]
    elif isinstance(wanted, str):
        try:
            names = [name for name in linear if re.fullmatch(wanted, name)]
        except re.error as error:
            raise InputError(f"lora.target_modules: {wanted!r} is not a regular expression ({error})") from error
    else:
        names = [name for name in linear if any(name == end or name.endswith(f".{end}") for end in wanted)]
    if not names:
        raise InputError(
            f"lora.target_modules: {wanted!r} matches no linear layer of {vlm.path}; expected {' or '.join(PRESETS)}, "
            f"a regular expression or name ends such as {linear[-1].rpartition('.')[2]!r}"
        )
    return names


def attach_lora(
    vlm: VLM, *, r: int, alpha: float, dropout: float = 0.0, modules: str | Sequence[str] = PRESETS[0], seed: int = 0
) -> None:
    """Attach a fresh adapter (B = 0, so the model's outputs do not change yet).

    Args:
        vlm: the model, without an adapter.
        r: rank of the factors.
        alpha: the update is scaled by ``alpha / r``.
        dropout: on the input of A, while training.
        modules: see `target_modules`.
        seed: of the initial A.
    """
    from peft import LoraConfig, get_peft_model

    names = target_modules(vlm, modules)
    pattern = "|".join(re.escape(name) for name in names)  # a list would be kept as a set, in no fixed order
    options: dict[str, Any] = {"r": r, "lora_alpha": alpha, "lora_dropout": dropout, "bias": "none"}
    config = LoraConfig(target_modules=f"({pattern})", **options)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        vlm.model = get_peft_model(vlm.base, config)
    vlm.model.eval()
    vlm.adapter_id = f"fresh-{hash_settings({'r': r, 'alpha': alpha, 'modules': names, 'seed': seed})}"


def save_adapter(vlm: VLM, directory: Path) -> str:
    """Write the adapter as safetensors and return its hash."""
    vlm.model.save_pretrained(directory, safe_serialization=True, save_embedding_layers=False)
    vlm.adapter_id = hash_file(directory / WEIGHTS)
    return vlm.adapter_id


def load_adapter(vlm: VLM, directory: Path) -> None:
    """Put a saved adapter on the model, trainable, replacing the one that is there.

    Raises:
        InputError: no adapter there, or its weights are not exactly the ones that this model expects; the model then
            has no adapter.
    """
    from peft import LoraConfig, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict

    file = directory / WEIGHTS
    if not (file.is_file() and (directory / CONFIG).is_file()):
        raise InputError(
            f"adapter: {directory} holds no {WEIGHTS} with its {CONFIG}; expected a directory written by liit train"
        )
    try:
        saved = load_file(file)
        config = LoraConfig.from_pretrained(str(directory))
        config.inference_mode = False
    except (SafetensorError, ValueError, TypeError) as error:
        raise InputError(f"adapter: {directory} cannot be read ({error}); expected what liit train wrote") from error
    vlm.model = vlm.model.unload() if hasattr(vlm.model, "peft_config") else vlm.model
    vlm.adapter_id = ""
    try:
        with torch.random.fork_rng(devices=[]):
            model = get_peft_model(vlm.model, config)
    except ValueError as error:  # no such modules
        raise InputError(f"adapter: {directory} does not fit {vlm.path} ({error})") from error
    expected = get_peft_model_state_dict(model, save_embedding_layers=False)
    wrong = sorted(set(saved) ^ set(expected)) or [n for n, v in saved.items() if v.shape != expected[n].shape]
    if wrong:
        vlm.model = model.unload()
        raise InputError(f"adapter: {len(wrong)} weights of {directory} do not fit {vlm.path}, first {wrong[0]}")
    set_peft_model_state_dict(model, saved)
    vlm.model = model.eval()
    vlm.adapter_id = hash_file(file)


def effective_weight(layer: nn.Module) -> torch.Tensor:
    """Weight (out, in) of a linear layer as it acts: with the update of its active LoRA factors, where it has some."""
    weight: torch.Tensor = layer.get_parameter("base_layer.weight" if hasattr(layer, "base_layer") else "weight")
    for name in getattr(layer, "active_adapters", ()):
        weight = weight + layer.get_delta_weight(name).to(weight.dtype)  # type: ignore[operator]
    return weight


@contextmanager
def folded_adapter(vlm: VLM, keep: Sequence[int] = ()) -> Iterator[None]:
    """Fold LoRA factors into the weights while the block runs; afterwards the weights have their old bits again.

    Two small products and a sum less per layer and pass, which counts for a small model. Only float32 weights
    up to `FOLDED_BYTES` are folded: others would be rounded, or their copies would need too much room. The head is left
    alone, because it may share its weight with the embedding.

    Args:
        vlm: the model; without an adapter nothing happens.
        keep: decoder layers whose factors must stay apart, for their gradients.
    """
    kept = tuple(f"{vlm.layers_name}.{layer}." for layer in keep)
    layers: list[tuple[Any, torch.Tensor]] = [
        (module, module.get_base_layer().weight)
        for name, module in _lora_layers(vlm)
        if not name.startswith(kept) and module is not vlm.lm_head
    ]
    room = sum(weight.numel() * weight.element_size() for _, weight in layers)
    if room > FOLDED_BYTES or any(weight.dtype != torch.float32 for _, weight in layers):
        layers = []
    before = [weight.detach().clone() for _, weight in layers]
    try:
        for module, _ in layers:
            module.merge()
        yield
    finally:
        for (module, weight), old in zip(layers, before, strict=True):
            if module.merged:
                module.unmerge()
            weight.data.copy_(old)


def _lora_layers(vlm: VLM) -> Iterator[tuple[str, Any]]:
    from peft.tuners.lora import LoraLayer

    for name, module in vlm.base.named_modules():
        if isinstance(module, LoraLayer):
            yield name, module


def lora_parameters(vlm: VLM, layers: Sequence[int] | None = None) -> dict[str, nn.Parameter]:
    """The adapter's parameters by name, in the model's order; of the given decoder layers only, if any are given."""
    prefixes = None if layers is None else tuple(f"{vlm.layers_name}.{layer}." for layer in layers)
    return {
        name: parameter
        for name, parameter in vlm.base.named_parameters()
        if ".lora_" in name and (prefixes is None or name.startswith(prefixes))
    }
