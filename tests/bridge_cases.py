"""Linear layers that are problems of the core. Imported by tests of the bridge between networks and the core."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from sparseopt import Problem
from sparseopt.nn import BlockGrid
from sparseopt.nn.correspondence import groups_of
from sparseopt.nn.planning import LayerPlan


@dataclass
class Bridge:
    """Squares (1/n) sum 1/2 r^2 of a linear layer, and the same problem in the core."""

    grid: BlockGrid
    sparsity: float = 0.6
    n: int = 60

    def __post_init__(self) -> None:
        rng = np.random.default_rng(0)
        outputs, inputs = self.grid.shape
        distance = np.abs(np.subtract.outer(np.arange(inputs), np.arange(inputs)))
        self.X = rng.normal(size=(self.n, inputs)) @ np.linalg.cholesky(0.5**distance).T
        truth = rng.normal(size=self.grid.shape) * np.asarray(
            self.grid.expand(torch.tensor(rng.random(self.grid.counts) < 0.4))
        )
        self.false = torch.tensor(truth == 0.0)
        self.Y = self.X @ truth.T + 0.1 * rng.normal(size=(self.n, outputs))
        self.layer = LayerPlan("weight", self.grid, self.sparsity)

    def problem(self, q: Any = "l2", lam: float = 0.0, weights: str = "sqrt") -> Problem:
        """The core's: one output after the other, weight.flatten() for w."""
        outputs = self.grid.shape[0]
        return Problem.build(
            np.kron(np.eye(outputs), self.X),
            self.Y.T.flatten(),
            groups_of(self.grid, weights),
            penalty=q,
            lam=lam,
            intercept=False,
            sample_weight=np.full(self.n * outputs, 1.0 / self.n),
        )

    def network(self, start: float = 0.0) -> nn.Linear:
        """The layer, at 0 or at random numbers of the size `start` in the blocks that the truth does not use."""
        model = nn.Linear(self.grid.shape[1], self.grid.shape[0], bias=False).double()
        nn.init.normal_(model.weight, std=start, generator=torch.Generator().manual_seed(0))
        model.weight.data *= self.false
        return model

    def loss(self, model: nn.Module) -> torch.Tensor:
        return 0.5 * (model(torch.tensor(self.X)) - torch.tensor(self.Y)).square().sum() / self.n

    def train(self, model: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> Iterator[np.ndarray]:
        """The weight that the layer computes with after every step."""
        for _ in range(steps):
            optimizer.zero_grad()
            self.loss(model).backward()
            optimizer.step()
            yield model.weight.detach().numpy().flatten().copy()


BRIDGES = {
    "one output": Bridge(BlockGrid((1, 24), (1, 4))),
    "ragged": Bridge(BlockGrid((5, 11), (2, 4))),
    "stacked": Bridge(BlockGrid((6, 8), (2, 3), segments=2)),
}
T = 0.15  # the step of gradient descent
