"""Where a solver starts: at a point that is given, or at zero with the best intercept."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sparseopt.problem import Problem
from sparseopt.solution import Start, given_point

__all__ = ["starting_point"]

Array = NDArray[np.float64]


def starting_point(problem: Problem, start: Start) -> tuple[Array, Array]:
    """W (p, K) and b (K,), new arrays; ValueError if they are not finite.

    A point worse than zero is no start for a convex problem: from far off, digits of z are lost that the answer needs,
    and where a loss saturates, as the logistic one does, its curvature says nothing.

    Examples
    --------
    >>> problem = Problem.build(np.eye(2), [1.0, 3.0])
    >>> starting_point(problem, (np.array([0.0, 1.0]), 1.0)), starting_point(problem, (np.array([1e9, 0.0]), 0.0))
    ((array([[0.],
           [1.]]), array([1.])), (array([[0.],
           [0.]]), array([2.])))
    """
    W = np.zeros((problem.design.shape[1], problem.n_outputs))
    b = problem.loss.null_intercept() if problem.intercept else np.zeros(problem.n_outputs)
    if start is None:
        return W, b
    w, given = given_point(start)
    there = problem.matrix(w).copy()
    at = np.broadcast_to(np.asarray(given, dtype=np.float64), b.shape).copy() if problem.intercept else b
    if not (np.isfinite(there).all() and np.isfinite(at).all()):
        raise ValueError("start has coefficients that are not finite: pass finite ones, or none to start at zero.")
    if problem.is_convex:
        with np.errstate(over="ignore", invalid="ignore"):
            if not problem.value(there, at) <= problem.value(W, b):
                return W, b
    return there, at
