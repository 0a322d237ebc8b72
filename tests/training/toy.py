"""A few parameters and the context that hooks get, without a model: what hooks do is arithmetic on gradients."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn

from liit.training.hooks import TaskContext, Update


class Rows:
    """Gradients of rows whose log-likelihood is linear in the parameters: row i has gradient `slopes[i]`."""

    def __init__(self, slopes: dict[str, Tensor]) -> None:
        self.slopes = slopes
        self.asked: list[int] = []

    def of_log_likelihood(self, rows: Iterable[int]) -> Iterator[dict[str, Tensor]]:
        for row in rows:
            self.asked.append(row)
            yield {name: slope[row] for name, slope in self.slopes.items()}

    def of_loss(self, rows: Iterable[int]) -> dict[str, Tensor]:
        chosen = list(rows)
        self.asked += chosen
        return {name: -slope[chosen].mean(0) for name, slope in self.slopes.items()}


def parameters(seed: int = 0) -> dict[str, nn.Parameter]:
    """A matrix, a vector and a larger matrix with random values."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {"a": (3, 2), "b": (5,), "c": (4, 6)}
    return {name: nn.Parameter(torch.randn(shape, generator=generator)) for name, shape in shapes.items()}


def slopes(count: int, seed: int = 1) -> dict[str, Tensor]:
    """A random gradient for each of some rows."""
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn((count, *p.shape), generator=generator) for name, p in parameters().items()}


def context(
    trained: dict[str, nn.Parameter],
    number: int = 2,
    *,
    first: bool = False,
    seed: int = 5,
    adapter: str = "continue",
    new: tuple[bool, ...] = (True,) * 6,
    rows: Rows | None = None,
) -> TaskContext:
    """The context of a step's training."""
    return TaskContext(number, first, seed, adapter, trained, 10, new, rows or Rows(slopes(len(new))))


def give(trained: dict[str, nn.Parameter], scale: float = 1.0, seed: int = 2) -> dict[str, Tensor]:
    """Give every parameter a random gradient; what it was."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in trained.values():
        parameter.grad = torch.randn(parameter.shape, generator=generator) * scale
    return {name: parameter.grad.clone() for name, parameter in trained.items()}


def move(trained: dict[str, nn.Parameter], scale: float = 1.0, seed: int = 3) -> None:
    """Move every parameter at random."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in trained.values():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * scale)


def update(trained: dict[str, nn.Parameter], number: int = 0, rows: tuple[int, ...] = (0, 1, 2)) -> Update:
    """One optimizer step."""
    return Update(number, rows, trained)
