"""Greedy answers of a model to the last question of each sample, in batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from liit.data.sample import Sample
from liit.model.batch import collate
from liit.model.chat import ChatEncoder
from liit.model.memory import Pieces
from liit.model.vision import VisionInputs
from liit.model.vlm import VLM

PROMPT = "the prompt of sample"


@torch.no_grad()
def generate_answers(
    vlm: VLM,
    samples: Sequence[Sample],
    *,
    vision: VisionInputs,
    batch_size: int = 64,
    max_new_tokens: int = 32,
    encoder: ChatEncoder | None = None,
    progress: Callable[[int], None] | None = None,
    pieces: Pieces | None = None,
) -> list[str]:
    """Answer the last question of each sample.

    Prompts of similar length share a batch, padded on the left; the answers do not depend on the batch.

    Args:
        vlm: the model.
        samples: conversations that end with the reference answer, which the model does not see.
        vision: where vision inputs come from.
        batch_size: prompts per batch; fewer when memory runs out.
        max_new_tokens: longest answer in tokens.
        encoder: reuse of an encoder's memory.
        progress: called with the number of answers just made.
        pieces: how many prompts fit, as earlier calls have found; instead of ``batch_size``.

    Returns:
        One answer per sample, without special tokens and surrounding spaces, in the order given.

    Raises:
        InputError: a prompt that does not fit into memory alone.
    """
    encoder = encoder or ChatEncoder(vlm)
    prompts = [encoder.encode_prompt(sample) for sample in samples]
    answers = [""] * len(samples)
    vlm.model.eval()
    longest_first = np.argsort([-len(prompt) for prompt in prompts], kind="stable")  # memory trouble shows at once
    limits = {"max_new_tokens": max_new_tokens, "eos_token_id": encoder.stop_ids}

    def answer(start: int, stop: int) -> None:
        rows = longest_first[start:stop]
        batch = collate(vlm, [prompts[i] for i in rows], vision, side="left")
        del batch["labels"]
        out = vlm.model.generate(**batch, **limits, do_sample=False, num_beams=1)
        new = out[:, batch["input_ids"].shape[1] :]
        for i, text in zip(rows, vlm.tokenizer.batch_decode(new, skip_special_tokens=True), strict=True):
            answers[i] = text.strip()
        if progress is not None:
            progress(len(rows))

    pieces = pieces or Pieces(batch_size, PROMPT)
    pieces.run(len(samples), answer, lambda at: repr(samples[longest_first[at]].id))
    return answers
