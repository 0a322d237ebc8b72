"""One row at a time, through the model's own loss, over all positions: slow and plain."""

from __future__ import annotations

import numpy as np
import torch

from liit.model.batch import collate
from liit.model.chat import Encoded
from liit.model.lora import lora_parameters
from liit.model.vision import Pixels
from liit.model.vlm import VLM


def row_loss(vlm: VLM, row: Encoded) -> torch.Tensor:
    """The model's own loss of one row."""
    return vlm.model(**collate(vlm, [row], Pixels(vlm))).loss


def row_gradient(vlm: VLM, row: Encoded, layers: range | list[int]) -> np.ndarray:
    """The loss's gradient at the LoRA parameters of some decoder layers, in the model's order, by autograd."""
    parameters = lora_parameters(vlm, list(layers))
    for parameter in vlm.model.parameters():
        parameter.requires_grad_(False)
    for parameter in parameters.values():
        parameter.requires_grad_(True)
    gradients = torch.autograd.grad(row_loss(vlm, row), list(parameters.values()))
    return torch.cat([g.flatten() for g in gradients]).double().numpy()


@torch.no_grad()
def row_statistics(vlm: VLM, row: Encoded) -> dict[str, float]:
    """Log-perplexity, EL2N and entropy by their definitions, in double precision."""
    batch = collate(vlm, [row], Pixels(vlm))
    labels = batch.pop("labels")[0, 1:]
    logits = vlm.model(**batch).logits[0, :-1].double()[labels != -100]
    labels = labels[labels != -100]
    p = torch.softmax(logits, -1)
    one_hot = torch.nn.functional.one_hot(labels, logits.shape[-1])
    return {
        "log_perplexity": float(-torch.log(p[torch.arange(len(labels)), labels]).mean()),
        "el2n": float(torch.linalg.vector_norm(p - one_hot, dim=-1).mean()),
        "entropy": float(-(p * torch.log(p)).sum(-1).mean()),
        "n_answer_tokens": float(len(labels)),
        "n_tokens": float(len(row)),
    }


def cosines(vectors: np.ndarray) -> np.ndarray:
    """Cosines of all pairs."""
    vectors = vectors.astype(np.float64)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return (unit @ unit.T)[np.triu_indices(len(unit), 1)]
