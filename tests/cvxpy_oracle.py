"""The optimum of a convex problem by CVXPY and Clarabel, written from the definition of the objective.

Not a test: the tests of duality, solvers and paths ask it. It reads X, y, weights and groups from a problem and nothing
else, so that an error in the package's values, gradients or proxes cannot enter the reference.
"""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sparseopt import Problem


class Optimum(NamedTuple):
    value: float  # F* as Clarabel reports it
    w: NDArray  # (p,) or (p, K)
    b: NDArray  # (K,)


def optimum(problem: Problem) -> Optimum:
    """Solve a group-lasso problem (l1 term, ridge, intercept, unpenalised groups) to about 1e-11 of F."""
    import cvxpy as cp

    loss, penalty, groups = problem.loss, problem.penalty, problem.groups
    X = np.array(problem.design.matvec(np.eye(groups.n_features)))
    W = cp.Variable((groups.n_features, loss.n_outputs))
    b = cp.Variable((1, loss.n_outputs))
    z = X @ W + np.ones((len(X), 1)) @ b + (0.0 if loss.offset is None else loss.offset)
    s, y = loss.s[:, None], loss.y
    if loss.name == "squares":
        fit = 0.5 * cp.sum(cp.multiply(s, cp.square(z - y)))
    elif loss.name == "huber":
        fit = 0.5 * cp.sum(cp.multiply(s, cp.huber(z - y, loss.delta)))  # cp.huber is twice ours
    elif loss.name == "logistic":
        fit = cp.sum(cp.multiply(s, cp.logistic(z) - cp.multiply(y, z)))
    elif loss.name == "poisson":
        saturated = np.where(y > 0.0, y * np.log(np.where(y > 0.0, y, 1.0)) - y, 0.0)
        fit = cp.sum(cp.multiply(s, cp.exp(z) - cp.multiply(y, z) + saturated))
    else:
        fit = cp.sum(cp.multiply(loss.s, cp.log_sum_exp(z, axis=1) - cp.sum(cp.multiply(y, z), axis=1)))
    a = penalty.l1_ratio
    for g, omega in enumerate(groups.weights):
        if omega > 0.0:
            block = W[groups[g], :]
            fit += penalty.lam * (1.0 - a) * omega * cp.norm(block, "fro")
            fit += penalty.lam * a * cp.sum(cp.abs(block)) + 0.5 * penalty.ridge * cp.sum_squares(block)
    found = cp.Problem(cp.Minimize(fit), [] if problem.intercept else [b == 0])
    settings = {f"tol_{name}": 1e-12 for name in ("gap_abs", "gap_rel", "feas")}
    # Where rounding stops it short of 1e-12 it ends at about 1e-11, which the comparisons of the tests see.
    settings |= {f"reduced_tol_{name}": 1e-6 for name in ("gap_abs", "gap_rel", "feas")}
    settings |= {"static_regularization_constant": 1e-12, "iterative_refinement_max_iter": 50}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Solution may be inaccurate")
        found.solve(solver=cp.CLARABEL, **settings)
    w = W.value[:, 0] if loss.n_outputs == 1 else W.value
    return Optimum(float(found.value), w, b.value[0])
