"""Small problems of every kind, on which solvers and selectors are examined.

Every loss, dense and sparse, with the group lasso, its l1 and ridge terms, and two nonconvex penalties. Intercept, an
unpenalised group, sample weights (one of them 0), an offset, more features than samples, and several responses come in
by chance, from a fixed seed, so that each loss and each penalty meets each of them. The groups are scattered over the
features and of different sizes, and half of the columns have a mean far from 0.

Selectors get more samples, so that fits on all groups are unique where the columns are independent, and what makes
them stumble: groups whose columns depend on each other, two equal groups, two groups that share a direction, and a
group of zeros.
"""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparseopt.groups import Groups
from sparseopt.problem import Problem
from sparseopt.regularizers import LogSum

__all__ = ["selector_problems", "solver_problems"]

LOSSES = ("squares", "huber", "logistic", "poisson", "multinomial")
PENALTIES: dict[str, dict[str, Any]] = {
    "l2": {},
    "l2+l1": {"l1_ratio": 0.4},
    "l2+ridge": {"ridge": 0.1},
    "l2+l1+ridge": {"l1_ratio": 0.3, "ridge": 0.05},
    "mcp+ridge": {"penalty": "mcp", "ridge": 0.05},  # without ridge, F falls for ever where classes are separable
    "log": {"penalty": LogSum(0.5)},
}
DEFECTS = ("dependent", "twins", "overlap", "zeros")
CHANCES = ("intercept", "unpenalised", "weights", "offset", "wide", "several")


def solver_problems() -> dict[str, Problem]:
    """60 problems by descriptive names.

    Examples
    --------
    >>> problems = solver_problems()
    >>> len(problems), next(iter(problems))
    (60, 'squares, dense, l2, unpenalised, weights, offset')
    """
    found = {}
    for number, (loss, layout, penalty) in enumerate(product(LOSSES, ("dense", "sparse"), PENALTIES)):
        rng = np.random.default_rng(number)
        chosen = [
            name for name in CHANCES if rng.random() < 0.5 and (name != "several" or loss in ("squares", "huber"))
        ]
        found[", ".join([loss, layout, penalty, *chosen])] = _problem(rng, loss, layout, PENALTIES[penalty], chosen)
    return found


def selector_problems() -> dict[str, Problem]:
    """20 problems of 8 groups by descriptive names; their lam does not matter.

    Examples
    --------
    >>> problems = selector_problems()
    >>> len(problems), next(iter(problems))
    (20, 'squares, dense, always-in, weights, offset')
    """
    found = {}
    for number, (loss, layout, ridge) in enumerate(product(LOSSES, ("dense", "sparse"), (0.0, 0.05))):
        rng = np.random.default_rng(number)
        names = ("intercept", "always-in", "weights", "offset", "several", *DEFECTS)
        chosen = [name for name in names if rng.random() < 0.5 and (name != "several" or loss in ("squares", "huber"))]
        words = [loss, layout, *(["ridge"] if ridge else []), *chosen]
        found[", ".join(words)] = _selection(rng, loss, layout, ridge, chosen)
    return found


