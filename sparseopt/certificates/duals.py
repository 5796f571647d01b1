"""Bounds that stay true after rounding: dual points made feasible with a margin, and values moved to the safe side.

Every A with X_0'A = 0 (unpenalised columns; 1'A = 0 with an intercept), A in the domain of L*, and

    || soft(X_g'A, mu) || <= lam_g      for all penalised g (no condition with a ridge)

bounds the group lasso from below by D(A) = -L*(A) - sum_g (||soft(X_g'A, mu)|| - lam_g)_+^2 / (2 ridge). A computed A
meets these up to rounding only. So it is projected on the equalities in the metric of the sample weights, mixed with a
point inside the domain where it touches zero probabilities, and scaled until each inequality holds with a margin above
the rounding of its evaluation. Then whoever takes the stored A and repeats the projection exactly finds it feasible.

Rounding of x'a is taken as 8 eps sqrt(n) ||x|| ||a||, that of a sum as 1e-14 of the sum of moduli; both are ten times
what is observed, and a claimed bound gives way by that much and by 1e-12 of itself.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sparseopt.designs import block_curvature
from sparseopt.optimality import free_columns, soft
from sparseopt.penalty import Composite, Penalty
from sparseopt.problem import Problem
from sparseopt.regularizers import L2

__all__ = [
    "DualPoint",
    "feasible",
    "group_lasso",
    "lower_bound",
    "null_loss",
    "orthogonal_to",
    "relative_gap",
    "rounded_down",
    "squared_norms",
    "upper_bound",
]

Array = NDArray[np.float64]

_MARGIN = 1e-12
_EPS = float(np.finfo(np.float64).eps)


@dataclass(frozen=True, eq=False)
class DualPoint:
    """A feasible A with what follows from it.

    Parameters
    ----------
    A : (n, K) array
        The point.
    V : (p, K) array
        X'A.
    norms : (n_groups,) array
        ||soft(V_g, mu)||.
    error : (n_groups,) array
        Rounding of these norms, at most.
    """

    A: Array
    V: Array
    norms: Array
    error: Array


def group_lasso(problem: Problem, strength: float | None = None) -> Problem:
    """The problem with q = L2, and another lam (1 - l1_ratio) if `strength` is given; its l1 term is the same."""
    penalty = problem.penalty
    lam, l1_ratio = penalty.lam, penalty.l1_ratio
    if strength is not None:
        lam = strength + penalty.entry_strength
        l1_ratio = penalty.entry_strength / lam if lam > 0.0 else 0.0
    return replace(problem, penalty=Penalty(L2(), problem.groups, lam, l1_ratio, penalty.ridge))


def feasible(problem: Problem, A: Array, squared: Array | None = None) -> DualPoint:
    """A feasible point near A: see the top of this file. For problems without a known dual only the equalities hold.

    `squared` is `squared_norms(problem)`, if it is known.
    """
    loss, penalty = problem.loss, problem.penalty
    A = np.where(loss.s[:, None] > 0.0, A, 0.0)
    U = free_columns(problem)
    A = _inside(problem, _balanced(problem, A, U), U)
    if not np.isfinite(loss.conjugate(A)):
        A = np.zeros_like(A)  # L >= 0, which is all that is known then
    V = problem.design.rmatvec(A)
    mu, error = penalty.entry_strength, _rounding(problem, A, squared)
    norms = problem.groups.norms(soft(V, mu))
    if penalty.is_group_lasso and penalty.ridge == 0.0 and penalty.lam > 0.0:
        strength = penalty.block_strength * problem.groups.weights * (1.0 - _MARGIN)
        over = np.flatnonzero(penalty.penalised & (norms + error > strength))
        if over.size:
            c = _largest_scale(problem, V, over, strength - error)
            A, V, error = c * A, c * V, c * error
            norms = problem.groups.norms(soft(V, mu))
    return DualPoint(A, V, norms, error)


def orthogonal_to(problem: Problem, A: Array, U: Array, cut: float) -> Array:
    """A point near A with U'A = 0 up to rounding, inside the domain or exactly on its border 0.

    Probabilities and rates below `cut` become 0 and stay there: the correction is in the metric of the curvature at
    A, which vanishes there, as it does for whoever makes the point exactly orthogonal. So separable samples drop out.
    """
    loss = problem.loss
    s = np.where(loss.s > 0.0, loss.s, np.inf)[:, None]
    low, high = (np.broadcast_to(bound, A.shape) for bound in loss.domain())
    v = np.clip(A / s, low, high)
    v = np.where(((low == 0.0) | (high == 0.0)) & (np.abs(v) < cut), 0.0, v)
    if loss.sums_to_zero:
        v = v - loss.y * v.sum(axis=1, keepdims=True)
    A = loss.s[:, None] * v
    if loss.sums_to_zero:
        with np.errstate(divide="ignore"):
            z = np.log(np.maximum(v + loss.y, 0.0))
        A = loss.project(A, z if loss.offset is None else z - loss.offset, U)
    else:
        bend = {"logistic": np.abs(v) * (1.0 - np.abs(v)), "poisson": v + loss.y}.get(loss.name, np.ones_like(v))
        for _ in range(2):  # the second removes what rounding leaves of the first
            for a, c in zip(A.T, (loss.s[:, None] * bend).T, strict=True):
                a -= c * (U @ np.linalg.lstsq(U.T @ (c[:, None] * U), U.T @ a, rcond=None)[0])
    return _inside(problem, A, None)


def lower_bound(problem: Problem, point: DualPoint) -> float:
    """D(A) of a group lasso, rounded down."""
    penalty = problem.penalty
    bent = 0.0
    if penalty.ridge > 0.0:
        over = point.norms + point.error - penalty.block_strength * problem.groups.weights
        bent = float((np.maximum(over[penalty.penalised], 0.0) ** 2).sum()) / (2.0 * penalty.ridge)
    return rounded_down(problem, point.A, bent)


def rounded_down(problem: Problem, A: Array, conjugate: float) -> float:
    """-L*(A) - conjugate, less what rounding may have added."""
    loss = problem.loss
    value = -loss.conjugate(A) - conjugate
    if not np.isfinite(value):
        return value
    v = A / np.where(loss.s > 0.0, loss.s, 1.0)[:, None]
    low, high = loss.domain()
    f = np.abs(loss.sample_conjugate(np.clip(v, low, high)))
    f[loss.s == 0.0] = 0.0
    reach = np.abs(loss.y) + np.abs(v) if np.isinf(high).all() or loss.name == "huber" else 40.0 + 0.0 * v
    if loss.name == "poisson":
        reach = 40.0 + np.abs(np.log(np.where(loss.y > 0.0, loss.y, 1.0)))
    if loss.offset is not None:
        reach = reach + np.abs(loss.offset)
    mean = float((loss.s @ reach).max() / loss.s.sum())
    moduli = float((loss.s @ f).sum() + (np.abs(A) * reach).sum() + np.abs(A).sum() * mean)
    # The last term is for sums that cancel to 0 exactly here and to 1e-35 in another arithmetic.
    cancelled = 1e-30 * float((loss.s @ (np.abs(loss.y) * reach)).sum())
    return value - _MARGIN * (abs(value) + conjugate) - 1e-14 * moduli - cancelled


def upper_bound(problem: Problem, w: ArrayLike, b: ArrayLike = 0.0) -> float:
    """F(w, b), rounded up."""
    W = problem.matrix(w)
    z = problem.predictor(W, b)
    fit, omega = problem.loss.value(z), problem.penalty.value(W)
    if not np.isfinite(fit + omega):
        return float("inf")
    slope = problem.loss.derivative(z)
    sizes = np.sqrt(problem.groups.sizes * squared_norms(problem))
    reach = float(sizes @ problem.groups.norms(W)) + np.sqrt(len(z)) * float(np.linalg.norm(b))
    rounding = 8.0 * _EPS * np.sqrt(problem.design.shape[1] + 1.0) * float(np.linalg.norm(slope)) * reach
    return float(fit + omega + _MARGIN * (fit + abs(omega)) + rounding + _inverse_rounding(problem, W))


def null_loss(problem: Problem) -> tuple[float, Array]:
    """A lower bound of the loss without penalised groups, and the dual point that it is from."""
    U = free_columns(problem)
    start = _free_fit(problem, np.zeros((len(problem.loss.y), 0)) if U is None else U)
    point = feasible(problem, start)
    return rounded_down(problem, point.A, 0.0), point.A


def squared_norms(problem: Problem) -> Array:
    """||X_g||^2, (n_groups,)."""
    return block_curvature(problem.design, problem.groups, np.ones(1))


def relative_gap(primal: float, dual: float) -> float:
    """(primal - dual) over the larger modulus; 0 if both are 0."""
    scale = max(abs(primal), abs(dual))
    return max(primal - dual, 0.0) / scale if scale > 0.0 else 0.0


def _balanced(problem: Problem, A: Array, U: Array | None) -> Array:
    """A - s o (U beta) with U'A = 0, and rows that sum to zero where the loss needs it."""
    loss = problem.loss
    for _ in range(2):  # the second removes what rounding leaves of the first
        if loss.sums_to_zero:
            A = A - loss.y * A.sum(axis=1, keepdims=True)
        if U is not None:
            sU = loss.s[:, None] * U
            A = A - sU @ np.linalg.lstsq(U.T @ sU, U.T @ A, rcond=None)[0]
    return A - loss.y * A.sum(axis=1, keepdims=True) if loss.sums_to_zero else A


