"""Muon goes to matrices, AdamW to everything else, under one learning rate and one state."""

from __future__ import annotations

import torch
from torch import nn

from liit.training.optimizers import make_optimizer


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(7, 4)
        self.hidden = nn.Linear(4, 6)
        self.frozen = nn.Linear(6, 6)
        self.norm = nn.LayerNorm(6)
        self.lm_head = nn.Linear(6, 7)
        self.frozen.requires_grad_(False)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.lm_head(self.norm(self.frozen(self.hidden(self.embed_tokens(ids)))))


def net() -> Net:
    torch.manual_seed(0)
    return Net()


def step(model: Net, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    model(torch.arange(7)).square().mean().backward()
    optimizer.step()


def test_only_hidden_matrices_get_muon_and_frozen_ones_nothing() -> None:
    model = net()
    optimizer = make_optimizer(model, "muon", 0.1, 0.0)
    names = {id(p): n for n, p in model.named_parameters()}
    muon, adamw = ([names[id(p)] for g in part.param_groups for p in g["params"]] for part in optimizer.parts)
    assert muon == ["hidden.weight"]
    assert set(adamw) == {n for n, p in model.named_parameters() if p.requires_grad} - {"hidden.weight"}


def test_update_of_a_matrix_is_orthogonal() -> None:
    model = net()
    before = model.hidden.weight.detach().clone()
    step(model, make_optimizer(model, "muon", 0.1, 0.0))
    singular = torch.linalg.svdvals(model.hidden.weight.detach() - before)
    assert singular.min() > 0.5 * singular.max()


def test_schedule_moves_the_learning_rate_of_both_parts() -> None:
    model = net()
    optimizer = make_optimizer(model, "muon", 0.1, 0.0)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 0.0)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    step(model, optimizer)
    scheduler.step()
    assert all(torch.equal(p, before[n]) for n, p in model.named_parameters())
    assert {group["lr"] for part in optimizer.parts for group in part.param_groups} == {0.0}


def test_restored_state_continues_as_if_undisturbed() -> None:
    models = [net(), net()]
    optimizers = [make_optimizer(model, "muon", 0.1, 0.01) for model in models]
    for model, optimizer in zip(models, optimizers, strict=True):
        step(model, optimizer)
    fresh = make_optimizer(models[1], "muon", 0.1, 0.01)
    fresh.load_state_dict(optimizers[1].state_dict())
    step(models[0], optimizers[0])
    step(models[1], fresh)
    for a, b in zip(models[0].parameters(), models[1].parameters(), strict=True):
        assert torch.equal(a, b)
