"""Convex problems in CVXPY: the same problem, written once more and solved by somebody else.

    minimise over W, b    sum_i s_i f(y_i, (XW + 1 b' + o)_i) + sum_g [lam_g ||W_g|| + mu ||W_g||_1 + ridge/2 ||W_g||^2]

with lam_g = lam (1 - l1_ratio) omega_g and mu = lam l1_ratio, in disciplined convex form: cones of second order for
squares, Huber's loss and the norms, exponential cones for the others. A check of a solution, a start for constraints of
one's own, and a way to modelling tools beyond this package; the package's own solvers are faster by orders.
"""

from __future__ import annotations

import time
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csc_array

from sparseopt.cardinality import AtMost
from sparseopt.designs import Csc, in_memory
from sparseopt.optimality import block_moves
from sparseopt.problem import Problem
from sparseopt.solution import Solution, Status

__all__ = ["ConvexTwin", "as_cvxpy"]

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class ConvexTwin:
    """A problem in CVXPY, with its variables.

    Parameters
    ----------
    source : Problem
        What it is the twin of.
    problem : cvxpy.Problem
        The same objective over `w` and `b`; add constraints with cvxpy.Problem(twin.problem.objective, [...]).
    w : cvxpy.Variable
        Coefficients, always a matrix (p, K).
    b : cvxpy.Variable or cvxpy.Constant
        Intercepts (1, K); constant 0 if the problem has none.
    """

    source: Problem
    problem: Any
    w: Any
    b: Any

    def solve(self, **options: Any) -> Solution:
        """Solve it, by default with Clarabel.

        Parameters
        ----------
        **options
            For cvxpy.Problem.solve, such as solver="SCS" or tol_gap_rel=1e-10.

        Returns
        -------
        Solution
            What a prox step takes to zero is exactly zero, if that hardly raises the objective. CONVERGED if the
            solver says that it met its own tolerances, else STALLED; `Solution.gap` measures either.

        Raises
        ------
        RuntimeError
            If the solver ends without a point, for example because the minimum lies at infinity.
        """
        began = time.perf_counter()
        settings = {"solver": "CLARABEL", **options}
        if settings["solver"] == "CLARABEL":
            settings = {f"tol_{name}": 1e-9 for name in ("gap_abs", "gap_rel", "feas")} | settings
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Solution may be inaccurate")  # the status says it
            self.problem.solve(**settings)
        if self.w.value is None:
            raise RuntimeError(
                f"{settings['solver']} ended with the status {self.problem.status!r} and no point: add a ridge if the "
                "minimum lies at infinity, or try another solver."
            )
        W, b = np.array(self.w.value), np.array(self.b.value)[0]
        W = _with_zeros(self.source, W, b)
        status = Status.CONVERGED if self.problem.status == "optimal" else Status.STALLED
        single = W.shape[1] == 1
        return Solution(
            W[:, 0] if single else W,
            float(b[0]) if single else b,
            self.source,
            status,
            seconds=time.perf_counter() - began,
        )