def _inside(problem: Problem, A: Array, U: Array | None) -> Array:
    """A mixed with the fit without features where a bound 0 of the domain is touched, then scaled to the others."""
    loss = problem.loss
    s = np.where(loss.s > 0.0, loss.s, np.inf)[:, None]
    low, high = (np.broadcast_to(bound, A.shape) for bound in loss.domain())
    zero_below, zero_above = (low == 0.0) & (s < np.inf), (high == 0.0) & (s < np.inf)
    if zero_below.any() or zero_above.any():
        if U is None:
            A = np.where(zero_below, np.maximum(A, 0.0), np.where(zero_above, np.minimum(A, 0.0), A))
        else:
            A = _mixed(problem, A, U, np.where(zero_below, 1.0 / s, np.where(zero_above, -1.0 / s, 0.0)))
        if loss.sums_to_zero:
            A = A - loss.y * A.sum(axis=1, keepdims=True)
    c, v = 1.0, A / s
    for side, bound in ((v, high), (-v, -low)):
        beyond = (bound > 0.0) & (side > bound * (1.0 - _MARGIN))
        if beyond.any():
            c = min(c, float((bound[beyond] * (1.0 - _MARGIN) / side[beyond]).min()))
    return c * A


def _mixed(problem: Problem, A: Array, U: Array, sign: Array) -> Array:
    """(1 - t) A + t A_0 with sign o A >= 1e-14, the least such t; A itself if A_0 is not inside either."""
    seen = sign != 0.0
    short = (sign * A)[seen] < 1e-14
    if not short.any():
        return A
    inner = _balanced(problem, _free_fit(problem, U), U)
    depth, lack = (sign * inner)[seen][short], -(sign * A)[seen][short]
    if depth.min() <= 1e-13:
        return A
    t = float(((lack + 1e-14) / (lack + depth)).max())
    return (1.0 - t) * A + t * inner


