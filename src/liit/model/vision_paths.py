"""Ways to take a model's vision outputs out and to put them back.

- LLaVA: the tower's selected hidden state, before the projector, which may be trained. The model still runs through its
  own code: the tower's ``forward`` passes kept states on instead of computing them.
- Other families: what ``get_image_features`` gives, projector included, tokens of an image in one piece whatever its
  resolution (Qwen3-VL's deep features beside them). It goes back in by the network's ``mm_encoder_outputs``. A family
  without that input, or whose image features depend on the text, has no way.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from transformers.utils.generic import ModelOutput

from liit.data.sample import ImageRef
from liit.errors import InputError
from liit.model.image_tokens import ImageTokens
from liit.model.pixels import Pixels
from liit.model.vision_store import Kept
from liit.model.vlm import VLM

STACKED = "stacked"  # whether the family's network wants its features as one tensor or as one per image


class VisionPath(Protocol):
    """One way to take a model's vision outputs out and to put them back."""

    def parameters(self) -> Iterable[tuple[str, nn.Parameter]]:
        """Everything that the outputs depend on, by name."""
        ...

    def compute(self, images: Sequence[ImageRef], *, together: bool) -> list[Kept]:
        """The outputs of some images; `together`: as images of one row, where the family makes a difference."""
        ...

    def batch(self, kept: Sequence[Kept]) -> dict[str, Any]:
        """Keyword arguments of the model that stand for the images' pixels."""
        ...


class SameAtEveryLayer(tuple[Tensor, ...]):
    """A stand-in for a tower's hidden states of which only the selected one was kept."""

    def __getitem__(self, index: Any) -> Any:
        return super().__getitem__(0)


def cacheable_tower(vlm: VLM) -> nn.Module | None:
    """The vision tower of the LLaVA family whose selected hidden state can be kept, else None."""
    tower = getattr(vlm.backbone, "vision_tower", None)
    layer = getattr(vlm.base.config, "vision_feature_layer", None)
    if vlm.base.config.model_type == "llava" and isinstance(tower, nn.Module) and isinstance(layer, int):
        return tower
    return None


class TowerStates:
    """The selected hidden state of a LLaVA tower."""

    def __init__(self, vlm: VLM, tower: nn.Module) -> None:
        self.pixels, self.vlm, self.tower = Pixels(vlm), vlm, tower
        self.layer: int = vlm.base.config.vision_feature_layer
        self.run = accept_kept_states(tower)

    def parameters(self) -> Iterable[tuple[str, nn.Parameter]]:
        """The tower's."""
        return self.tower.named_parameters()

    @torch.no_grad()
    def compute(self, images: Sequence[ImageRef], *, together: bool) -> list[Kept]:
        """Hidden states (tokens, channels) of each image."""
        pixels = self.pixels.inputs(images)["pixel_values"].to(self.vlm.device)
        states = self.run(pixels, output_hidden_states=True, return_dict=True).hidden_states[self.layer]
        return [Kept(state) for state in states.cpu()]

    def batch(self, kept: Sequence[Kept]) -> dict[str, Any]:
        """``pixel_values`` of three dimensions, which the tower passes on."""
        return {"pixel_values": torch.stack([entry.states for entry in kept]).to(self.pixels.dtype)}


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


@dataclass
class KeptOutput(ModelOutput):
    """What a network reads of its vision output; a `ModelOutput`, so that whatever moves batches moves it whole.

    Attributes:
        pooler_output: vision features, one tensor per image or one for all.
        deepstack_features: the same for every further layer that takes some.
    """

    pooler_output: Any = None
    deepstack_features: Any = None


class ImageFeatures:
    """What ``get_image_features`` gives: vision features as they enter the language model."""

    def __init__(self, vlm: VLM) -> None:
        self.vlm, self.pixels, self.tokens = vlm, Pixels(vlm), ImageTokens(vlm)
        self.takes = set(inspect.signature(vlm.backbone.get_image_features).parameters)

    @staticmethod
    def possible(vlm: VLM) -> bool:
        """Whether the family's vision features can be taken out and put back."""
        features = getattr(vlm.backbone, "get_image_features", None)
        if features is None or "mm_encoder_outputs" not in vlm.takes:
            return False
        return not any("input_ids" in name for name in inspect.signature(features).parameters)

    def parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Everything but the language model and its head."""
        language = language_prefix(self.vlm)
        for name, parameter in self.vlm.base.named_parameters():
            if name.startswith("model.") and not name.startswith(language):
                yield name, parameter

    @torch.no_grad()
    def compute(self, images: Sequence[ImageRef], *, together: bool) -> list[Kept]:
        """Features (tokens, channels) of each image; deep features beside the last in the channels."""
        asked = [*images, *images] if together and len(images) == 1 else list(images)
        inputs = self.pixels.inputs(asked, [len(asked)] if together else None)
        known = {name: value.to(self.vlm.device) for name, value in inputs.items() if name in self.takes}
        out = self.vlm.backbone.get_image_features(**known, return_dict=True)
        layers = [out.pooler_output, *(getattr(out, "deepstack_features", None) or [])]
        flat = torch.cat([_flat(layer) for layer in layers], -1).cpu()
        counts = [self.tokens.expansion(image, together=together).features for image in asked]
        if sum(counts) != len(flat):
            raise InputError(f"model: {self.vlm.path} gives {len(flat)} vision features for {sum(counts)} image tokens")
        extra = {
            name: value.tolist()
            for name, value in inputs.items()
            if not value.is_floating_point() and value.ndim == 2 and len(value) == len(asked)
        }
        extra[STACKED] = [[int(isinstance(out.pooler_output, Tensor))]] * len(asked)
        return [
            Kept(states, {name: rows[i] for name, rows in extra.items()})
            for i, states in enumerate(flat.split(counts)[: len(images)])
        ]

    def batch(self, kept: Sequence[Kept]) -> dict[str, Any]:
        """The features as the network's own output, and the grids that its positions need."""
        width = self.vlm.text_config.hidden_size
        stacked = kept[0].extra[STACKED] == [1]
        layers: list[Any] = []
        for channel in range(0, kept[0].states.shape[1], width):
            parts = tuple(k.states[:, channel : channel + width].to(self.vlm.device, self.pixels.dtype) for k in kept)
            layers.append(torch.cat(parts)[None] if stacked else parts)
        output = KeptOutput(pooler_output=layers[0], deepstack_features=layers[1:])
        grids = {name: torch.tensor([k.extra[name] for k in kept]) for name in kept[0].extra if name in self.vlm.takes}
        return {"mm_encoder_outputs": {"image": output}, **grids}


def language_prefix(vlm: VLM) -> str:
    """Start of the names of the language model's parameters."""
    return vlm.layers_name.rpartition(".")[0] + "."


def _flat(features: Any) -> Tensor:
    """All tokens of all images in one dimension."""
    whole: Tensor = features if isinstance(features, Tensor) else torch.cat([_flat(f) for f in features])
    return whole.reshape(-1, whole.shape[-1])


def vision_path(vlm: VLM) -> VisionPath | None:
    """How this model's vision outputs can be kept; None where they cannot."""
    tower = cacheable_tower(vlm)
    if tower is not None:
        return TowerStates(vlm, tower)
    return ImageFeatures(vlm) if ImageFeatures.possible(vlm) else None
