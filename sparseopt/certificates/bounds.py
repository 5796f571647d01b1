"""Lower bounds for nonconvex penalties, from dual points of the group lasso.

Problem (1), Omega = lam q^-1(sum_g q(omega_g u_g)), q strictly increasing, subadditive, q(0) = 0:

    sum_g omega_g u_g <= q^-1(sum_g q(omega_g u_g)),    so every dual value of the group lasso bounds F from below.

Separable, Omega = lam sum_g omega_g q(u_g), q nondecreasing and concave, q(0) = 0: with G = sum_g omega_g u_g and the
smallest positive weight m,

    sum_g omega_g q(u_g) >= m q(G / m),    F(w) >= inf_r [ max_j (D_j - lam_j r) + lam m q(r / m) ]

where D_j is a dual value of the group lasso of strength lam_j: L + (l1 term) + (ridge) >= D_j - lam_j G. Between two
breakpoints of the maximum the bracket is affine plus concave, so its infimum lies at 0 or at a breakpoint; L >= 0 is
one of the lines, D = 0 of strength 0, so that nothing falls beyond the last. For q that are not concave, such as
Lambert-W, the inequality itself fails.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sparseopt.cardinality import AtMost
from sparseopt.certificates.certificate import Certificate, as_dual, not_applicable
from sparseopt.certificates.duals import feasible, group_lasso, lower_bound, rounded_down, squared_norms, upper_bound
from sparseopt.certificates.optimal import bracket, gap_certificate
from sparseopt.optimality import dual_candidate
from sparseopt.penalty import Composite, Penalty
from sparseopt.problem import Problem

__all__ = ["optimality_gap", "separable_bound"]

Array = NDArray[np.float64]


def optimality_gap(problem: Problem, w: ArrayLike, b: ArrayLike = 0.0, *, A: ArrayLike | None = None) -> Certificate:
    """That the global optimum of problem (1) lies between a dual value of the group lasso and F(w, b).

    Parameters
    ----------
    problem : Problem
        With a `Composite` penalty whose q is strictly increasing and subadditive.
    w, b : arrays
        Coefficients and intercept, any number of active groups.
    A : (n, K) array, optional
        The dual point; best at the group-lasso solution of the same lam. By default dL/dz at (w, b).

    Notes
    -----
    The gap closes where the group lasso has one active group (Theorem 1.1); with more it stays open, although w may be
    optimal. The properties of q are those that its class claims; the certificate `regularizer` examines them.

    Examples
    --------
    >>> import numpy as np
    >>> from sparseopt import LogSum, Problem
    >>> problem = Problem.build(np.eye(2), [2.0, 0.1], penalty=LogSum(), composite=True, lam=0.5, intercept=False)
    >>> optimality_gap(problem, [1.0, 0.0]).verdict.value
    'Proved.'
    """
    kind = "optimality_gap"
    penalty = problem.penalty
    if not isinstance(penalty, Composite):
        return not_applicable(kind, "The bound is one of problem (1), and this penalty is not a Composite.")
    reason = not_admissible(penalty)
    if reason:
        return not_applicable(kind, reason)
    primal, dual, point = bracket(problem, w, b, A)
    return gap_certificate(
        kind,
        "The global optimum of problem (1)",
        primal,
        dual,
        {"A": point.A},
        (
            f"That {penalty.q} is strictly increasing and subadditive: its class says so, see the regularizer claim.",
            "That w is not optimal where the gap stays open: the bound is that of the group lasso.",
        ),
    )


def separable_bound(
    problem: Problem,
    w: ArrayLike,
    b: ArrayLike = 0.0,
    *,
    strengths: ArrayLike | None = None,
    A: ArrayLike | None = None,
) -> Certificate:
    """That the global optimum of a separable penalty with concave q lies between a bound and F(w, b).

    Parameters
    ----------
    problem : Problem
        With a `Penalty` whose q is concave.
    w, b : arrays
        Coefficients and intercept, any.
    strengths : (m,) array, optional
        Strengths lam_j of the group lasso for which dual points are given.
    A : (m, n, K) array, optional
        Dual points, one per strength, such as dL/dz at the group-lasso solutions of a path. By default dL/dz at (w, b)
        scaled to several strengths. A = 0 of strength 0 is always added: it says that the loss is not negative.

    Notes
    -----
    The bound is attained where the best choice has one active group; with several it stays below the optimum.

    Examples
    --------
    >>> import numpy as np
    >>> from sparseopt import MCP, Problem
    >>> s, strengths = np.ones(2), np.linspace(0.01, 2.0, 200)
    >>> problem = Problem.build(np.eye(2), [2.0, 0.0], penalty=MCP(8.0), lam=0.5, intercept=False, sample_weight=s)
    >>> points = [[-strength, 0.0] for strength in strengths]  # dL/dz at the group-lasso solutions
    >>> numbers = separable_bound(problem, [1.6, 0.0], strengths=strengths, A=np.reshape(points, (-1, 2, 1))).numbers
    >>> round(numbers["primal"], 4), round(numbers["dual"], 4)
    (0.8, 0.8)
    """
    kind = "separable_bound"
    penalty = problem.penalty
    if isinstance(penalty, (AtMost, Composite)):
        return not_applicable(kind, "The bound is one of separable penalties, and this one is not separable.")
    if not penalty.q.concave():
        return not_applicable(kind, f"The bound needs a concave q, which {penalty.q} does not claim to be.")
    if (strengths is None) != (A is None):
        raise ValueError("strengths and A must be given together: one dual point per strength.")
    if strengths is None or A is None:
        scales, points = _rays(problem, w, b)
    else:
        points = as_dual(problem, A, leaves=True)
        scales = np.asarray(strengths, dtype=np.float64).reshape(-1)
        if len(scales) != len(points) or (scales < 0.0).any():
            raise ValueError(f"strengths has {len(scales)} entries for {len(points)} points: pass one >= 0 for each.")
    scales, points = np.append(scales, 0.0), np.concatenate([points, np.zeros((1, *problem.loss.y.shape))])
    duals, squared = np.empty(len(scales)), squared_norms(problem)
    for j, strength in enumerate(scales):
        if strength == 0.0 and penalty.ridge == 0.0 and penalty.entry_strength == 0.0:
            points[j] = 0.0  # X'A = 0 cannot be met by numbers that are not zero
            duals[j] = rounded_down(problem, points[j], 0.0)
            continue
        convex = group_lasso(problem, float(strength))
        point = feasible(convex, points[j], squared)
        points[j], duals[j] = point.A, lower_bound(convex, point)
    dual, at = _infimum(penalty, scales, duals)
    return gap_certificate(
        kind,
        "The global optimum",
        upper_bound(problem, w, b),
        dual - 1e-12 * (abs(dual) + float(np.abs(duals[np.isfinite(duals)]).max())),
        {"strengths": scales, "A": points},
        (
            f"That {penalty.q} is concave: its class says so, see the regularizer claim.",
            "That w is not optimal where the gap stays open: the bound counts the norms of all groups as one.",
        ),
        at=at,
    )


def not_admissible(penalty: Composite) -> str:
    """Why Theorem 1.1 does not speak of this q, or nothing."""
    q = penalty.q
    missing = [
        name for name, has in (("strictly increasing", q.increasing()), ("subadditive", q.subadditive())) if not has
    ]
    if penalty.is_group_lasso or not missing:
        return ""
    return f"Theorem 1.1 needs q strictly increasing and subadditive, and {q} is not {' and not '.join(missing)}."


def _rays(problem: Problem, w: ArrayLike, b: ArrayLike) -> tuple[Array, Array]:
    """dL/dz at the point as the dual point of the least strength that admits it, and parts of it for smaller ones."""
    A = dual_candidate(group_lasso(problem, 1.0), problem.predictor(w, b))
    point = feasible(group_lasso(problem, 1e300), A)
    seen = problem.penalty.penalised & (problem.groups.weights > 0.0)
    top = float((point.norms[seen] / problem.groups.weights[seen]).max(initial=0.0)) * (1.0 + 1e-9)
    scales = top * np.array([1.0, 0.75, 0.5, 0.25]) if top > 0.0 else np.zeros(1)
    return scales, np.stack([point.A] * len(scales))


def _infimum(penalty: Penalty, strengths: Array, duals: Array) -> tuple[float, float]:
    """inf over r >= 0 of max_j (D_j - lam_j r) + lam m q(r / m), and where it lies; lines with D_j = -inf drop out."""
    kept = np.isfinite(duals)
    strengths, duals = strengths[kept], duals[kept]
    weights = penalty.groups.weights[penalty.penalised]
    least = float(weights.min()) if weights.size else 1.0

    def total(r: float) -> float:
        line = float((duals - strengths * r).max())
        return line + penalty.block_strength * least * float(penalty.q.value(r / least)) if r > 0.0 else line

    # Beyond the last breakpoint the line of strength 0 is on top, and the sum does not fall.
    candidates = {r: total(r) for r in [0.0, *_breakpoints(strengths, duals)]}
    at = min(candidates, key=lambda r: candidates[r])
    return candidates[at], at


def _breakpoints(strengths: Array, duals: Array) -> list[float]:
    """Where the maximum of the lines D_j - lam_j r passes from one to the next, r > 0."""
    found: list[float] = []
    r, j = 0.0, int(np.lexsort((strengths, -duals))[0])
    while True:
        flatter = np.flatnonzero(strengths < strengths[j])
        if not flatter.size:
            return found
        meets = (duals[j] - duals[flatter]) / (strengths[j] - strengths[flatter])
        r = float(meets.min())
        ties = flatter[meets <= r]
        j = int(ties[np.argmin(strengths[ties])])
        if r > 0.0:
            found.append(r)
