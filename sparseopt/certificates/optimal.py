"""Certificates of a point: that it does not move, how far it is from the optimum, which groups are zero at the optimum.

    stationarity    no prox-gradient step in one block moves w by more than the tolerance
    duality_gap     D(A) <= F* <= F(w, b) for the group lasso
    zero_groups     groups that are zero in every minimiser: the dual optimum A* lies in the ball

        sum_i ||A_i - A*_i||^2 / (nu s_i)  <=  2 (F(w, b) - D(A))            nu: bound of f''

    so that ||soft(X_g'A*, mu)|| <= ||soft(X_g'A, mu)|| + sqrt(2 gap lambda_max(X_g' diag(nu s) X_g)), and a group for
    which this stays below lam_g vanishes wherever F is minimal (Ndiaye et al. 2017).

The ball is there because L* is strongly convex where f'' is bounded, and because A* is the gradient of the loss at
every minimiser, one and the same.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sparseopt.cardinality import AtMost
from sparseopt.certificates.certificate import Certificate, Verdict, as_dual, not_applicable
from sparseopt.certificates.duals import DualPoint, feasible, group_lasso, lower_bound, relative_gap, upper_bound
from sparseopt.designs import block_curvature
from sparseopt.optimality import dual_candidate, gradient_scale
from sparseopt.optimality import stationarity as largest_move
from sparseopt.penalty import Composite
from sparseopt.problem import Problem

__all__ = ["duality_gap", "gap_safe", "stationarity", "zero_groups"]

Array = NDArray[np.float64]


def stationarity(problem: Problem, w: ArrayLike, b: ArrayLike = 0.0, *, tol: float = 1e-6) -> Certificate:
    """That a prox-gradient step in any one block leaves w where it is, up to tol times the gradient at zero.

    Any loss, penalty and constraint; see `sparseopt.optimality.stationarity` for the number.

    Parameters
    ----------
    problem : Problem
        Any.
    w, b : arrays
        Coefficients and intercept.
    tol : float
        The largest move that passes.

    Notes
    -----
    Not a minimum: a saddle point, a poor local minimum and a poor choice of groups all pass. `vacuous` counts the zero
    groups that pass whatever the data: q'(0+) = inf, so that they could not leave zero, or k other groups fill the
    constraint.

    Examples
    --------
    >>> import numpy as np
    >>> from sparseopt import Power, Problem
    >>> problem = Problem.build(np.eye(2), [2.0, 3.0], penalty=Power(0.5), lam=0.1, intercept=False)
    >>> stationarity(problem, [0.0, 0.0]).numbers["vacuous"]
    2
    """
    kind = "stationarity"
    penalty, groups = problem.penalty, problem.groups
    W = problem.matrix(w)
    zero = (groups.norms(W) == 0.0) & penalty.penalised
    active = int(np.count_nonzero(penalty.penalised)) - int(np.count_nonzero(zero))
    counts = {"active": active, "groups": len(groups)}
    if not np.isfinite(penalty.value(W)):
        return Certificate(kind, "The penalty is infinite at this point.", Verdict.FAILED, counts, tol)
    residual, scale = float(largest_move(problem, W, b)), float(gradient_scale(problem))
    if isinstance(penalty, AtMost):
        stuck = active >= penalty.k
        why = f"{penalty.k} other groups are active already"
    else:
        stuck = penalty.block_strength > 0.0 and not np.isfinite(penalty.q.slope_at_zero())
        why = "the penalty is infinitely steep at zero"
    vacuous = int(np.count_nonzero(zero)) if stuck else 0
    numbers = {"residual": residual, "scale": scale, "vacuous": vacuous, **counts}
    caveats: tuple[str, ...] = ()
    if vacuous:
        caveats += (f"Anything about {vacuous} zero groups, which pass whatever the data are because {why}.",)
    if not problem.is_convex:
        caveats += ("That the point is a minimum, local or global: the problem is not convex.",)
    else:
        caveats += ("How far the objective is from the optimum: see the duality gap.",)
    move = f"A prox-gradient step in any one block moves it by at most {residual:.1e} of the gradient at zero"
    return Certificate(
        kind,
        f"{move}, {'within' if residual <= tol else 'more than'} {tol:.0e}.",
        Verdict.HOLDS if residual <= tol else Verdict.FAILED,
        numbers,
        tol,
        caveats,
    )


def duality_gap(problem: Problem, w: ArrayLike, b: ArrayLike = 0.0, *, A: ArrayLike | None = None) -> Certificate:
    """That the optimum of a (sparse) group lasso lies between a dual value and F(w, b).

    Parameters
    ----------
    problem : Problem
        With q = L2; any loss, l1 term, ridge, intercept and unpenalised groups.
    w, b : arrays
        Coefficients and intercept, any.
    A : (n, K) array, optional
        The dual point in units of dL/dz; by default dL/dz at (w, b). It is made feasible.

    Notes
    -----
    Both bounds are rounded outwards by about 1e-12 of themselves.

    Examples
    --------
    >>> import numpy as np
    >>> from sparseopt import Problem
    >>> problem = Problem.build(np.eye(2), [2.0, 0.0], lam=0.5, intercept=False)
    >>> print(duality_gap(problem, [1.0, 0.0]).statement)
    The optimum lies between 0.75 and 0.75: F is within 2.7e-12 of it, relatively.
    """
    kind = "duality_gap"
    if not problem.penalty.is_group_lasso:
        return not_applicable(kind, f"No dual is known for {_name(problem)}.")
    primal, dual, point = bracket(problem, w, b, A)
    return gap_certificate(
        kind,
        "The optimum",
        primal,
        dual,
        {"A": point.A},
        ("How far w is from a minimiser: only the objective is bracketed.",),
    )


def zero_groups(
    problem: Problem,
    w: ArrayLike,
    b: ArrayLike = 0.0,
    *,
    A: ArrayLike | None = None,
    zero: ArrayLike | None = None,
) -> Certificate:
    """That some groups are zero in every minimiser of a (sparse) group lasso.

    Parameters
    ----------
    problem : Problem
        With q = L2 and a loss of bounded curvature: squares, huber, logistic or multinomial.
    w, b : arrays
        Coefficients and intercept; the closer to optimal, the more groups are proved zero.
    A : (n, K) array, optional
        The dual point; by default dL/dz at (w, b).
    zero : (m,) integers, optional
        The groups to prove zero; by default all for which the proof succeeds.

    Examples
    --------
    >>> import numpy as np
    >>> from sparseopt import Problem
    >>> problem = Problem.build(np.eye(3), [2.0, 0.1, 0.0], lam=0.1, intercept=False)
    >>> print(zero_groups(problem, [1.7, 0.0, 0.0]).statement)
    2 of 3 penalised groups are zero in every minimiser; 1 may be nonzero: 0.
    """
    kind = "zero_groups"
    reason = no_ball(problem)
    if reason:
        return not_applicable(kind, reason)
    primal, dual, point = bracket(problem, w, b, A)
    proved, radius = gap_safe(problem, point, primal - dual)
    chosen = proved if zero is None else np.zeros_like(proved)
    if zero is not None:
        chosen[np.asarray(zero, np.int64)] = True
    names = problem.groups.names
    left = np.flatnonzero(problem.penalty.penalised & ~chosen)
    numbers = {
        "primal": primal,
        "dual": dual,
        "radius": radius,
        "n_zero": int(np.count_nonzero(chosen)),
        "n_left": len(left),
    }
    wrong = np.flatnonzero(chosen & ~proved)
    if wrong.size:
        statement = f"Group {names[wrong[0]]} and {wrong.size - 1} more could not be shown to be zero at the optimum."
        return Certificate(kind, statement, Verdict.FAILED, numbers)
    total = int(np.count_nonzero(problem.penalty.penalised))
    shown = ", ".join(names[g] for g in left[:8]) + (", ..." if len(left) > 8 else "")
    n_zero = numbers["n_zero"]
    statement = f"{n_zero} of {total} penalised groups are zero in every minimiser; {len(left)} may be nonzero"
    caveats = ("That the other groups are nonzero at the optimum.",) if len(left) else ()
    return Certificate(
        kind,
        statement + (f": {shown}." if len(left) else "."),
        Verdict.PROVED,
        numbers,
        0.0,
        caveats,
        {"A": point.A, "zero": np.flatnonzero(chosen)},
    )


def gap_safe(problem: Problem, point: DualPoint, gap: float) -> tuple[NDArray[np.bool_], float]:
    """Which penalised groups vanish at every minimiser, (n_groups,), and the radius sqrt(2 gap) of the ball.

    For q = L2 and bounded curvature; the margin of 1e-9 is above the rounding of the eigenvalues.
    """
    penalty = problem.penalty
    c = problem.loss.curvature_bound()
    if c is None:
        raise ValueError(f"loss {problem.loss.name} has no bounded curvature: no ball is known that holds the dual.")
    radius = float(np.sqrt(2.0 * max(gap, 0.0)))
    reach = np.sqrt(block_curvature(problem.design, problem.groups, c)) * radius
    strength = penalty.block_strength * problem.groups.weights
    below = (point.norms + point.error + reach) * (1.0 + 1e-9) < strength
    return penalty.penalised & below, radius


def no_ball(problem: Problem) -> str:
    """Why no gap-safe ball is known, or nothing."""
    if not problem.penalty.is_group_lasso:
        return f"No dual is known for {_name(problem)}."
    if problem.loss.curvature_bound() is None:
        return f"The curvature of the loss {problem.loss.name} has no bound, so no ball holds the dual optimum."
    return ""


def bracket(problem: Problem, w: ArrayLike, b: ArrayLike, A: ArrayLike | None) -> tuple[float, float, DualPoint]:
    """Bounds of the optimum and the dual point, for a group lasso or a problem that one bounds from below."""
    convex = problem if problem.penalty.is_group_lasso else group_lasso(problem)
    primal = upper_bound(problem, w, b)
    if A is not None:
        start = as_dual(problem, A)
    elif np.isfinite(problem.loss.value(problem.predictor(w, b))):
        start = dual_candidate(convex, problem.predictor(w, b))
    else:
        start = np.zeros_like(problem.loss.y)
    point = feasible(convex, start)
    return primal, lower_bound(convex, point), point


def gap_certificate(
    kind: str,
    what: str,
    primal: float,
    dual: float,
    evidence: dict[str, NDArray],
    not_proved: tuple[str, ...],
    **numbers: float | int | str,
) -> Certificate:
    """A bracket of an optimum in words; FAILED where a bound is infinite."""
    gap = relative_gap(primal, dual)
    figures = {"primal": primal, "dual": dual, "relative_gap": gap, **numbers}
    if not (np.isfinite(primal) and np.isfinite(dual)):
        return Certificate(kind, f"No finite bounds: {dual:g} <= F* <= {primal:g}.", Verdict.FAILED, figures)
    statement = f"{what} lies between {dual:.10g} and {primal:.10g}: F is within {gap:.1e} of it, relatively."
    return Certificate(kind, statement, Verdict.PROVED, figures, 0.0, not_proved, evidence)


def _name(problem: Problem) -> str:
    penalty = problem.penalty
    if isinstance(penalty, AtMost):
        return f"the choice of at most {penalty.k} groups"
    return f"{'problem (1)' if isinstance(penalty, Composite) else 'the penalty'} with q = {penalty.q}"
