"""What a feature's values depend on: the key that decides whether a stored value may be used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from liit.config import FeatureSettings
from liit.features.plan import plan_passes
from liit.features.settings import COUNTED, VECTORS
from liit.features.sketch import MAPS
from liit.model.vision import VisionCache, VisionInputs
from liit.model.vlm import VLM


@dataclass(frozen=True, slots=True)
class FeatureKey:
    """What the columns of a store depend on. The rows carry the rest, their ids and content hashes.

    Attributes:
        model: checkpoint, template, type of the weights and source of the vision features: the same for all columns.
        columns: the parameters of each feature, by name.
    """

    model: Mapping[str, str]
    columns: Mapping[str, Mapping[str, Any]]

    def as_dict(self) -> dict[str, Any]:
        """As JSON-serialisable values."""
        return {**self.model, "columns": {name: dict(parameters) for name, parameters in self.columns.items()}}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> FeatureKey:
        """From what `as_dict` gave."""
        return cls({k: str(v) for k, v in value.items() if k != "columns"}, dict(value["columns"]))

    def only(self, names: Sequence[str]) -> FeatureKey:
        """The key of some of the columns."""
        return FeatureKey(self.model, {name: self.columns[name] for name in names})

    def with_parameters(self, **more: Any) -> FeatureKey:
        """The key of columns that depend on something more."""
        return FeatureKey(self.model, {name: {**parameters, **more} for name, parameters in self.columns.items()})


def model_key(vlm: VLM, template_id: str, vision: VisionInputs) -> dict[str, str]:
    """What all features of a model depend on; see `FeatureKey`."""
    kept = isinstance(vision, VisionCache) and vision.frozen
    return {
        "checkpoint": vlm.checkpoint_id,
        "template": template_id,
        "weights": str(next(vlm.base.parameters()).dtype).removeprefix("torch."),
        "vision": "kept" if kept else "computed",
    }


def feature_parameters(
    settings: FeatureSettings, n_layers: int, seed: int, names: Sequence[str], optimizer: str | None
) -> dict[str, dict[str, Any]]:
    """What each feature's values depend on, besides the checkpoint and the template; JSON-serialisable.

    Args:
        settings: the feature settings.
        n_layers: decoder layers of the model.
        seed: of the sketch.
        names: the features.
        optimizer: hash of the optimizer state, if there is one.
    """
    plan = plan_passes(names, settings, n_layers)
    gradient: dict[str, Any] = {"layers": list(plan.gradient_layers), "of": settings.gradient_of}
    found: dict[str, dict[str, Any]] = {name: {} for name in plan.features}
    for name, parameters in found.items():
        if name in VECTORS:
            parameters["dtype"] = settings.dtype
        if name in ("gradient", "grad_norm"):
            parameters.update(gradient)
        if name == "gradient":
            parameters.update(dim=settings.dim, sketch=MAPS[settings.sketch], seed=seed, optimizer=optimizer)
            if settings.gradient_of == "weights":
                parameters["factor_width"] = settings.factor_width
        if name == "embedding":
            parameters["layers"] = list(plan.embedding_layers)
        if name == "instructed_vision":
            parameters["attention_mass"] = settings.attention_mass
        if name in ("blind_log_perplexity", "image_grounding"):
            parameters["blind"] = settings.blind
        if settings.autocast is not None and name not in COUNTED:
            parameters["autocast"] = settings.autocast
    return found