def _selection(rng: np.random.Generator, loss: str, layout: str, ridge: float, chosen: list[str]) -> Problem:
    n, sizes = 60, (2, 1, 3, 2, 2, 1, 2, 2)
    order = rng.permutation(sum(sizes))
    blocks = np.split(order, np.cumsum(sizes)[:-1])
    X = rng.standard_normal((n, len(order))) * rng.uniform(0.5, 2.0, len(order))
    X[:, ::2] += 1.0
    if layout == "sparse":
        X[rng.random(X.shape) < 0.5] = 0.0
    if "dependent" in chosen:
        X[:, blocks[2][2]] = X[:, blocks[2][0]] - 2.0 * X[:, blocks[2][1]]
    if "twins" in chosen:
        X[:, blocks[4]] = X[:, blocks[3]]
    if "overlap" in chosen:
        X[:, blocks[6][0]] = X[:, blocks[0]].sum(axis=1)
    if "zeros" in chosen:
        X[:, blocks[5]] = 0.0
    weights = np.sqrt(sizes) * np.array([1.0, 1.5, 1.0, 1.0, 1.0, 1.0, 0.7, 1.0])
    if "always-in" in chosen:
        weights[7] = 0.0
    s = None
    if "weights" in chosen:
        s = rng.uniform(0.2, 1.8, n) / n
        s[3] = 0.0
    K = 3 if "several" in chosen else 1
    y = _targets(rng, loss, X[:, np.concatenate([blocks[0], blocks[3]])].sum(axis=1) - 0.5 * X[:, blocks[1][0]], K)
    offset = 0.3 * rng.standard_normal((n, 3) if loss == "multinomial" or K > 1 else n) if "offset" in chosen else None
    matrix: Any = X
    if layout == "sparse":
        from scipy.sparse import csc_array

        matrix = csc_array(X)
    groups = Groups.from_lists([block.tolist() for block in blocks], len(order), weights=weights)
    settings: dict[str, Any] = {"loss": loss, "ridge": ridge, "intercept": "intercept" in chosen}
    return Problem.build(matrix, y, groups, lam=1.0, sample_weight=s, offset=offset, **settings)


def _problem(rng: np.random.Generator, loss: str, layout: str, penalty: dict[str, Any], chosen: list[str]) -> Problem:
    n, p = (20, 30) if "wide" in chosen else (30, 12)
    X = rng.standard_normal((n, p)) * rng.uniform(0.5, 2.0, p)
    X[:, ::2] += 1.5
    if layout == "sparse":
        X[rng.random((n, p)) < 0.6] = 0.0
    labels = rng.permutation(np.append([0, 0], np.arange(2, p) % (p // 3 + 1)))
    groups = Groups.from_labels(labels.tolist(), weights={"1": 0.0} if "unpenalised" in chosen else "sqrt")
    s = None
    if "weights" in chosen:
        s = rng.uniform(0.5, 1.5, n) / n
        s[3] = 0.0
    y = _targets(rng, loss, X[:, labels == 0].sum(axis=1), 3 if "several" in chosen else 1)
    offset = None
    if "offset" in chosen:
        offset = 0.3 * rng.standard_normal((n, 3) if loss == "multinomial" or "several" in chosen else n)
    matrix: Any = X
    if layout == "sparse":
        from scipy.sparse import csc_array

        matrix = csc_array(X)
    settings = penalty | {"loss": loss, "intercept": "intercept" in chosen, "sample_weight": s, "offset": offset}
    zero = Problem.build(matrix, y, groups, lam=1.0, **settings)
    b = zero.loss.null_intercept() if zero.intercept else np.zeros(zero.n_outputs)
    norms = groups.norms(zero.gradient(np.zeros((p, zero.n_outputs)), b)[0])
    seen = groups.weights > 0.0
    lam = 0.3 * float((norms[seen] / groups.weights[seen]).max())
    return Problem.build(matrix, y, groups, lam=lam, **settings)


def _targets(rng: np.random.Generator, loss: str, signal: NDArray[np.float64], n_outputs: int) -> NDArray[Any]:
    n = len(signal)
    signal = (signal - signal.mean()) / signal.std()
    if loss == "logistic":
        return (signal + 1.5 * rng.standard_normal(n) > 0.0).astype(np.float64)
    if loss == "poisson":
        return rng.poisson(np.exp(0.5 * signal + 0.5)).astype(np.float64)
    if loss == "multinomial":
        return np.argsort(np.argsort(signal + 1.5 * rng.standard_normal(n))) * 3 // n
    y = signal[:, None] * np.linspace(1.0, 0.5, n_outputs) + 0.5 * rng.standard_t(3, (n, n_outputs))
    return y[:, 0] if n_outputs == 1 else y
