"""What the tests of growth and swaps share: a small network in float64, its batches, and a training loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from sparseopt.nn import PhaseSchedule, Sparsifier, plan

SIDE, BLOCK = 12, 3  # 16 blocks
NAMES = ("omp", "ompr", "rigl")


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(SIDE, SIDE), nn.Tanh(), nn.Linear(SIDE, SIDE)).double()


def sparsifier(model: nn.Module, method: Any, schedule: Any, sparsity: float = 0.75, **settings: Any) -> Sparsifier:
    return Sparsifier(model, plan(model, sparsity, BLOCK, min_blocks=4), method, schedule=schedule, **settings)


def phases(*pairs: tuple[str, int]) -> PhaseSchedule:
    return PhaseSchedule.from_list(pairs)


def batches(n: int, seed: int = 7) -> list[tuple[Any, Any]]:
    generator = torch.Generator().manual_seed(seed)
    pairs = torch.randn(n, 2, 16, SIDE, generator=generator, dtype=torch.float64)
    return [(x, y) for x, y in pairs]


def loss_of(model: nn.Module, batch: tuple[Any, Any]) -> Any:
    return (model(batch[0]) - batch[1]).square().mean()


def run(s: Sparsifier, optimizer: Any, data: list[Any], watch: Callable[[], None] | None = None) -> None:
    for batch in data:
        optimizer.zero_grad()
        loss_of(s.model, batch).backward()
        optimizer.step()
        if watch is not None:
            watch()
