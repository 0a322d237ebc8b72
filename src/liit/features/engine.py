"""All features of some rows with one checkpoint: one forward, one partial backward and one no-image forward at most."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from liit.config import FeatureSettings
from liit.errors import InputError
from liit.features.adam import AdamState
from liit.features.attention import InstructionAttention
from liit.features.blind import BlindPass
from liit.features.budget import RowDoesNotFitError, TokenBudget
from liit.features.gradients import GradientSource, LoraGradients
from liit.features.hidden import attended_mean, masked_mean, position_weighted_mean
from liit.features.inputs import Inputs
from liit.features.losses import AnswerStatistics, answer_statistics, next_tokens
from liit.features.narrow import answer_positions
from liit.features.packing import ATTENTION_SHARE, Pack, PackedRows, lay_out, pack_rows
from liit.features.passes import Passes, states_after, user_positions
from liit.features.plan import plan_passes
from liit.features.report import ExtractionReport
from liit.features.settings import batch_tokens
from liit.features.sharing import Sharing
from liit.features.sketch import Sketch, make_sketch
from liit.features.taps import only_scoring
from liit.features.weights import WeightGradients
from liit.model.chat import Encoded
from liit.model.lora import folded_adapter
from liit.model.vision import BlankPixels, Pixels, VisionInputs
from liit.model.vlm import VLM

Done = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Twin:
    """A row as the model sees it, and without its images: None for a text-only row, anything for ``blind: zeros``."""

    row: Encoded
    blind: Encoded | None


class Extractor:
    """Computes features of encoded rows with one checkpoint.

    Args:
        vlm: the model, with an adapter when gradients of its LoRA factors are asked for.
        features: standard feature names.
        settings: what changes their values.
        vision: where vision inputs come from.
        seed: of the gradient sketch; the same for every matrix that is to be compared.
        optimizer_state: Adam's state, for gradients as it would step; see `AdamState`.
        report: is counted into.

    Raises:
        InputError: a feature that this model or its adapter does not have.
    """

    def __init__(
        self,
        vlm: VLM,
        features: Sequence[str],
        settings: FeatureSettings,
        vision: VisionInputs | None = None,
        seed: int = 0,
        *,
        optimizer_state: Path | None = None,
        report: ExtractionReport | None = None,
    ) -> None:
        self.vlm, self.settings, self.seed = vlm, settings, seed
        self.plan = plan_passes(features, settings, vlm.text_config.num_hidden_layers)
        self.features = self.plan.features
        self.report = report if report is not None else ExtractionReport()
        self.inputs = Inputs(vlm, vision if vision is not None else Pixels(vlm), self.report)
        self.budget = TokenBudget(batch_tokens(settings, vlm.device), self.report)
        self.gradients, self.sketch, self.adam = self._gradient_parts(optimizer_state)
        self.attention: InstructionAttention | None = None
        if self.plan.instructed_vision:
            self.attention = InstructionAttention(vlm.decoder_layers[0], vlm.path)
        needs_head = self.plan.statistics or self.plan.blind or bool(self.plan.gradient_layers)
        with only_scoring(vlm):
            autocast = None if settings.autocast is None else torch.bfloat16
            self.passes = Passes(vlm, head=needs_head, autocast=autocast)
            shares = settings.share_beginnings and self.plan.blind
            images = settings.share_images and self.plan.forward_layers > 1
            self.sharing = Sharing(self.passes, forks=images) if shares or images else None
        self.blind: BlindPass | None = None
        if self.plan.blind:
            blank = BlankPixels(vlm) if settings.blind == "zeros" else None
            sharing = self.sharing if shares else None
            self.blind = BlindPass(vlm, self.passes, self.inputs, self.budget, self.report, blank, sharing)
        if settings.share_images and not self.fork:
            self.report.note("features.share_images: this model and these features leave nothing to share")
        if needs_head and self.passes.narrow is None:
            self.report.note(f"the last layer runs at every position, because {self.passes.why_not_narrow}")

    def _gradient_parts(self, state: Path | None) -> tuple[GradientSource | None, Sketch | None, AdamState | None]:
        layers, settings, vlm = self.plan.gradient_layers, self.settings, self.vlm
        if not layers:
            return None, None, None
        source: GradientSource
        if settings.gradient_of == "weights":
            if state is not None:
                raise InputError("optimizer_state: a sketched weight gradient has no coordinates to precondition; "
                                 "set features.gradient_of to lora")  # fmt: skip
            source = WeightGradients(vlm, layers, settings.factor_width, self.seed)
        else:
            source = lora = LoraGradients(vlm, layers)
        adam = None
        if state is not None:
            adam = AdamState(state, {name: p.shape for name, p in lora.parameters.items()}, vlm.device)
        sketch = None
        if "gradient" in self.features:
            sketch = make_sketch(settings.sketch, source.length, settings.dim, self.seed, vlm.device)
        return source, sketch, adam

    @property
    def model_calls(self) -> int:
        """Forward passes so far."""
        return self.report.model_calls

    def __call__(self, twins: Sequence[Twin], done: Done | None = None) -> dict[str, np.ndarray]:
        """Features of some rows, in their order, whatever the batches were.

        Args:
            twins: the rows.
            done: called with the number of rows just finished.

        Returns:
            (N,) float32 per scalar and (N, d) float32 per vector.

        Raises:
            InputError: a row that does not fit into memory alone.
        """
        finished: Done = done if done is not None else lambda _: None
        columns: dict[str, np.ndarray] = {
            "n_tokens": np.asarray([len(twin.row) for twin in twins], dtype=np.float32),
            "n_answer_tokens": np.asarray([twin.row.n_answer_tokens for twin in twins], dtype=np.float32),
        }
        with only_scoring(self.vlm), folded_adapter(self.vlm):
            if self.plan.blind:
                columns["blind_log_perplexity"] = self._blind(twins)
            if self.plan.forward_layers:
                self._with_images(columns, twins, finished)
            else:
                finished(len(twins))
        if "image_grounding" in self.features:
            columns["image_grounding"] = np.exp(columns["blind_log_perplexity"] - columns["log_perplexity"])
        return {name: columns[name] for name in self.features}

    @property
    def fork(self) -> int:
        """The decoder layer up to which rows share their beginnings in the pass with images; 0: they do not."""
        if not self.settings.share_images or self.sharing is None:
            return 0
        return self.plan.fork if self.sharing.forks and self.sharing.pictures else 0

    def _with_images(self, columns: dict[str, np.ndarray], twins: Sequence[Twin], finished: Done) -> None:
        rows = [twin.row for twin in twins]
        waiting = [Pack((i,), len(row), len(row)) for i, row in enumerate(rows)]
        if self.fork:
            shown = [tuple(image.sha256 for image in row.images) for row in rows]
            most = min(int(ATTENTION_SHARE * self.vlm.text_config.hidden_size), self.budget.tokens)
            waiting = pack_rows(rows, shown, self.vlm.image_token_id, most, self.budget.tokens)

        def work(chosen: np.ndarray) -> None:
            packs = [waiting[i] for i in chosen]
            numbers = [number for pack in packs for number in pack.rows]
            for name, value in self._image_pass(packs, rows).items():
                array = value.detach().float().cpu().numpy()
                if name not in columns:
                    columns[name] = np.zeros((len(rows), *array.shape[1:]), dtype=np.float32)
                columns[name][numbers] = array
            done.update(numbers)
            finished(len(numbers))

        done: set[int] = set()
        try:
            self.budget.run(_lengths(waiting, rows), work, [rows[pack.rows[0]].id for pack in waiting])
        except RowDoesNotFitError:
            if all(len(pack.rows) == 1 for pack in waiting):
                raise
            waiting = [Pack((i,), len(row), len(row)) for i, row in enumerate(rows) if i not in done]
            self.budget.run(_lengths(waiting, rows), work, [rows[pack.rows[0]].id for pack in waiting])

    def _image_pass(self, packs: Sequence[Pack], rows: Sequence[Encoded]) -> dict[str, Tensor]:
        """Features of the rows of some packs, pack by pack."""
        plan, gradients = self.plan, self.gradients
        packed: PackedRows | None = None
        if self.sharing is not None and any(len(pack.rows) > 1 for pack in packs):
            packed = lay_out(packs, rows, self.vlm.device)
            vision_of = self.inputs.images_of([rows[pack.rows[0]] for pack in packs])
            batch = self.sharing.inputs(packed, vision_of)
            mask, labels = packed.mask, packed.labels
        else:
            batch = self.inputs.batch([rows[number] for pack in packs for number in pack.rows])
            mask, labels = batch["attention_mask"], batch["labels"]
        targets = next_tokens(labels)
        positions: Tensor | None = None
        if plan.narrow:
            positions, targets = answer_positions(targets)
        watched = {*plan.embedding_layers, *([0] if self.attention is not None else [])}
        out: dict[str, Tensor] = {}
        with ExitStack() as stack:
            states = stack.enter_context(states_after(self.passes.layers, watched))
            if self.attention is not None:
                users, vision = user_positions(batch, self.vlm.image_token_id)
                stack.enter_context(self.attention.recording(users))
            if gradients is not None:
                stack.enter_context(gradients.recording())
            if packed is not None and self.sharing is not None:
                stack.enter_context(self.sharing.forked(packed, self.fork))
            stack.enter_context(torch.set_grad_enabled(gradients is not None))
            hidden = self.passes.run(batch, plan.forward_layers, positions)
            self._count(sum(pack.tokens for pack in packs), batch["input_ids"].numel())
            if plan.statistics or gradients is not None:
                assert hidden is not None
                statistics = answer_statistics(hidden, targets, self.passes.head, gradient=gradients is not None)
                out.update(_scores(statistics))
                if gradients is not None:
                    out.update(self._gradient(gradients, hidden, statistics))
            if plan.last_hidden:
                assert hidden is not None
                out["last_hidden_weighted"] = position_weighted_mean(hidden.detach(), mask)
            if plan.embedding_layers:
                if packed is not None:
                    states.update({n: packed.unpack(state) for n, state in states.items() if n < self.fork})
                out["embedding"] = torch.cat([masked_mean(states[layer], mask) for layer in plan.embedding_layers], 1)
            if self.attention is not None:
                attention = self.attention.result()
                out["instructed_vision"] = attended_mean(states[0], attention, vision, self.settings.attention_mass)
        return out

    def _gradient(self, source: GradientSource, hidden: Tensor, statistics: AnswerStatistics) -> dict[str, Tensor]:
        assert statistics.grad_hidden is not None
        self.report.backward_calls += 1
        squares = torch.zeros(len(hidden), device=hidden.device)

        def parts() -> Any:
            for part in source.per_sample(hidden, statistics.grad_hidden):  # type: ignore[arg-type]
                squares.add_(part.squares)
                yield part.values if self.adam is None else self.adam(part.name, part.values)

        out: dict[str, Tensor] = {}
        with torch.no_grad():
            if self.sketch is not None:
                out["gradient"] = self.sketch(parts())
            else:
                for _ in parts():
                    pass
            out["grad_norm"] = squares.sqrt()
            no_label = statistics.n_answer_tokens == 0  # a missing value, not a gradient of zero
            for value in out.values():
                value[no_label] = torch.nan
        return out

    def _blind(self, twins: Sequence[Twin]) -> np.ndarray:
        """Log-perplexity of the answers without the images; NaN where there is no image to take away."""
        out = np.full(len(twins), np.nan, dtype=np.float32)
        with_image = [i for i, twin in enumerate(twins) if twin.blind is not None]
        rows = [twins[i].row if self.settings.blind == "zeros" else twins[i].blind for i in with_image]
        if self.blind is not None and rows:
            out[with_image] = self.blind([row for row in rows if row is not None])
        return out

    def _count(self, tokens: int, places: int) -> None:
        self.report.image_calls += 1
        self.report.layer_calls += self.plan.forward_layers
        self.report.tokens += tokens
        self.report.padded_tokens += places


def _lengths(packs: Sequence[Pack], rows: Sequence[Encoded]) -> list[tuple[int, int]]:
    """Of each pack, the places that its rows take apart, and their answer tokens."""
    return [
        (len(pack.rows) * max(len(rows[i]) for i in pack.rows), sum(rows[i].n_answer_tokens for i in pack.rows))
        for pack in packs
    ]


def _scores(statistics: AnswerStatistics) -> dict[str, Tensor]:
    return {
        "log_perplexity": statistics.log_perplexity,
        "el2n": statistics.el2n,
        "entropy": statistics.entropy,
    }
