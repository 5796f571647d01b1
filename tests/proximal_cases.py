"""What the tests of proximal steps share: a regularizer of one's own, a small network, optimizers and training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import nn

from sparseopt.nn import plan
from sparseopt.nn.penalty import BlockPenalty
from sparseopt.nn.proximal import Proximal
from sparseopt.regularizers import regularizer
from sparseopt.scalar import maximum


@regularizer
class Half(NamedTuple):
    """A regularizer of one's own: half of the norm."""

    def value(self, u: Any) -> Any:
        return 0.5 * u

    def slope(self, u: Any) -> Any:
        return 0.5 + 0.0 * u

    def prox(self, u: Any, t: Any) -> Any:
        return maximum(u - 0.5 * t, 0.0)

    def slope_at_zero(self) -> float:
        return 0.5


def small(seed: int = 0, **kwargs: Any) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(12, 10, **kwargs), nn.Tanh(), nn.Linear(10, 3, **kwargs)).double()


def small_plan(model: nn.Module) -> Any:
    return plan(model, 0.5, block=(2, 4), min_blocks=2)


OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01),
    "adam": lambda p: torch.optim.Adam(p, lr=0.02),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.02, foreach=True),
    "fused": lambda p: torch.optim.AdamW(p, lr=0.02, fused=True),
    "tensor lr": lambda p: torch.optim.Adam(p, lr=torch.tensor(0.02), foreach=False),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.01),
    "nadam": lambda p: torch.optim.NAdam(p, lr=0.01),
}
X = torch.randn(20, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def loss_of(model: nn.Module) -> torch.Tensor:
    return (model(X.to(next(model.parameters()).dtype)) - 1.0).square().mean()


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> None:
    for _ in range(steps):
        optimizer.zero_grad()
        loss_of(model).backward()
        optimizer.step()


def proximal(
    model: nn.Module, make: Callable[[Any], torch.optim.Optimizer], q: Any = "l2", lam: float = 0.3
) -> Proximal:
    return Proximal(make(model.parameters()), BlockPenalty(small_plan(model), q, lam), model)