def as_cvxpy(problem: Problem) -> ConvexTwin:
    """Write a convex problem in CVXPY.

    Parameters
    ----------
    problem : Problem
        Any loss of the package, dense or sparse design; `Penalty` or `Composite` with q = L2 (l1 term, ridge and groups
        of weight 0 included), or `AtMost` with a k that covers all groups.

    Raises
    ------
    ImportError
        If CVXPY is not installed.
    ValueError
        If the problem is not convex, or its loss is not one of the package.
    TypeError
        If X is not in memory.

    Examples
    --------
    >>> import numpy as np
    >>> from sparseopt import Problem
    >>> problem = Problem.build(np.eye(4), [3.0, 4.0, 0.1, 0.0], groups=2, lam=0.5, intercept=False)
    >>> as_cvxpy(problem).solve().w.round(3)
    array([1.303, 1.737, 0.   , 0.   ])
    """
    penalty = problem.penalty
    if isinstance(penalty, AtMost):
        if not penalty.is_convex:
            raise ValueError(f"k is {penalty.k} of {penalty.penalised.sum()} groups, not convex: use exact selection.")
    elif not penalty.is_group_lasso:
        raise ValueError(f"penalty has q = {penalty.q}, which is not convex: CVXPY takes problems with q = L2.")
    cp = _cvxpy()
    loss, groups = problem.loss, problem.groups
    W = cp.Variable((groups.n_features, loss.n_outputs), name="w")
    b = cp.Variable((1, loss.n_outputs), name="b") if problem.intercept else cp.Constant(np.zeros((1, loss.n_outputs)))
    rows = np.flatnonzero(loss.s)  # a sample of weight zero has no say, and its z no bound
    z = _columns(problem)[rows] @ W
    if problem.intercept:
        z = z + np.ones((len(rows), 1)) @ b
    if loss.offset is not None:
        z = z + loss.offset[rows]
    total = _fit(cp, loss, z, rows) + _penalty(cp, penalty, W)
    return ConvexTwin(problem, cp.Problem(cp.Minimize(total)), W, b)


def _cvxpy() -> Any:
    try:
        import cvxpy
    except ImportError as error:
        raise ImportError("cvxpy is missing, which as_cvxpy needs: pip install 'sparseopt[verify]'.") from error
    return cvxpy


def _columns(problem: Problem) -> Any:
    design = in_memory(problem.design, "as_cvxpy")
    if isinstance(design, Csc):
        return csc_array((design.data.astype(np.float64), design.indices, design.indptr), shape=design.shape).tocsr()
    return design.columns.T.astype(np.float64)


def _fit(cp: Any, loss: Any, z: Any, rows: NDArray[np.int64]) -> Any:
    """L(z) for a loss of the package on the samples `rows`."""
    y, s = loss.y[rows], loss.s[rows, None]
    if loss.name == "squares":
        return 0.5 * cp.sum_squares(cp.multiply(np.sqrt(s), z - y))
    if loss.name == "huber":
        return cp.sum(cp.multiply(0.5 * s, cp.huber(z - y, loss.delta)))  # CVXPY's Huber function is twice ours
    if loss.name == "logistic":
        return cp.sum(cp.multiply(s, cp.logistic(cp.multiply(1.0 - 2.0 * y, z))))
    if loss.name == "poisson":
        saturated = float((s * (y * np.log(np.where(y > 0.0, y, 1.0)) - y)).sum())
        return cp.sum(cp.multiply(s, cp.exp(z))) - cp.sum(cp.multiply(s * y, z)) + saturated
    if loss.name == "multinomial":
        return cp.sum(cp.multiply(s[:, 0], cp.log_sum_exp(z, axis=1))) - cp.sum(cp.multiply(s * y, z))
    raise ValueError(f"loss {loss.name!r} has no form in CVXPY here: pass a problem with a loss of sparseopt.losses.")


def _penalty(cp: Any, penalty: Any, W: Any) -> Any:
    """Omega(W), one cone per group."""
    groups = penalty.groups
    total: Any = 0.0
    for g in np.flatnonzero(penalty.penalised):
        block = W[groups[int(g)], :]
        if penalty.block_strength > 0.0:
            total += penalty.block_strength * groups.weights[g] * cp.norm(block, "fro")
        if penalty.entry_strength > 0.0:
            total += penalty.entry_strength * cp.sum(cp.abs(block))
    if penalty.ridge > 0.0 and penalty.penalised.any():
        total += 0.5 * penalty.ridge * cp.sum_squares(W[np.flatnonzero(groups.expand(penalty.penalised)), :])
    return total


def _with_zeros(problem: Problem, W: Array, b: Array) -> Array:
    """W with exact zeros where one prox step has them: an interior point stops short of them."""
    target, _, _ = block_moves(problem, W, b)
    rounded = np.where((target == 0.0) & problem.groups.expand(problem.penalty.penalised)[:, None], 0.0, W)
    before, after = problem.value(W, b), problem.value(rounded, b)
    return rounded if after <= before + 1e-9 * abs(before) else W
