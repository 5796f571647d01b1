"""Small problems of every kind, on which solvers are examined.

Every loss, dense and sparse, with the group lasso, its l1 and ridge terms, and two nonconvex penalties. Intercept, an
unpenalised group, sample weights (one of them 0), an offset, more features than samples, and several responses come in
by chance, from a fixed seed, so that each loss and each penalty meets each of them. The groups are scattered over the
features and of different sizes, and half of the columns have a mean far from 0.
"""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparseopt.groups import Groups
from sparseopt.problem import Problem
from sparseopt.regularizers import LogSum

__all__ = ["solver_problems"]

LOSSES = ("squares", "huber", "logistic", "poisson", "multinomial")
PENALTIES: dict[str, dict[str, Any]] = {
    "l2": {},
    "l2+l1": {"l1_ratio": 0.4},
    "l2+ridge": {"ridge": 0.1},
    "l2+l1+ridge": {"l1_ratio": 0.3, "ridge": 0.05},
    "mcp+ridge": {"penalty": "mcp", "ridge": 0.05},  # without ridge, F falls for ever where classes are separable
    "log": {"penalty": LogSum(0.5)},
}
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
