"""Fits on chosen groups, written from the definition of the objective with lstsq and scipy.

Not a test: the tests of selection ask it. It reads X, y, weights and groups from a problem and nothing else, so that an
error in the package's values, derivatives or fits cannot enter the reference.
"""

from __future__ import annotations

from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize
from scipy.special import expit, logsumexp, softmax, xlogy

from sparseopt import Problem


class Reference(NamedTuple):
    value: float
    W: NDArray  # (p, K)
    b: NDArray  # (K,)
    A: NDArray  # dL/dz, (n, K)


def dense(problem: Problem) -> NDArray:
    return np.array(problem.design.matvec(np.eye(problem.groups.n_features)))


def losses(problem: Problem, z: NDArray) -> tuple[float, NDArray]:
    """L(z), z without the offset, and its derivative."""
    loss, s, y = problem.loss, problem.loss.s[:, None], problem.loss.y
    z = z if loss.offset is None else z + loss.offset
    if loss.name == "squares":
        return float((0.5 * s * (z - y) ** 2).sum()), s * (z - y)
    if loss.name == "huber":
        r, d = np.abs(z - y), loss.delta
        f = np.where(r <= d, 0.5 * r**2, d * r - 0.5 * d * d)
        return float((s * f).sum()), s * np.clip(z - y, -d, d)
    if loss.name == "logistic":
        return float((s * (np.logaddexp(0.0, z) - y * z)).sum()), s * (expit(z) - y)
    if loss.name == "poisson":
        return float((s * (np.exp(z) - y * z + xlogy(y, y) - y)).sum()), s * (np.exp(z) - y)
    f = logsumexp(z, axis=1) - (y * z).sum(axis=1)
    return float(problem.loss.s @ f), s * (softmax(z, axis=1) - y)


def fit(problem: Problem, chosen: ArrayLike) -> Reference:
    """min L(Xw + b) + ridge / 2 ||w||^2 over groups chosen, always-in groups (not in the ridge) and the intercept."""
    loss, groups, K = problem.loss, problem.groups, problem.n_outputs
    X = dense(problem)
    wanted = sorted({int(g) for g in np.atleast_1d(np.asarray(chosen, int))})
    free = [int(j) for g in range(len(groups)) if groups.weights[g] == 0.0 for j in groups[g]]
    counted = [int(j) for g in wanted for j in groups[g]]
    C = np.column_stack([X[:, free + counted], *([np.ones(len(X))] if problem.intercept else [])])
    rho = np.zeros(C.shape[1])
    rho[len(free) : len(free) + len(counted)] = problem.penalty.ridge
    if loss.name == "squares":
        y = loss.y if loss.offset is None else loss.y - loss.offset
        root = np.sqrt(loss.s)[:, None]
        tall = np.vstack([root * C, np.diag(np.sqrt(rho))])
        v = np.linalg.lstsq(tall, np.vstack([root * y, np.zeros((len(rho), K))]), rcond=1e-12)[0]
    else:

        def objective(x: NDArray) -> tuple[float, NDArray]:
            v = x.reshape(-1, K)
            value, A = losses(problem, C @ v)
            return value + 0.5 * float((rho[:, None] * v**2).sum()), (C.T @ A + rho[:, None] * v).ravel()

        v = np.zeros((C.shape[1], K))
        if v.size:
            for _ in range(3):  # restarts, because line searches give up when rounding shows
                v = minimize(objective, v.ravel(), jac=True, method="BFGS", options={"gtol": 1e-11}).x.reshape(-1, K)
    W, b = np.zeros((X.shape[1], K)), np.zeros(K)
    W[free + counted] = v[: len(free) + len(counted)]
    if problem.intercept:
        b = v[-1]
    value, A = losses(problem, X @ W + b)
    return Reference(value + 0.5 * float((rho[:, None] * v**2).sum()), W, b, A)


def scores(problem: Problem, A: NDArray) -> NDArray:
    """||X_g'A|| / omega_g, -inf for always-in groups."""
    X, groups = dense(problem), problem.groups
    out = np.full(len(groups), -np.inf)
    for g, omega in enumerate(groups.weights):
        if omega > 0.0:
            out[g] = np.linalg.norm(X[:, groups[g]].T @ A) / omega
    return out


def omp(problem: Problem, k: int) -> list[int]:
    """Orthogonal matching pursuit by its definition, in the order in which groups enter."""
    chosen: list[int] = []
    for _ in range(k):
        pulls = scores(problem, fit(problem, chosen).A)
        pulls[chosen] = -np.inf
        chosen.append(int(np.argmax(pulls)))
    return chosen


def greedy(problem: Problem, k: int) -> list[int]:
    """The group that lowers the objective most enters, by trying them all."""
    chosen: list[int] = []
    for _ in range(k):
        left = [g for g in range(len(problem.groups)) if problem.groups.weights[g] > 0.0 and g not in chosen]
        chosen.append(min(left, key=lambda g: fit(problem, [*chosen, g]).value))
    return chosen


def best(problem: Problem, k: int) -> tuple[float, tuple[int, ...]]:
    """The best choice of k groups, by trying them all."""
    counted = np.flatnonzero(problem.groups.weights > 0.0).tolist()
    return min((fit(problem, choice).value, choice) for choice in combinations(counted, k))
