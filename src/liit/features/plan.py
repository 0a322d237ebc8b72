"""What has to run for some features: how far the pass with images goes, whether there is a backward, a no-image pass.

The plan is a function of names and settings, so what it costs can be said before anything starts (`liit doctor`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from liit.config import FeatureSettings
from liit.features.settings import (
    BACKWARD,
    BLIND,
    check_features,
    embedding_layers,
    gradient_layers,
)

IMAGE_STATISTICS = frozenset({"log_perplexity", "image_grounding", "el2n", "entropy"})


@dataclass(frozen=True, slots=True)
class Plan:
    """The passes that some features need.

    Attributes:
        features: their names, in the store's order.
        n_layers: decoder layers of the model.
        statistics: the pass with images ends in the language-model head.
        blind: there is a second forward pass, of the rows that have images, without them.
        gradient_layers: decoder layers whose gradients are taken, ascending; empty without a backward pass.
        embedding_layers: decoder layers whose mean hidden state is taken.
        last_hidden: the last hidden states of all tokens are needed.
        instructed_vision: block 1's attention is looked at.
    """

    features: tuple[str, ...]
    n_layers: int
    statistics: bool
    blind: bool
    gradient_layers: tuple[int, ...]
    embedding_layers: tuple[int, ...]
    last_hidden: bool
    instructed_vision: bool

    @property
    def forward_layers(self) -> int:
        """Decoder layers that the pass with images runs; 0: there is no such pass."""
        if self.statistics or self.gradient_layers or self.last_hidden:
            return self.n_layers
        deepest = max(self.embedding_layers, default=-1) + 1
        return max(deepest, 1 if self.instructed_vision else 0)

    @property
    def blind_layers(self) -> int:
        """Decoder layers that the no-image pass runs; 0: there is no such pass."""
        return self.n_layers if self.blind else 0

    @property
    def backward_layers(self) -> int:
        """Decoder layers, from the top, that the backward pass goes through; 0: there is no backward pass."""
        return self.n_layers - self.gradient_layers[0] if self.gradient_layers else 0

    @property
    def narrow(self) -> bool:
        """Whether only positions that predict an answer token leave the last decoder layer of the pass with images."""
        looked_at = self.instructed_vision and self.n_layers == 1
        whole = self.last_hidden or self.n_layers - 1 in self.embedding_layers or looked_at
        return self.forward_layers == self.n_layers and not whole

    @property
    def fork(self) -> int:
        """The decoder layer up to which rows of one image can share its pass; 0: they cannot.

        Gradients of a layer are sums over all tokens of a row, so from the lowest such layer on every row has its own.
        """
        if self.instructed_vision or not self.forward_layers:
            return 0
        return min([*self.gradient_layers[:1], self.forward_layers - 1])

    @property
    def forwards(self) -> int:
        """Model calls per batch of rows with images."""
        return (self.forward_layers > 0) + self.blind


def plan_passes(features: Sequence[str], settings: FeatureSettings, n_layers: int) -> Plan:
    """The fewest passes that give these features.

    Args:
        features: standard feature names.
        settings: which layers.
        n_layers: decoder layers of the model.

    Raises:
        InputError: an unknown feature, or a layer that the model does not have.
    """
    names = check_features(features)
    wanted = set(names)
    return Plan(
        features=names,
        n_layers=n_layers,
        statistics=bool(IMAGE_STATISTICS & wanted),
        blind=bool(BLIND & wanted),
        gradient_layers=gradient_layers(settings, n_layers) if BACKWARD & wanted else (),
        embedding_layers=embedding_layers(settings, n_layers) if "embedding" in wanted else (),
        last_hidden="last_hidden_weighted" in wanted,
        instructed_vision="instructed_vision" in wanted,
    )