def _free_fit(problem: Problem, U: Array) -> Array:
    """dL/dz near the best fit of the free columns alone, by Newton's method: there it is orthogonal to them."""
    loss = problem.loss
    z = np.broadcast_to(loss.null_intercept() if problem.intercept else 0.0, loss.y.shape).copy()
    start = z
    for _ in range(30 if U.shape[1] > int(problem.intercept) else 0):
        c, slope = loss.curvature(z)[:, None], U.T @ loss.derivative(z)
        if not (np.isfinite(c).all() and np.isfinite(slope).all()):  # the steps ran off to infinity
            return loss.derivative(start)
        step = np.linalg.lstsq(U.T @ (c * U), slope, rcond=None)[0]
        z = z - U @ step
        if np.abs(step).max() <= 1e-12:
            break
    return loss.derivative(z)


def _largest_scale(problem: Problem, V: Array, over: NDArray[np.int64], room: Array) -> float:
    """The largest c with ||soft(c V_g, mu)|| <= room_g for the groups `over`, which exceed it at c = 1."""
    mu = problem.penalty.entry_strength
    low, high = 0.0, 1.0
    if (room[over] <= 0.0).any():
        return 0.0
    blocks = [V[problem.groups[int(g)]] for g in over]
    if mu == 0.0:
        return min(float(r / np.linalg.norm(v)) for v, r in zip(blocks, room[over], strict=True))
    for _ in range(60):
        c = 0.5 * (low + high)
        within = all(np.linalg.norm(soft(c * v, mu)) <= r for v, r in zip(blocks, room[over], strict=True))
        low, high = (c, high) if within else (low, c)
    return low


def _rounding(problem: Problem, A: Array, squared: Array | None) -> Array:
    size = squared_norms(problem) if squared is None else squared
    return 8.0 * _EPS * np.sqrt(len(A) * problem.groups.sizes * size) * float(np.linalg.norm(A))


def _inverse_rounding(problem: Problem, W: Array) -> float:
    """What rounding of sum_g q(omega_g u_g) does to its inverse, in problem (1)."""
    penalty = problem.penalty
    if not isinstance(penalty, Composite) or penalty.is_group_lasso:
        return 0.0
    u = problem.groups.weights * problem.groups.norms(W)
    total = float(np.where(penalty.penalised, penalty.q.value(u), 0.0).sum())
    root = float(penalty.q.inverse(total))
    if not 0.0 < root < np.inf:
        return 0.0
    slope = float(penalty.q.slope(root))
    return penalty.block_strength * 1e-14 * total / slope if slope > 0.0 else float("inf")
