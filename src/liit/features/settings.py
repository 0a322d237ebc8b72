"""Which features exist, and what the settings `middle` and `all` mean for a given model."""

from __future__ import annotations

from collections.abc import Sequence

from liit.config import FeatureSettings
from liit.errors import InputError

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
VECTORS = ("gradient", "embedding", "last_hidden_weighted")
FEATURES = (*SCALARS, *VECTORS)
BACKWARD = frozenset({"gradient", "grad_norm"})
BLIND = frozenset({"blind_log_perplexity", "image_grounding"})


def gradient_layers(settings: FeatureSettings, n_layers: int) -> tuple[int, ...]:
    """The decoder layers whose LoRA gradient is sketched, as sorted numbers.

    Raises:
        InputError: a layer that the model does not have.
    """
    wanted = settings.layers
    if wanted == "all":
        return tuple(range(n_layers))
    listed: Sequence[str | int] = wanted if isinstance(wanted, tuple) else (wanted,)
    return tuple(sorted({_layer("features.layers", layer, n_layers) for layer in listed}))


def embedding_layer(settings: FeatureSettings, n_layers: int) -> int:
    """The decoder layer whose mean hidden state is the embedding.

    Raises:
        InputError: a layer that the model does not have.
    """
    return _layer("features.embedding_layer", settings.embedding_layer, n_layers)


def check_features(names: Sequence[str]) -> tuple[str, ...]:
    """The names, each known and once, in the store's column order.

    Raises:
        InputError: an unknown name, answered with the list.
    """
    unknown = [name for name in names if name not in FEATURES]
    if unknown:
        raise InputError(f"features: {unknown[0]!r} is not a feature; expected some of {', '.join(FEATURES)}")
    return tuple(name for name in FEATURES if name in names)


def _layer(argument: str, layer: str | int, n_layers: int) -> int:
    number = n_layers // 2 if layer == "middle" else layer
    if not isinstance(number, int) or not -n_layers <= number < n_layers:
        raise InputError(f"{argument}: got {layer!r}, expected 'middle' or a layer number below {n_layers}")
    return number % n_layers
