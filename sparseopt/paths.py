"""Solutions for a sequence of lam, and the choice of one of them.

    lam_max     the smallest lam at which w = 0 is a solution
    path        solutions from lam_max down, each started from the one before
    cross_validate   the mean loss on samples left out, for every lam
"""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sparseopt.problem import Composite, Penalty, Problem
from sparseopt.solution import ConvergenceWarning, Path, Status
from sparseopt.solvers import BlockDescent, compress

__all__ = ["lam_grid", "lam_max", "path"]

Array = NDArray[np.float64]


def lam_max(problem: Problem) -> float:
    """The smallest lam at which w = 0 (outside the unpenalised groups) is stationary."""
    return _lam_max(BlockDescent(problem), problem)


def _lam_max(descent: BlockDescent, problem: Problem) -> float:
    return descent.zero_threshold(problem.penalty)


def lam_grid(top: float, n_lams: int, ratio: float) -> Array:
    """n_lams values from `top` down to ratio * top, in geometric progression."""
    return top * np.geomspace(1.0, ratio, n_lams)


def path(
    problem: Problem,
    lams: ArrayLike | None = None,
    *,
    n_lams: int = 100,
    ratio: float | None = None,
    tol: float = 1e-6,
    max_epochs: int = 10_000,
) -> Path:
    short = compress(problem)
    solved, intercept_of = (problem, None) if short is None else short
    descent = BlockDescent(solved)
    n, p = problem.design.shape
    if lams is None:
        ratio = (1e-2 if n < p else 1e-3) if ratio is None else ratio
        lams = lam_grid(_lam_max(descent, solved), n_lams, ratio)
    grid = np.asarray(lams, dtype=np.float64)
    rows, intercepts, objective, accuracy, statuses, epochs, seconds = [], [], [], [], [], [], []
    for lam in grid:
        solution = descent.solve(solved.penalty.at(float(lam)), tol, max_epochs)
        W = problem.matrix(solution.w)
        features = np.flatnonzero(W.any(axis=1))
        rows.append((features, W[features]))
        b = np.atleast_1d(solution.intercept)
        intercepts.append(b if intercept_of is None else intercept_of(W))
        objective.append(solution.history[-1][1])
        accuracy.append(solution.history[-1][2])
        statuses.append(solution.status)
        epochs.append(solution.epochs)
        seconds.append(solution.seconds)
    b = np.array(intercepts)
    return Path(
        problem, grid, tuple(rows), b[:, 0] if b.shape[1] == 1 else b, np.array(objective), np.array(accuracy),
        tuple(statuses), np.array(epochs), np.array(seconds),
    )  # fmt: skip
