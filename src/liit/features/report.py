"""What an extraction did, counted while it ran, to be compared with what was planned."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass
class ExtractionReport:
    """Counts of one call of `liit.extract`; ``store.report``.

    Attributes:
        rows: samples asked for.
        fresh: of these, rows that needed nothing, because everything was stored for this checkpoint and content.
        stale: of these, rows whose content had changed under the same id, or (with ``refresh``) whose checkpoint had.
        scored: rows for which something was computed.
        done: of these, rows that are finished so far.
        predicted: rows whose features follow from those of the last step, without the model; see `features.rescore`.
        carried: rows that keep the features of the last step, because the model that scores has not changed.
        image_calls: model calls (batches) with images.
        blind_calls: model calls of the no-image pass.
        backward_calls: backward passes.
        layer_calls: decoder layers run forward over a batch, all passes together.
        tokens: real tokens of the passes with images.
        blind_tokens: real tokens of the no-image passes.
        padded_tokens: places of all batches, padding included.
        blind_rows: rows that have a no-image score.
        shared_blind_rows: of these, rows that share the pass of another row with the same words.
        images: images that the passes were given, each time they were.
        tower_images: images that went through the vision tower.
        out_of_memory: how often a batch did not fit and was cut.
        batch_tokens: token budget at the end.
        seconds: wall time so far.
        cpu_seconds: processor time of this process so far.
        bytes_written: size of the feature columns written.
        notes: what a user should know.
    """

    rows: int = 0
    fresh: int = 0
    stale: int = 0
    scored: int = 0
    done: int = 0
    predicted: int = 0
    carried: int = 0
    image_calls: int = 0
    blind_calls: int = 0
    backward_calls: int = 0
    layer_calls: int = 0
    tokens: int = 0
    blind_tokens: int = 0
    padded_tokens: int = 0
    blind_rows: int = 0
    shared_blind_rows: int = 0
    images: int = 0
    tower_images: int = 0
    out_of_memory: int = 0
    batch_tokens: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    bytes_written: int = 0
    notes: list[str] = field(default_factory=list)

    @property
    def model_calls(self) -> int:
        """Batches that the model ran forward, with and without images."""
        return self.image_calls + self.blind_calls

    @property
    def cached_images(self) -> int:
        """Images for which the vision tower did not run, because its output was kept."""
        return max(0, self.images - self.tower_images)

    @property
    def rows_per_second(self) -> float:
        """Finished rows per second of wall time."""
        return self.done / self.seconds if self.seconds > 0 else 0.0

    @property
    def tokens_per_second(self) -> float:
        """Real tokens, of all passes, per second of wall time."""
        return (self.tokens + self.blind_tokens) / self.seconds if self.seconds > 0 else 0.0

    @property
    def seconds_left(self) -> float | None:
        """Wall time that the rest will take at this rate; None before the first row is done."""
        return (self.scored - self.done) / self.rows_per_second if self.done and self.seconds > 0 else None

    def note(self, text: str) -> None:
        """Remember something once."""
        if text not in self.notes:
            self.notes.append(text)

    def as_dict(self) -> dict[str, Any]:
        """Everything as JSON-serialisable values, rates included."""
        rates = {
            "model_calls": self.model_calls,
            "cached_images": self.cached_images,
            "rows_per_second": round(self.rows_per_second, 2),
            "tokens_per_second": round(self.tokens_per_second, 1),
        }
        return {**asdict(self), **rates}
