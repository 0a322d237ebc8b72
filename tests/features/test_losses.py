"""Answer statistics against their definitions, with one-hot vectors and full softmax in double precision."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from liit.features import losses
from liit.features.head import LogitHead
from liit.features.losses import IGNORE, AnswerStatistics, next_tokens

N, T, D, V = 4, 9, 6, 13


def problem(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, nn.Linear]:
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(N, T, D, generator=generator)
    labels = torch.randint(0, V, (N, T), generator=generator)
    labels[torch.rand(N, T, generator=generator) < 0.5] = IGNORE
    labels[0] = IGNORE  # no label at all
    labels[1] = IGNORE
    labels[1, 0] = 3  # a label that nothing predicts
    head = nn.Linear(D, V, bias=True)
    with torch.no_grad():
        head.weight.copy_(torch.randn(V, D, generator=generator))
        head.bias.copy_(torch.randn(V, generator=generator))
    return hidden, labels, head


def answer_statistics(hidden: torch.Tensor, labels: torch.Tensor, head: nn.Linear, **more: bool) -> AnswerStatistics:
    return losses.answer_statistics(hidden, next_tokens(labels), LogitHead(head), **more)


@torch.no_grad()
def by_definition(hidden: torch.Tensor, labels: torch.Tensor, head: nn.Linear) -> np.ndarray:
    """(4, N): log-perplexity, EL2N, entropy, count."""
    out = np.full((4, N), np.nan)
    for i in range(N):
        rows = []
        for t in range(1, T):
            if labels[i, t] == IGNORE:
                continue
            logits = hidden[i, t - 1].double() @ head.weight.double().T + head.bias.double()
            p = torch.softmax(logits, 0)
            one_hot = F.one_hot(labels[i, t], V)
            nll, entropy = -torch.log(p[labels[i, t]]), -(p * torch.log(p)).sum()
            rows.append([float(nll), float(torch.linalg.vector_norm(p - one_hot)), float(entropy)])
        out[3, i] = len(rows)
        if rows:
            out[:3, i] = np.mean(rows, 0)
    return out


def stacked(statistics: losses.AnswerStatistics) -> np.ndarray:
    s = statistics
    return torch.stack([s.log_perplexity, s.el2n, s.entropy, s.n_answer_tokens]).numpy()


def test_statistics_are_their_definitions_and_nan_without_labels() -> None:
    hidden, labels, head = problem()
    expected = by_definition(hidden, labels, head)
    assert np.isnan(expected[:3, :2]).all()
    assert (expected[3, 2:] > 1).all()
    np.testing.assert_allclose(stacked(answer_statistics(hidden, labels, head)), expected, rtol=1e-5)


def test_gradient_at_the_hidden_state_is_autograds() -> None:
    hidden, labels, head = problem()
    leaf = hidden.double().requires_grad_()
    logits = (leaf @ head.weight.detach().double().T + head.bias.detach().double())[:, :-1]
    nll = F.cross_entropy(logits.transpose(1, 2), labels[:, 1:], ignore_index=IGNORE, reduction="none")
    count = (labels[:, 1:] != IGNORE).sum(1)
    (nll.sum(1)[count > 0] / count[count > 0]).sum().backward()
    got = answer_statistics(hidden, labels, head, gradient=True).grad_hidden
    torch.testing.assert_close(got, leaf.grad.float(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("elements", [1, V, 5 * V + 1])
def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch, elements: int) -> None:
    hidden, labels, head = problem()
    whole = answer_statistics(hidden, labels, head, gradient=True)
    monkeypatch.setattr(losses, "CHUNK_ELEMENTS", elements)
    chunked = answer_statistics(hidden, labels, head, gradient=True)
    np.testing.assert_allclose(stacked(chunked), stacked(whole), rtol=1e-6)
    torch.testing.assert_close(chunked.grad_hidden, whole.grad_hidden)


def test_certain_and_clueless_models_have_the_known_values() -> None:
    """Certain and right: 0, 0, 0. Uniform: log V, sqrt(1 - 1/V), log V."""
    head = nn.Linear(V, V, bias=False)
    head.weight.data = 1e4 * torch.eye(V)
    labels = torch.tensor([[IGNORE, 5]])
    sure = F.one_hot(torch.tensor([[5, 5]]), V).float()
    np.testing.assert_allclose(stacked(answer_statistics(sure, labels, head))[:3, 0], 0)
    clueless = stacked(answer_statistics(torch.zeros(1, 2, V), labels, head))[:3, 0]
    np.testing.assert_allclose(clueless, [np.log(V), np.sqrt(1 - 1 / V), np.log(V)], rtol=1e-6)


def test_statistics_of_a_model_that_is_sure_keep_their_digits() -> None:
    """With p_y within 1e-6 of one, `1 - p_y` in single precision would have lost most of them."""
    head = nn.Linear(V, V, bias=False)
    head.weight.data = torch.eye(V)
    rng = np.random.default_rng(0)
    hidden = torch.from_numpy(rng.standard_normal((1, 40, V)).astype(np.float32))
    labels = torch.from_numpy(rng.integers(0, V, (1, 40)))
    hidden[0, torch.arange(39), labels[0, 1:]] += torch.linspace(12, 30, 39)
    for i in range(1, 39):
        one = torch.full_like(labels, IGNORE)
        one[0, i + 1 : i + 2] = labels[0, i + 1 : i + 2]
        got = stacked(answer_statistics(hidden, one, head))[:3, 0]
        logits = hidden[0, i].double()
        p = torch.softmax(logits, 0)
        others = torch.cat([p[: labels[0, i + 1]], p[labels[0, i + 1] + 1 :]])
        el2n = float((others.square().sum() + others.sum().square()).sqrt())
        entropy = float(-(p * torch.log_softmax(logits, 0)).sum())
        assert el2n < 1e-3
        np.testing.assert_allclose(got, [-np.log1p(-float(others.sum())), el2n, entropy], rtol=1e-4)
