"""Fewer samples, same problem: least squares depends on X and y through X'SX, X'Sy and y'Sy only.

With the centred design Xc and response yc (if there is an intercept) and S = diag(s), a pivoted Cholesky factorisation
Xc'S Xc = R'R of rank r gives r samples R with targets t, R't = Xc'S yc, and one sample of zeros whose target makes up
for what is left of yc'S yc. Then for all w

    ||R w - t||^2 + |t_0|^2 = ||S^(1/2) (Xc w - yc)||^2,

so objective, gradient, duality gap and solutions are those of the original problem, at a cost of r + 1 samples.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from sparseopt.designs import Dense, gram
from sparseopt.losses import Squares
from sparseopt.problem import Problem
from sparseopt.threads import one_blas_thread

__all__ = ["Compressed", "compress"]

Array = NDArray[np.float64]
SAFE = 1e-8  # least squared pivot, as a share of the largest, that needs no pivoting
Compressed: TypeAlias = "tuple[Problem, Callable[[NDArray[np.int64], Array], Array]]"


def compress(
    problem: Problem, single: bool = False, worth: Callable[[Array], bool] = lambda pulls: True
) -> Compressed | None:
    """The problem with at most p + 1 samples and no intercept, and its best intercept: a function of the features with
    nonzero coefficients and of those coefficients, (k, K).

    None if the loss is not squares, the design is sparse, or fewer than 4 samples per feature make it pointless.

    Parameters
    ----------
    problem : Problem
        Least squares.
    single : bool
        Multiply a float32 design in float32, twice as fast.
    worth : callable
        Asked with Xc'S yc, (p, K), before X'SX is computed, which costs n p^2; None is returned if it says no.

    Notes
    -----
    X'SX is formed, so relative errors of about 1e-16 cond(X)^2 enter. Objectives stay accurate to 1e-12 unless X is
    nearly singular; then use the original problem. With `single`, X'SX has errors of 1e-6 |x_i||x_j|, and objectives of
    1e-6 ||S^(1/2) Xw||^2: too much where the fit is nearly perfect, so look at the answer in the original problem.
    """
    design, loss = problem.design, problem.loss
    n, p = design.shape
    if not (isinstance(loss, Squares) and isinstance(design, Dense) and n >= 4 * p):
        return None
    from scipy.linalg import solve_triangular
    from scipy.linalg.lapack import dpotrf, dpstrf

    s = loss.s
    y = loss.y if loss.offset is None else loss.y - loss.offset
    total = s.sum()
    y_mean = s @ y / total if problem.intercept else np.zeros(loss.n_outputs)
    constant = np.ptp(y, axis=0) < 8.0 * np.finfo(float).eps * np.abs(y_mean)
    y = np.where(constant, 0.0, y - y_mean)  # the rounding of a mean would be fitted for its own sake
    x_mean = np.zeros(p)
    product = np.where(constant, 0.0, -problem.null_gradient)  # Xc'S yc, because s'yc = 0
    if not worth(product):
        return None
    if problem.intercept:
        x_mean = design.rmatvec(s[:, None])[:, 0] / total
    square = gram(design.columns, s, x_mean if problem.intercept else None, single and design.dtype == np.float32)
    largest = max(square.diagonal().max(), 1e-300)
    with one_blas_thread():  # this takes a twelfth of the time of X'SX at most
        factor, failed = dpotrf(square, lower=0, clean=1)
        if not failed and factor.diagonal().min() ** 2 > SAFE * largest:
            pivots, rank, R = np.arange(p), p, factor
        else:  # columns that are nearly dependent
            factor, pivots, rank, _ = dpstrf(square, lower=0, tol=1e-13 * largest)
            pivots, R = pivots - 1, np.triu(factor)[:rank]
        target = solve_triangular(R[:, :rank], product[pivots[:rank]], trans="T")
    rest = np.sqrt(np.maximum((s[:, None] * y**2).sum(axis=0) - (target**2).sum(axis=0), 0.0))
    columns = np.zeros((p, rank + 1))
    columns[pivots, :rank] = R.T
    short = Squares(np.vstack([target, rest]), np.ones(rank + 1))
    return (
        Problem(Dense(columns), short, problem.penalty),
        lambda features, values: y_mean - x_mean[features] @ values,
    )
