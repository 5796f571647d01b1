"""Growth and swaps of a linear layer make the choices of the core, in float64, with enough steps between events."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="networks need torch")

from swap_cases import phases  # noqa: E402
from torch import nn  # noqa: E402

from sparseopt import Problem, select  # noqa: E402
from sparseopt.nn import OMP, OMPR, Sparsifier, plan  # noqa: E402
from sparseopt.nn.blocks import BlockGrid  # noqa: E402
from sparseopt.nn.correspondence import groups_of  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")


def regression(seed: int, outputs: int, features: int = 16, n: int = 60) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, features)) + 0.4 * rng.normal(size=(n, 1))
    W = rng.normal(size=(outputs, features)) * rng.uniform(0.2, 1.0, (outputs, features))
    return torch.from_numpy(X), torch.from_numpy(X @ W.T + 0.3 * rng.normal(size=(n, outputs)))


def problem_of(X: Any, Y: Any, grid: BlockGrid) -> Problem:
    design = np.kron(np.eye(Y.shape[1]), X.numpy())
    return Problem.build(design, Y.numpy().T.ravel(), groups_of(grid, "ones"), intercept=False)


def follow(method: Any, X: Any, Y: Any, block: tuple[int, int], k: int, events: int, gap: int) -> list[set[int]]:
    """The blocks in use after each event of a linear layer that starts from 0, trained by full gradient steps."""
    model = nn.Sequential(nn.Linear(X.shape[1], Y.shape[1], bias=False)).double()
    with torch.no_grad():
        model[0].weight.zero_()
    n = BlockGrid(tuple(model[0].weight.shape), block).n_blocks
    chosen = plan(model, 1.0 - k / n, block, min_blocks=2)
    schedule = phases(("dense", 1), ("sparse", (events + 1) * gap))
    s = Sparsifier(model, chosen, method, schedule=schedule)
    smooth = 2.0 * float(torch.linalg.matrix_norm(X, 2)) ** 2 / len(X)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0 / smooth)
    s.attach(optimizer)
    seen: list[set[int]] = []
    for _ in range(s.schedule.total):
        optimizer.zero_grad()
        ((model(X) - Y).square().sum() / len(X)).backward()
        optimizer.step()
        found = set(s.layers[0].kept.flatten().nonzero().flatten().tolist())
        if len(found) < n and (not seen or found != seen[-1]):
            seen.append(found)
    return seen


def check_omp(method: Any, seed: int, outputs: int, block: tuple[int, int], k: int = 5) -> None:
    X, Y = regression(seed, outputs)
    problem = problem_of(X, Y, BlockGrid((outputs, 16), block))
    path = [set(select(problem, size, method="omp").support.tolist()) for size in range(1, k + 1)]
    assert follow(method, X, Y, block, k, k - 1, 150) == path


OMP_STEPS = OMP(start=0.2, every=150, until=0.9)  # k = 5: one block first, one more at each of four events


@pytest.mark.parametrize(("outputs", "block"), [(1, (1, 2)), (2, (1, 4)), (4, (2, 4))])
@pytest.mark.parametrize("seed", range(3))
def test_growth_of_a_linear_layer_is_group_omp(seed: int, outputs: int, block: tuple[int, int]) -> None:
    check_omp(OMP_STEPS, seed, outputs, block)


@dataclass(frozen=True)
class _Timid(OMP):
    def pulls(self, layer: Any) -> Any:
        return -super().pulls(layer)


def test_growth_by_other_blocks_is_rejected() -> None:
    with pytest.raises(AssertionError):
        check_omp(_Timid(start=0.2, every=150, until=0.9), 0, 2, (1, 4))


def fit(X: Any, Y: Any, grid: BlockGrid, chosen: set[int]) -> tuple[Any, Any, float]:
    """Block norms and gradient norms of the least squares fit on some blocks, and its residual, by lstsq."""
    groups = groups_of(grid, "ones")
    design, y = np.kron(np.eye(Y.shape[1]), X.numpy()), Y.numpy().T.ravel()
    columns = np.concatenate([groups[g] for g in sorted(chosen)])
    w = np.zeros(design.shape[1])
    w[columns] = np.linalg.lstsq(design[:, columns], y, rcond=None)[0]
    gradient = design.T @ (design @ w - y)
    return groups.norms(w[:, None]), groups.norms(gradient[:, None]), float(np.sum((design @ w - y) ** 2))


@pytest.mark.parametrize("seed", range(3))
def test_swaps_of_a_linear_layer_are_orthogonal_matching_pursuit_with_replacement(seed: int) -> None:
    X, Y = regression(seed, 2, features=20)
    grid, k, events = BlockGrid((2, 20), (1, 4)), 4, 5
    seen = follow(OMPR(first="random", every=200, until=0.95, seed=seed), X, Y, grid.block, k, events, 200)
    by_hand = [seen[0]]
    residuals = []
    for _ in range(events):
        norms, pulls, residual = fit(X, Y, grid, by_hand[-1])
        residuals.append(residual)
        out = min(by_hand[-1], key=lambda g: norms[g])
        into = max(set(range(grid.n_blocks)) - by_hand[-1], key=lambda g: pulls[g])
        by_hand.append((by_hand[-1] - {out}) | {into})
    assert seen == by_hand
    # The core takes the same steps as long as they lower the residual.
    best = set(select(problem_of(X, Y, grid), k, method="ompr", start=seen[0]).support.tolist())
    lowered = [i for i in range(events - 1) if residuals[i + 1] < residuals[i] * (1.0 - 1e-9)]
    stop = next(i for i in range(events) if i not in lowered)
    assert best in seen
    if stop < events - 1:
        assert best == seen[stop]
