"""What the laws of solvers and selectors compute themselves, by loops over the groups of a dense X.

Of the package, only losses and regularizers are asked, which have laws of their own.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparseopt.designs import Csc, Design, as_design
from sparseopt.problem import Problem

__all__ = ["as_bytes", "as_sparse", "check_close", "check_shapes", "dense", "dual_bound", "like", "matrix"]

Array = NDArray[np.float64]


def dense(design: Design) -> Array:
    """X, (n, p)."""
    X: Array = np.array(design.matvec(np.eye(design.shape[1])))
    return X


def like(design: Design, X: Array) -> Design:
    """X as a design of the same layout as another one."""
    return as_sparse(X) if isinstance(design, Csc) else as_design(X)


def as_sparse(X: Array) -> Design:
    """X as a sparse design."""
    from scipy.sparse import csc_array

    return as_design(csc_array(X))


def matrix(problem: Problem, w: Array) -> Array:
    """w as (p, K)."""
    return w.reshape(problem.design.shape[1], problem.n_outputs)


def as_bytes(problem: Problem) -> tuple[bytes, ...]:
    """All that a solver could change."""
    loss, groups = problem.loss, problem.groups
    penalty: Any = problem.penalty
    design: Any = problem.design
    arrays = [value for value in design if isinstance(value, np.ndarray)] if isinstance(design, tuple) else []
    arrays += [loss.y, loss.s, groups.indices, groups.indptr, groups.weights]
    arrays += [] if loss.offset is None else [loss.offset]
    numbers = f"{penalty.q} {penalty.lam} {penalty.l1_ratio} {penalty.ridge} {problem.intercept}".encode()
    return (*(array.tobytes() for array in arrays), numbers)


def check_close(got: float, expected: float, what: str, tol: float, scale: float | None = None) -> None:
    """AssertionError if two numbers differ by more than `tol` times `scale`, by default the second number."""
    allowed = tol * max(abs(expected) if scale is None else scale, 1e-300)
    assert abs(got - expected) <= allowed, f"{what} is {got!r}, not {expected!r}"


def check_shapes(problem: Problem, w: Array, intercept: Any) -> None:
    """AssertionError if coefficients or intercept are misshapen or not finite."""
    p, K = problem.design.shape[1], problem.n_outputs
    expected = (p,) if K == 1 else (p, K)
    assert np.shape(w) == expected, f"w has shape {np.shape(w)}, not {expected}"
    assert np.shape(intercept) == (() if K == 1 else (K,)), f"intercept is {intercept}"
    assert np.isfinite(w).all(), "w is not finite"
    assert np.isfinite(intercept).all(), f"intercept is {intercept}"
    assert problem.intercept or not np.any(intercept), f"intercept is {intercept}, not 0"


def dual_bound(problem: Problem, X: Array, z: Array) -> float:
    """A lower bound of the optimum for q = L2, from the gradient at z; see `sparseopt.laws.solvers`."""
    loss, penalty, groups = problem.loss, problem.penalty, problem.groups
    A = loss.derivative(z)
    free = [groups[g] for g, omega in enumerate(groups.weights) if omega == 0.0]
    U = np.column_stack([np.ones(len(z)) if problem.intercept else np.zeros(len(z)), *(X[:, g] for g in free)])
    root = np.sqrt(loss.curvature(z))[:, None]
    inner = np.divide(A, root, out=np.zeros_like(A), where=root > 0.0)
    for _ in range(2):
        inner = inner - root * (U @ np.linalg.lstsq(root * U, inner, rcond=None)[0])
    A = root * inner
    blocks = [
        (X[:, groups[g]].T @ A, penalty.lam * (1.0 - penalty.l1_ratio) * omega)
        for g, omega in enumerate(groups.weights)
        if omega > 0.0
    ]
    mu = penalty.lam * penalty.l1_ratio
    c = loss.dual_scale(A)
    if penalty.ridge > 0.0:
        excess = sum(max(_soft_norm(c * V, mu) - bound, 0.0) ** 2 for V, bound in blocks)
        return -loss.conjugate(c * A) - excess / (2.0 * penalty.ridge)
    for V, bound in blocks:
        low, high = 0.0, c
        if _soft_norm(high * V, mu) > bound:
            for _ in range(60):
                middle = 0.5 * (low + high)
                low, high = (middle, high) if _soft_norm(middle * V, mu) <= bound else (low, middle)
            c = low
    return -loss.conjugate(c * A)


def _soft_norm(V: Array, mu: float) -> float:
    return float(np.sqrt((np.maximum(np.abs(V) - mu, 0.0) ** 2).sum()))
