"""Loss statistics at the answer positions only, and the loss's gradient at the last hidden state, in closed form.

With z = W h the logits, p = softmax(z) and label y: NLL = logsumexp z - z_y; EL2N^2 = ||p - onehot(y)||^2 (the official
code builds the one-hot); entropy = sum p (logsumexp z - z), in nats; dNLL/dz = p - onehot(y). Where 1 - p_y occurs
it is the sum of the other probabilities: a difference would lose its digits where the model is sure. So the
vocabulary is met a chunk of positions at a time, and autograd never stores logits.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from liit.features.head import LogitHead

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
        grad_hidden: (N, S, d) gradient of the sum over samples of the mean NLL at the hidden states, if asked for.
    """

    log_perplexity: Tensor
    el2n: Tensor
    entropy: Tensor
    n_answer_tokens: Tensor
    grad_hidden: Tensor | None


def next_tokens(labels: Tensor) -> Tensor:
    """What each position predicts: (N, T) labels moved one place to the left, -100 at the end."""
    return torch.cat([labels[:, 1:], torch.full_like(labels[:, :1], IGNORE)], 1)


@torch.no_grad()
def answer_statistics(hidden: Tensor, targets: Tensor, head: LogitHead, *, gradient: bool = False) -> AnswerStatistics:
    """Statistics of the predictions at positions that have a target.

    Args:
        hidden: (N, S, d) last hidden states, at all positions or at some.
        targets: (N, S) token that each of them predicts, -100 for none.
        head: makes logits of them.
        gradient: also return ``grad_hidden``.
    """
    n = len(targets)
    rows, columns = torch.nonzero(targets != IGNORE, as_tuple=True)
    labels = targets[rows, columns]
    count = torch.bincount(rows, minlength=n).float()
    sums = torch.zeros(3, n, device=hidden.device)
    grad_hidden = torch.zeros_like(hidden) if gradient else None
    step = max(1, CHUNK_ELEMENTS // head.vocabulary)
    for start in range(0, len(rows), step):
        r, c, y = rows[start : start + step], columns[start : start + step], labels[start : start + step]
        logits = head.logits(hidden[r, c])
        lse = logits.logsumexp(-1)
        surprise = lse[:, None] - logits
        p = (-surprise).exp_().scatter_(-1, y[:, None], 0)  # of all tokens but the label's
        others = p.sum(-1)
        nll = torch.where(others < 0.5, -torch.log1p(-others), surprise.gather(-1, y[:, None])[:, 0])
        entropy = (p * surprise).sum(-1) + (-nll).exp() * nll
        el2n = ((p * p).sum(-1) + others**2).sqrt()
        sums.index_add_(1, r, torch.stack([nll, el2n, entropy]))
        if grad_hidden is not None:
            p.scatter_(-1, y[:, None], -others[:, None])  # p_y - 1
            grad_hidden[r, c] = head.pull(p / count[r, None], logits).to(hidden.dtype)
    means = sums / count  # 0 / 0 is NaN: no label, no statistic
    return AnswerStatistics(means[0], means[1], means[2], count, grad_hidden)
