"""Which features exist, and what the settings `middle` and `all` mean for a given model."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from liit.config import FeatureSettings
from liit.errors import InputError, unknown_name

SCALARS = (
    "log_perplexity",
    "blind_log_perplexity",
    "image_grounding",
    "el2n",
    "entropy",
    "grad_norm",
    "n_answer_tokens",
    "n_tokens",
)
VECTORS = ("gradient", "embedding", "last_hidden_weighted", "instructed_vision")
FEATURES = (*SCALARS, *VECTORS)
BACKWARD = frozenset({"gradient", "grad_norm"})
BLIND = frozenset({"blind_log_perplexity", "image_grounding"})
COUNTED = frozenset({"n_answer_tokens", "n_tokens"})  # known from the tokens alone
CPU_TOKENS = 1024  # a CPU's matrix products are as fast as they get, and a batch's activations still fit its caches
OTHER_TOKENS = 8192  # what a GPU needs to be kept busy is more; memory that runs out halves it


def batch_tokens(settings: FeatureSettings, device: torch.device | str) -> int:
    """Tokens of a batch, padding included: what is set, else what suits the device."""
    if settings.batch_tokens is not None:
        return settings.batch_tokens
    return CPU_TOKENS if torch.device(device).type == "cpu" else OTHER_TOKENS


def gradient_layers(settings: FeatureSettings, n_layers: int) -> tuple[int, ...]:
    """The decoder layers whose gradient is sketched, as sorted numbers.

    Raises:
        InputError: a layer that the model does not have.
    """
    wanted = settings.layers
    if wanted == "all":
        return tuple(range(n_layers))
    listed: Sequence[str | int] = wanted if isinstance(wanted, tuple) else (wanted,)
    return tuple(sorted({_layer("features.layers", layer, n_layers) for layer in listed}))


def embedding_layers(settings: FeatureSettings, n_layers: int) -> tuple[int, ...]:
    """The decoder layers whose mean hidden states, side by side, are the embedding; in the order given.

    Raises:
        InputError: a layer that the model does not have, or one given twice.
    """
    wanted = settings.embedding_layer
    listed: Sequence[str | int] = wanted if isinstance(wanted, tuple) else (wanted,)
    layers = tuple(_layer("features.embedding_layer", layer, n_layers) for layer in listed)
    if len(set(layers)) != len(layers):
        raise InputError(f"features.embedding_layer: got {list(listed)}, which names a layer twice; give each once")
    return layers


def check_features(names: Sequence[str]) -> tuple[str, ...]:
    """The names, each known and once, in the store's column order.

    Raises:
        InputError: an unknown name, answered with the list, or no name at all.
    """
    if isinstance(names, str) or not names:
        raise InputError(f"features: got {names!r}, expected a list of names out of {', '.join(FEATURES)}")
    unknown = [name for name in names if name not in FEATURES]
    if unknown:
        raise InputError(f"features: {unknown_name('feature', unknown[0], FEATURES)}")
    return tuple(name for name in FEATURES if name in names)


def _layer(argument: str, layer: str | int, n_layers: int) -> int:
    number = n_layers // 2 if layer == "middle" else layer
    if not isinstance(number, int) or not -n_layers <= number < n_layers:
        raise InputError(f"{argument}: got {layer!r}, expected 'middle' or a layer number below {n_layers}")
    return number % n_layers
