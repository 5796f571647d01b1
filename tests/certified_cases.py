"""Problems with all that a certificate has to cope with, and oracles for them. Imported by tests of certificates."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from itertools import combinations
from typing import Any

import numpy as np
from scipy.optimize import minimize
from small_problems import small_problem

from sparseopt import Arctan, AtMost, Groups, LogSum, Power, Problem, TransformedL1, solve
from sparseopt.certificates import duals
from sparseopt.solution import BoundProof

TERMS = {"l2": {}, "both": {"l1_ratio": 0.3, "ridge": 0.05}}
FREE = {"none": (False, 1.0), "intercept": (True, 1.0), "both": (True, 0.0)}


@cache
def problem(loss: str, terms: str = "l2", free: str = "intercept", lam: float = 0.05) -> Problem:
    intercept, weight = FREE[free]
    return small_problem(loss, lam, intercept, weight, drop=3, **TERMS[terms])


def plain(X: Any, y: Any, groups: Any = None, **keywords: Any) -> Problem:
    """Least squares ||y - Xw||^2 / 2 without intercept."""
    X = np.asarray(X, float)
    return Problem.build(X, y, groups, intercept=False, sample_weight=np.ones(len(X)), **keywords)


H = plain([[1.0, 0.45], [0.0, 0.05**0.5 * 0.9746794344808963]], [1.0, 2.2941573387056176], lam=0.5)

ADMISSIBLE = {  # q and its inverse, written again
    "sqrt": (Power(0.5), np.sqrt, np.square),
    "log": (LogSum(0.5), lambda u: np.log(1.0 + 2.0 * u), lambda v: 0.5 * np.expm1(v)),
    "tl1": (
        TransformedL1(2.0),
        lambda u: 3.0 * u / (2.0 + u),
        lambda v: np.where(v < 3.0, 2.0 * v / np.where(v < 3.0, 3.0 - v, 1.0), np.inf),
    ),
    "arctan": (Arctan(1.0), np.arctan, lambda v: np.where(v < np.pi / 2, np.tan(np.minimum(v, 1.57)), np.inf)),
}
AXIS = np.linspace(-1.0, 3.0, 201)
GRID = np.stack(np.meshgrid(AXIS, AXIS), axis=-1).reshape(-1, 2)


def composite_minimum(this: Problem, q: Any, inverse: Any) -> tuple[float, np.ndarray]:
    """Problem (1) with two features of weight 1 on a grid of mesh 0.02: value and place of the best point."""
    z = GRID @ this.design.matvec(np.eye(2)).T
    fit = 0.5 * ((z - this.loss.y[:, 0]) ** 2) @ this.loss.s
    total = fit + this.lam * inverse(q(np.abs(GRID)).sum(axis=1))
    k = int(np.argmin(total))
    return float(total[k]), GRID[k]


def instances(seed: int = 0, count: int = 12) -> list[Problem]:
    rng = np.random.default_rng(seed)
    out = []
    for _ in range(count):
        X = rng.standard_normal((3, 2))
        this = plain(X, X @ rng.uniform(0.0, 2.0, 2) + 0.3 * rng.standard_normal(3))
        tau = np.abs(X.T @ this.loss.y).max()
        out += [this.at(share * tau) for share in (0.97, 0.6, 0.3, 1.05)]
    return out


def windows(loss: str) -> list[Problem]:
    """Correlated designs, with and without intercept and ridge, K = 2 outputs where allowed."""
    rng = np.random.default_rng(11)
    out = []
    for trial in range(8):
        n = 30
        X = rng.standard_normal((n, 6)) + 0.5 * rng.standard_normal((n, 1)) + 0.3
        signal = X[:, :2] @ [1.0, 0.5] - 0.4 * X[:, 4]
        y = {
            "squares": signal + rng.standard_normal(n),
            "huber": signal + 0.3 * rng.standard_t(3, n),
            "logistic": (signal + rng.standard_normal(n) > 0.0).astype(float),
            "poisson": rng.poisson(np.exp(0.3 * signal)).astype(float),
        }[loss]
        if trial % 4 == 3 and loss != "huber":
            other = rng.permutation(y)
            y = np.stack([y, other], axis=1)
        extra: dict[str, Any] = {"ridge": 0.1} if trial % 3 == 1 else {}
        if loss == "huber":
            extra["delta"] = 3.0
        weights = [1.0, 2.0, 0.0 if loss == "squares" and trial % 2 else 1.3]
        this = Problem.build(
            X,
            y,
            Groups.from_sizes([2, 3, 1], weights=weights),
            loss=loss,
            intercept=trial % 2 == 0,
            sample_weight=rng.uniform(0.5, 1.5, n) / n,
            offset=0.2 * rng.standard_normal(n) if y.ndim == 1 else None,
            **extra,
        )
        out.append(this)
    return out


def path_evidence(this: Problem) -> dict[str, Any]:
    strengths = np.append(np.geomspace(1e-3, 1.0, 25) * np.abs(this.design.rmatvec(this.loss.y)).max(), 0.0)
    lasso = duals.group_lasso(this)
    points = [this.loss.derivative(lasso.predictor(solve(lasso.at(lam), tol=1e-10).w)) for lam in strengths[:-1]]
    return {"strengths": strengths, "A": np.stack([*points, 0.0 * points[0]])}


def at_most(k: int, ridge: float, loss: str = "squares", free: str = "intercept") -> Problem:
    this = problem(loss, "l2", free)
    return replace(this, penalty=AtMost(this.groups, k, ridge))


@cache
def best_choice(
    k: int, ridge: float, loss: str = "squares", free: str = "intercept"
) -> tuple[float, np.ndarray, float]:
    """The best of all choices of k groups, each fitted by SciPy."""
    this = at_most(k, ridge, loss, free)
    counted = np.flatnonzero(this.penalty.penalised)
    free_features = np.flatnonzero(this.groups.expand(~this.penalty.penalised))
    best = (np.inf, np.zeros(10), 0.0)
    for chosen in combinations(counted, k):
        kept = np.concatenate([*(this.groups[int(g)] for g in chosen), free_features]).astype(int)

        def spread(x: np.ndarray, kept: np.ndarray = kept) -> tuple[np.ndarray, float]:
            w = np.zeros(10)
            w[kept] = x[:-1]
            return w, x[-1] if this.intercept else 0.0

        def value(x: np.ndarray, spread: Any = spread, kept: np.ndarray = kept) -> tuple[float, np.ndarray]:
            w, b = spread(x)
            gradient, in_b = this.gradient(w, b)
            ridged = this.penalty.ridge * w * this.groups.expand(this.penalty.penalised)
            return this.value(w, b), np.append((gradient + ridged)[kept], in_b[0] if this.intercept else 0.0)

        found = minimize(
            value, np.zeros(len(kept) + 1), jac=True, method="BFGS", options={"gtol": 1e-9, "maxiter": 500}
        )
        if found.fun < best[0]:
            best = (float(found.fun), *spread(found.x))
    return best


def search_tree(this: Problem, w: np.ndarray, b: float, order: list[int]) -> BoundProof:
    """Leaves of a full tree on the groups of `order`; dual points at fits of the groups in and open, shrunk."""
    leaves: list[tuple[tuple[int, ...], tuple[int, ...]]] = [((), ())]
    for g in order:
        leaves = [leaf for i, o in leaves for leaf in (((*i, g), o), (i, (*o, g)))]
    points = []
    for inside, outside in leaves:
        lam = np.where(np.isin(np.arange(len(this.groups)), outside), 50.0, 1e-3 if len(inside) else 0.05)
        groups = Groups(this.groups.indices, this.groups.indptr, np.where(this.penalty.penalised, lam, 0.0))
        relaxed = Problem.build(np.eye(10), np.zeros(10), groups, lam=1.0, ridge=this.penalty.ridge).penalty
        found = solve(replace(this, penalty=relaxed), tol=1e-8)
        points.append(this.loss.derivative(this.predictor(found.w, found.intercept)))
    return BoundProof(
        np.stack(points), tuple(i for i, _ in leaves), tuple(o for _, o in leaves), np.full(len(this.groups), np.inf)
    )


def gaussian(n: int, t: int, d: int, seed: int, **keywords: Any) -> Problem:
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, t * d)) / np.sqrt(n)
    y = X[:, : 2 * d].sum(axis=1) + 0.3 * rng.standard_normal(n) / np.sqrt(n)
    return plain(X, y, groups=d, **keywords)


def fit(this: Problem, chosen: list[int]) -> tuple[float, np.ndarray]:
    """The best loss on some groups, and the gradient norms of all."""
    X, y = this.design.matvec(np.eye(this.groups.n_features)), this.loss.y[:, 0]
    w = np.zeros(X.shape[1])
    if chosen:
        kept = np.concatenate([this.groups[g] for g in chosen])
        w[kept] = np.linalg.lstsq(X[:, kept], y, rcond=None)[0]
    r = X @ w - y
    return 0.5 * float(r @ r), w
