"""Floating-point operations, bytes of memory and bytes of disk, from sizes alone.

Per token a linear layer takes two operations per weight, forward; as many again backward for the gradient at its input.
Attention takes 4 T d operations per token and layer for scores and sums, twice that backward. Frozen weights get no
gradient of their own, so a backward pass that stops at layer l costs as much as the forward pass of the layers above.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from liit.config import FeatureSettings
from liit.doctor.shape import ModelShape
from liit.doctor.workload import Batches, Workload
from liit.features.extraction import SHARD_ROWS
from liit.features.losses import CHUNK_ELEMENTS
from liit.features.plan import Plan
from liit.features.settings import batch_tokens

SINGLE, TRAIN_PASSES = 4, 2
WIDTHS = {"float16": 2, "bfloat16": 2, "float32": 4}
ID_BYTES = 96  # a row's id and content hash, as stored


@dataclass(frozen=True, slots=True)
class Flops:
    """Operations of an extraction by what they are for; vision tower and projector are not counted here."""

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


def backward_flops(shape: ModelShape, batches: Batches, gradient_layers: Sequence[int], *, narrow: bool) -> float:
    """Backward from the top to the lowest of these layers, and the products that make these layers' LoRA gradients.

    Those are four: two bring a token's input and output gradient to the factors' width, two sum over a row's tokens.
    """
    if not gradient_layers:
        return 0.0
    layers = shape.layers - min(gradient_layers)
    last = narrow and shape.layers - 1 in gradient_layers
    places = batches.padded * (len(gradient_layers) - last) + batches.answer_places * last
    top = forward_flops(shape, batches, shape.layers, narrow=narrow)
    below = forward_flops(shape, batches, shape.layers - layers, narrow=False)
    attention = 4 * shape.attention * batches.squares * (layers - narrow)
    return top - below + attention + 4 * shape.lora_layer * places


class PassBatches(NamedTuple):
    """Batches of the passes of an extraction; empty for a pass that does not run.

    Attributes:
        seen: of the pass with images; with `shared`, of its layers from the fork on.
        blind: of the pass without images.
        shared: of the layers below the fork, where rows of one image are one sequence; None when they are not.
    """

    seen: Batches
    blind: Batches
    shared: Batches | None = None

    @property
    def given(self) -> Batches:
        """What the model is given in the pass with images."""
        return self.seen if self.shared is None else self.shared

    @property
    def widest(self) -> int:
        """Tokens of the largest batch of all, padding included."""
        return max(self.seen.widest, self.blind.widest, self.given.widest)


def both_passes(plan: Plan, shape: ModelShape, work: Workload, settings: FeatureSettings) -> PassBatches:
    """Batches of the pass with images and of the pass without."""
    tokens = batch_tokens(settings, shape.device)
    blind = work.without_images(tokens, zeros=settings.blind == "zeros") if plan.blind else Batches()
    if not plan.forward_layers:
        return PassBatches(Batches(), blind)
    if plan.fork and work.image_pack:
        shared, seen = work.sharing_images(tokens)
        return PassBatches(seen, blind, shared)
    return PassBatches(work.with_images(tokens), blind)


def extraction_flops(
    plan: Plan, shape: ModelShape, seen: Batches, blind: Batches, shared: Batches | None = None
) -> Flops:
    """All passes of an extraction, over the batches of `both_passes`."""
    with_images = forward_flops(shape, seen, plan.forward_layers, narrow=plan.narrow)
    if shared is not None:
        apart, together = (forward_flops(shape, part, plan.fork, narrow=False) for part in (seen, shared))
        with_images += together - apart
    return Flops(
        with_images=with_images,
        backward=backward_flops(shape, seen, plan.gradient_layers, narrow=plan.narrow),
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
    over, LoRA gradients and sketches of a batch, and the columns of a shard; with ``autocast`` one layer's weights once
    more in its type, in which its activations are too.
    """
    tokens = widest
    width = max(shape.width, 2) if settings.autocast is None else 2
    activations = 8 * shape.hidden + 4 * shape.inner
    kept = plan.backward_layers * activations * tokens * width
    passing = 2 * activations * tokens * width
    positions = min(CHUNK_ELEMENTS // shape.vocabulary, int(tokens))
    logits = 3 * SINGLE * positions * shape.vocabulary if shape.layers == plan.forward_layers else 0
    rows_in_batch = tokens / max(1.0, work.mean_length)
    gradients = 2 * SINGLE * rows_in_batch * (shape.lora_layer + settings.dim) if plan.gradient_layers else 0
    shard = 3 * min(SHARD_ROWS, work.rows) * row_bytes(plan.features, shape, settings, SINGLE)
    shard = shard if shape.device == "cpu" else 0  # in main memory
    cast = 0 if settings.autocast is None else 2 * shape.layer_linear
    return kept + passing + logits + gradients + shard + cast
