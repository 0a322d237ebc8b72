"""Loss statistics at the answer positions only, and the loss's gradient at the last hidden state, in closed form.

With p = softmax(W h) and label y: NLL = logsumexp - z_y; EL2N^2 = ||p - onehot(y)||^2 = sum p^2 - 2 p_y + 1 (the
official code builds the one-hot); entropy = logsumexp - sum p z, in nats; dNLL/dh = W^T (p - onehot(y)). So the
vocabulary is met a chunk of positions at a time, and autograd never stores logits.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from liit.model.lora import effective_weight

IGNORE = -100
CHUNK_ELEMENTS = 1 << 24  # logits held at once


@dataclass(frozen=True, slots=True)
class AnswerStatistics:
    """Per-sample means over answer tokens, each (N,) float32; NaN for a row without labels.

    Attributes:
        log_perplexity: mean NLL, the log of the paper's perplexity exp(mean NLL). The official code averages exp(NLL)
            per token instead.
        el2n: mean L2 norm of the error vector.
        entropy: mean entropy of the predicted distribution in nats (the official code averages over all positions).
        n_answer_tokens: number of labelled positions.
        grad_hidden: (N, T, d) gradient of the sum over samples of the mean NLL at the last hidden state, if asked for.
    """

    log_perplexity: Tensor
    el2n: Tensor
    entropy: Tensor
    n_answer_tokens: Tensor
    grad_hidden: Tensor | None


@torch.no_grad()
def answer_statistics(
    hidden: Tensor, labels: Tensor, lm_head: nn.Module, *, gradient: bool = False
) -> AnswerStatistics:
    """Statistics of the next-token predictions at labelled positions.

    Args:
        hidden: (N, T, d) last hidden states.
        labels: (N, T), -100 where there is no label; position t is predicted from hidden state t - 1.
        lm_head: a linear head, with or without LoRA factors, and nothing after it.
        gradient: also return ``grad_hidden``.
    """
    n = len(labels)
    rows, columns = torch.nonzero(labels[:, 1:] != IGNORE, as_tuple=True)
    targets = labels[:, 1:][rows, columns]
    count = torch.bincount(rows, minlength=n).float()
    sums = torch.zeros(3, n, device=hidden.device)
    weight = effective_weight(lm_head)
    grad_hidden = torch.zeros_like(hidden) if gradient else None
    step = max(1, CHUNK_ELEMENTS // weight.shape[0])
    for start in range(0, len(rows), step):
        r, c, y = rows[start : start + step], columns[start : start + step], targets[start : start + step]
        logits = lm_head(hidden[r, c]).float()
        lse = logits.logsumexp(-1)
        label_logit = logits.gather(-1, y[:, None])[:, 0]
        p = (logits - lse[:, None]).exp_()
        entropy = lse - (p * logits).sum(-1)
        p_label = (label_logit - lse).exp()
        el2n = ((p * p).sum(-1) - 2 * p_label + 1).clamp_min(0).sqrt()
        sums.index_add_(1, r, torch.stack([lse - label_logit, el2n, entropy]))
        if grad_hidden is not None:
            p.scatter_add_(-1, y[:, None], torch.full_like(y[:, None], -1, dtype=p.dtype))
            grad_hidden[r, c] = ((p / count[r, None]).to(weight.dtype) @ weight).to(hidden.dtype)
    means = sums / count  # 0 / 0 is NaN: no label, no statistic
    return AnswerStatistics(means[0], means[1], means[2], count, grad_hidden)
