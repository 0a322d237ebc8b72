"""The pass without images: how well the answer is predicted from the words alone, or from black pictures."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
import torch
from torch import Tensor

from liit.features.budget import RowDoesNotFitError, TokenBudget
from liit.features.inputs import Inputs
from liit.features.losses import answer_statistics, next_tokens
from liit.features.narrow import answer_positions
from liit.features.packing import ATTENTION_SHARE, Pack, lay_out, pack_rows
from liit.features.passes import Passes
from liit.features.report import ExtractionReport
from liit.features.sharing import Sharing
from liit.model.chat import Encoded
from liit.model.image_tokens import image_size
from liit.model.vision import BlankPixels
from liit.model.vlm import VLM


class BlindPass:
    """Scores rows without their images, in the fewest tokens.

    Rows that are the same without their images (one question and answer about two pictures) share all of a pass, rows
    that begin alike share their beginning: the question, or with ``blind: zeros`` the template and the black picture.

    Args:
        vlm: the model.
        passes: its forward passes.
        inputs: make batches.
        budget: for batches.
        report: is counted into.
        blank: what takes the images' place; None when they are taken out.
        sharing: how rows share their beginnings; None when they do not.
    """

    def __init__(
        self,
        vlm: VLM,
        passes: Passes,
        inputs: Inputs,
        budget: TokenBudget,
        report: ExtractionReport,
        blank: BlankPixels | None,
        sharing: Sharing | None,
    ) -> None:
        self.vlm, self.passes, self.inputs, self.budget = vlm, passes, inputs, budget
        self.report, self.blank = report, blank
        able = sharing is not None and sharing.packs and (blank is None or sharing.pictures)
        self.sharing = sharing if able else None

    @property
    def share(self) -> bool:
        """Whether rows share their beginnings."""
        return self.sharing is not None

    @torch.no_grad()
    def __call__(self, rows: Sequence[Encoded]) -> np.ndarray:
        """Log-perplexity (N,) float32 of rows without images, or of rows whose images turn black."""
        seen: list[Hashable] = [self._seen(row) for row in rows]
        owner: dict[Hashable, int] = {}
        distinct: list[int] = []
        member = np.zeros(len(rows), dtype=np.int64)
        for i, row in enumerate(rows):
            words = (row.input_ids.tobytes(), row.answer_mask.tobytes(), seen[i])
            if words not in owner:
                owner[words] = len(distinct)
                distinct.append(i)
            member[i] = owner[words]
        chosen, shown = [rows[i] for i in distinct], [seen[i] for i in distinct]
        self.report.blind_rows += len(rows)
        self.report.shared_blind_rows += len(rows) - len(distinct)
        values = np.full(len(distinct), np.nan, dtype=np.float32)
        packs = self._packs(chosen, shown)
        try:
            self._run(packs, chosen, values)
        except RowDoesNotFitError:
            if all(len(pack.rows) == 1 for pack in packs):
                raise
            self._run([Pack((i,), len(row), len(row)) for i, row in enumerate(chosen)], chosen, values)
        return values[member]

    def _seen(self, row: Encoded) -> Hashable:
        """What is left of a row's images: their sizes, which a black picture keeps, or nothing."""
        return () if self.blank is None else tuple(image_size(image) for image in row.images)

    def _packs(self, rows: Sequence[Encoded], shown: Sequence[Hashable]) -> list[Pack]:
        if self.sharing is None:
            return [Pack((i,), len(row), len(row)) for i, row in enumerate(rows)]
        most = min(int(ATTENTION_SHARE * self.vlm.text_config.hidden_size), self.budget.tokens)
        return pack_rows(rows, shown, self.vlm.image_token_id, most)

    def _run(self, packs: Sequence[Pack], rows: Sequence[Encoded], values: np.ndarray) -> None:
        def work(chosen: np.ndarray) -> None:
            some = [packs[i] for i in chosen]
            numbers = [number for pack in some for number in pack.rows]
            if self.sharing is not None and any(len(pack.rows) > 1 for pack in some):
                values[numbers] = self._packed(self.sharing, some, rows)
            else:
                values[numbers] = self._apart([rows[i] for i in numbers])

        lengths = [(pack.tokens, sum(rows[i].n_answer_tokens for i in pack.rows)) for pack in packs]
        self.budget.run(lengths, work, [rows[pack.rows[0]].id for pack in packs])

    def _apart(self, rows: Sequence[Encoded]) -> np.ndarray:
        batch = self.inputs.batch(rows, self.blank)
        positions, targets = answer_positions(next_tokens(batch["labels"]))
        hidden = self.passes.run(batch, len(self.passes.layers), positions)
        self._count(int(batch["attention_mask"].sum()), batch["attention_mask"].numel())
        return self._score(hidden, targets)

    def _packed(self, sharing: Sharing, packs: Sequence[Pack], rows: Sequence[Encoded]) -> np.ndarray:
        packed = lay_out(packs, rows, self.vlm.device)
        vision = self.inputs.images_of([rows[pack.rows[0]] for pack in packs], self.blank)
        hidden, targets = sharing.answers(packed, vision)
        self._count(sum(pack.tokens for pack in packs), packed.input_ids.numel())
        return self._score(hidden, targets)

    def _score(self, hidden: Tensor | None, targets: Tensor) -> np.ndarray:
        assert hidden is not None
        return answer_statistics(hidden, targets, self.passes.head).log_perplexity.cpu().numpy()

    def _count(self, tokens: int, places: int) -> None:
        self.report.blind_calls += 1
        self.report.layer_calls += len(self.passes.layers)
        self.report.blind_tokens += tokens
        self.report.padded_tokens += places
