"""Problems of which some groups are to be chosen, and what a choice of them costs. Imported by tests of selectors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import subset_oracle as oracle
from small_problems import LOSSES

from sparseopt import Groups, Problem
from sparseopt.selection import METHODS

HEURISTICS = tuple(method for method in METHODS if method != "exact")

each_loss = pytest.mark.parametrize("loss", LOSSES)


def instance(seed: int, loss: str = "squares", *, n: int = 50, rho: float = 0.5, **settings: Any) -> Problem:
    """Eight groups of one to three correlated columns, weights of 0.7 to 1.5; three of them matter."""
    rng = np.random.default_rng(seed)
    sizes = (2, 1, 3, 2, 1, 2, 3, 1)
    X = np.sqrt(1.0 - rho) * rng.normal(size=(n, 15)) + np.sqrt(rho) * rng.normal(size=(n, 1))
    X *= rng.uniform(0.5, 2.0, 15)
    signal = X @ (rng.normal(size=15) * np.repeat(rng.permutation([1, 1, 1, 0, 0, 0, 0, 0]), sizes))
    signal /= signal.std()
    y = {
        "squares": signal + rng.normal(size=n),
        "huber": signal + rng.standard_t(2, n),
        "logistic": (signal + 2.0 * rng.normal(size=n) > 0.0).astype(float),
        "poisson": rng.poisson(np.exp(0.5 * signal)).astype(float),
        "multinomial": np.argsort(np.argsort(signal + 1.5 * rng.normal(size=n))) * 3 // n,
    }[loss]
    groups = Groups.from_sizes(sizes, weights=rng.uniform(0.7, 1.5, 8))
    return Problem.build(X, y, groups, loss=loss, **settings)


def hard(seed: int, n: int = 30) -> Problem:
    """Ten strongly correlated groups of one to three columns, four of which matter: greedy choices often fail."""
    rng = np.random.default_rng(seed)
    sizes = rng.permutation([1, 1, 1, 2, 2, 2, 2, 3, 3, 3])
    p = int(sizes.sum())
    X = rng.normal(size=(n, p)) + 1.5 * rng.normal(size=(n, 3)) @ rng.normal(size=(3, p))
    w = rng.normal(size=p) * np.repeat(rng.permutation([1, 1, 1, 1, 0, 0, 0, 0, 0, 0]), sizes)
    y = X @ w
    return Problem.build(X, y + 0.5 * y.std() * rng.normal(size=n), Groups.from_sizes(sizes))


def value(problem: Problem, chosen: Any) -> float:
    return oracle.fit(problem, chosen).value


def instance_h() -> Problem:
    """The group of largest gradient is not the one of the group lasso for lam in [0.2536, 0.8875]."""
    X = np.array([[1.0, 0.45], [0.0, np.sqrt(0.0475)]])
    y = np.array([1.0, (0.95 - 0.45) / np.sqrt(0.0475)])
    return Problem.build(X, y, intercept=False, sample_weight=np.ones(2))
