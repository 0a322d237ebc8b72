"""Floating-point operations, bytes of memory and bytes of disk, from sizes alone.

Per token a linear layer takes two operations per weight, forward; as many again backward for the gradient at its input.
Attention takes 4 T d operations per token and layer for scores and sums, twice that backward. Frozen weights get no
gradient of their own, so a backward pass that stops at layer l costs as much as the forward pass of the layers above.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from liit.config import FeatureSettings
from liit.doctor.shape import ModelShape
from liit.doctor.workload import Batches, Workload
from liit.features.extraction import SHARD_ROWS
from liit.features.losses import CHUNK_ELEMENTS
from liit.features.plan import Plan

SINGLE, TRAIN_PASSES = 4, 2
WIDTHS = {"float16": 2, "bfloat16": 2, "float32": 4}
ID_BYTES = 96  # a row's id and content hash, as stored


@dataclass(frozen=True, slots=True)
class Flops:
    """Operations of an extraction by what they are for; the vision tower is not counted here."""

    with_images: float
    backward: float
    blind: float

    @property
    def total(self) -> float:
        """All of them."""
        return self.with_images + self.backward + self.blind


def forward_flops(shape: ModelShape, batches: Batches, layers: int, *, narrow: bool) -> float:
    """One forward pass.

    Args:
        shape: of the model.
        batches: what runs.
        layers: decoder layers that run; the head runs when all of them do.
        narrow: the last layer puts out positions of answer tokens only.
    """
    whole = layers - 1 if narrow else layers
    linear = 2 * shape.layer_linear * batches.padded * whole
    attention = 4 * shape.attention * batches.squares * whole
    if narrow:
        share = batches.answer_places / max(1.0, batches.padded)
        rest = shape.layer_linear - shape.key_value_linear
        linear += 2 * (shape.key_value_linear * batches.padded + rest * batches.answer_places)
        attention += 4 * shape.attention * batches.squares * share
    head = 2 * shape.vocabulary * shape.hidden * batches.answers if layers == shape.layers else 0
    return linear + attention + head


def backward_flops(shape: ModelShape, batches: Batches, layers: int, *, narrow: bool) -> float:
    """Backward through so many layers from the top, and the products that make LoRA gradients of the lowest."""
    if not layers:
        return 0.0
    top = forward_flops(shape, batches, shape.layers, narrow=narrow)
    below = forward_flops(shape, batches, shape.layers - layers, narrow=False)
    attention = 4 * shape.attention * batches.squares * (layers - narrow)
    return top - below + attention + 2 * shape.lora_layer * batches.padded


def both_passes(plan: Plan, work: Workload, settings: FeatureSettings) -> tuple[Batches, Batches]:
    """Batches of the pass with images and of the pass without; none for a pass that does not run."""
    tokens = settings.batch_tokens
    seen = work.with_images(tokens) if plan.forward_layers else Batches()
    return seen, work.without_images(tokens, zeros=settings.blind == "zeros") if plan.blind else Batches()


def extraction_flops(plan: Plan, shape: ModelShape, seen: Batches, blind: Batches) -> Flops:
    """All passes of an extraction, over the batches with images and without."""
    return Flops(
        with_images=forward_flops(shape, seen, plan.forward_layers, narrow=plan.narrow),
        backward=backward_flops(shape, seen, plan.backward_layers, narrow=plan.narrow),
        blind=forward_flops(shape, blind, plan.blind_layers, narrow=True) if plan.blind else 0.0,
    )


def training_flops(shape: ModelShape, tokens: float, squares: float) -> float:
    """One pass of training over so many tokens, padding included: forward, backward, gradients of the factors."""
    layers = 2 * shape.layer_linear * tokens * shape.layers + 4 * shape.attention * squares * shape.layers
    return TRAIN_PASSES * layers + 4 * shape.lora_total * tokens


def row_bytes(features: Sequence[str], shape: ModelShape, settings: FeatureSettings, width: int) -> int:
    """Bytes of one row's feature columns, `width` bytes per number of a vector."""
    layers = settings.embedding_layer
    vectors = {
        "gradient": settings.dim,
        "embedding": shape.hidden * (len(layers) if isinstance(layers, tuple) else 1),
        "last_hidden_weighted": shape.hidden,
        "instructed_vision": shape.hidden,
    }
    return sum(width * vectors[name] if name in vectors else SINGLE for name in features)


def store_bytes(rows: float, features: Sequence[str], shape: ModelShape, settings: FeatureSettings) -> float:
    """Bytes of a feature store on disk."""
    return rows * (row_bytes(features, shape, settings, WIDTHS[settings.dtype]) + ID_BYTES)


def working_memory(plan: Plan, shape: ModelShape, work: Workload, settings: FeatureSettings, widest: int) -> float:
    """Bytes that an extraction takes beside the weights: a rough sum of its largest pieces.

    What a layer keeps for its backward pass, one layer's passing activations, the logits of one chunk three times
    over, LoRA gradients and sketches of a batch, and the columns of a shard.
    """
    tokens = widest
    width = max(shape.width, 2)
    activations = 8 * shape.hidden + 4 * shape.inner
    kept = plan.backward_layers * activations * tokens * width
    passing = 2 * activations * tokens * width
    positions = min(CHUNK_ELEMENTS // shape.vocabulary, int(tokens))
    logits = 3 * SINGLE * positions * shape.vocabulary if shape.layers == plan.forward_layers else 0
    rows_in_batch = tokens / max(1.0, work.mean_length)
    gradients = 2 * SINGLE * rows_in_batch * (shape.lora_layer + settings.dim) if plan.gradient_layers else 0
    shard = 3 * min(SHARD_ROWS, work.rows) * row_bytes(plan.features, shape, settings, SINGLE)
    return kept + passing + logits + gradients + shard
