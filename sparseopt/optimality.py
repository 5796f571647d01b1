"""How far a point is from optimal, from the problem and the coefficients alone.

Convex, q = L2: every A with 1'A = 0 (if b is free) and X_0'A = 0 (unpenalised features) bounds the optimum from below,

    F* >= D(A) = -L*(A) - Omega*(-X'A),
    Omega*(v) = sum_g (||soft(v_g, mu)|| - lam_g)_+^2 / (2 ridge)     (ridge = 0: 0 if all ||soft(v_g, mu)|| <= lam_g)

with lam_g = lam (1 - l1_ratio) omega_g and mu = lam l1_ratio. A good A is dL/dz at the point, made feasible: projected
on the equalities in the metric of the curvature, then scaled by the largest c <= 1 that satisfies the inequalities.

Any q: with L_g the curvature of the loss in block g, a prox-gradient step in each block must not move the point,

    r = max_g L_g || w_g - prox_{Omega / L_g}(w_g - grad_g / L_g) ||  /  max_g ||grad_g L(0)||.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sparseopt.designs import Dense, block_curvature, dense_columns, fits, residual
from sparseopt.losses import Squares
from sparseopt.problem import Problem

__all__ = [
    "DualityGap",
    "block_moves",
    "dual_bound",
    "dual_candidate",
    "duality_gap",
    "free_columns",
    "gradient_scale",
    "positive",
    "prox_moves",
    "soft",
    "stationarity",
    "step_bounds",
]

Array = NDArray[np.float64]


@dataclass(frozen=True)
class DualityGap:
    """Primal and dual value: the optimum lies between them.

    Parameters
    ----------
    primal : float
        F(w, b).
    dual : float
        A lower bound of F over all w and b.
    """

    primal: float
    dual: float

    @property
    def absolute(self) -> float:
        """primal - dual >= 0; rounding below zero counts as zero."""
        return max(self.primal - self.dual, 0.0)

    @property
    def relative(self) -> float:
        """The gap over the larger of |primal| and |dual|; 0 if both are 0."""
        scale = max(abs(self.primal), abs(self.dual))
        return self.absolute / scale if scale > 0.0 else 0.0


def duality_gap(problem: Problem, w: ArrayLike, b: ArrayLike = 0.0) -> DualityGap:
    """Bounds of the optimum of a convex problem at a point.

    Parameters
    ----------
    problem : Problem
        With q = L2; l1 term, ridge, intercept and unpenalised groups are all covered.
    w : (p,) or (p, K) array
        Coefficients, any.
    b : float or (K,) array
        Intercept.

    Raises
    ------
    ValueError
        If the penalty is not a (sparse) group lasso: then no dual is known, see `stationarity`.

    Notes
    -----
    The bounds hold up to rounding, about 1e-16 |F| times the number of samples. They prove how close the objective is
    to the optimum, not how close w is to a minimiser.

    References
    ----------
    Ndiaye, Fercoq, Gramfort, Salmon (2017), "Gap safe screening rules for sparsity enforcing penalties", JMLR 18.

    Examples
    --------
    >>> import numpy as np
    >>> problem = Problem.build(np.eye(2), [2.0, 0.0], lam=0.5, intercept=False)
    >>> duality_gap(problem, [1.0, 0.0])
    DualityGap(primal=0.75, dual=0.75)
    >>> duality_gap(problem, [0.0, 0.0]).relative
    0.25
    """
    if not problem.penalty.is_group_lasso:
        raise ValueError(
            f"penalty has q = {getattr(problem.penalty, 'q', None)}, for which no dual is known: see stationarity."
        )
    z, A, V = _look(problem, w, b)
    return DualityGap(problem.loss.value(z) + problem.penalty.value(w), dual_bound(problem, A, V))


def dual_candidate(problem: Problem, z: Array) -> Array:
    """dL/dz at z, (n, K), projected so that the free directions see no gradient: 1'A = 0 and X_0'A = 0."""
    A = problem.loss.derivative(z)
    U = free_columns(problem)
    return A if U is None else problem.loss.project(A, z, U)


def dual_bound(problem: Problem, A: Array, V: Array, norms: Array | None = None) -> float:
    """D(c A) for the best known c <= 1; A must satisfy the equalities.

    Parameters
    ----------
    problem : Problem
        With q = L2.
    A : (n, K) array
        See `dual_candidate`.
    V : (p, K) array
        X'A.
    norms : (n_groups,) array, optional
        ||soft(V_g, mu)||, if they are known. V and norms need not be exact for groups where an upper bound given in
        `norms` stays below lam_g.
    """
    penalty = problem.penalty
    strength, mu = penalty.block_strength * problem.groups.weights, penalty.entry_strength
    if norms is None:
        norms = problem.groups.norms(soft(V, mu))
    over = np.flatnonzero(penalty.penalised & (norms > strength))
    c = problem.loss.dual_scale(A)
    conjugate = 0.0
    if penalty.ridge > 0.0:
        excess = [float(np.linalg.norm(soft(c * V[problem.groups[int(g)]], mu))) - strength[g] for g in over]
        conjugate = sum(max(x, 0.0) ** 2 for x in excess) / (2.0 * penalty.ridge)
    elif over.size and penalty.lam > 0.0:  # lam = 0: all features are free directions, and A is orthogonal to them
        c = min(c, float((strength[over] / norms[over]).min()) if mu == 0.0 else _scale(problem, V, over))
    return -problem.loss.conjugate(c * A) - conjugate


def stationarity(problem: Problem, w: ArrayLike, b: ArrayLike = 0.0) -> float:
    """r, the largest scaled move that a prox-gradient step makes in any block (see the top of this file).

    0 at a minimiser of a convex problem; 0 for any q means that no step of length 1 / L_g in one block, jumps to and
    from zero included, lowers the majorised objective. Unpenalised blocks and the intercept enter by their gradients.

    Parameters
    ----------
    problem : Problem
        Any loss and any penalty, `Composite` included.
    w, b : arrays
        Coefficients and intercept.

    Notes
    -----
    Does not prove a minimum: saddle points and poor local minima of a nonconvex problem have r = 0 as well.

    Examples
    --------
    >>> import numpy as np
    >>> from sparseopt import L0
    >>> problem = Problem.build(np.eye(2), [2.0, 0.0], penalty=L0(), lam=0.5, intercept=False)
    >>> stationarity(problem, [2.0, 0.0]), stationarity(problem, [0.0, 0.0])
    (0.0, 1.0)
    """
    _, moves, pull = block_moves(problem, w, b)
    move = max(float(moves.max()), pull)
    scale = gradient_scale(problem)
    return move / scale if scale > 0.0 else move


def block_moves(problem: Problem, w: ArrayLike, b: ArrayLike = 0.0) -> tuple[Array, Array, float]:
    """Where a prox step of length 1 / L_g takes each block, the others fixed, and how far.

    Returns
    -------
    target : (p, K) array
        prox_{Omega / L_g}(w_g - grad_g / L_g), block by block.
    moves : (n_groups,) array
        L_g ||w_g - target_g||.
    pull : float
        Norm of the gradient in b, 0 without intercept.
    """
    W = problem.matrix(w)
    z = problem.predictor(W, b)
    A = problem.loss.derivative(z)
    target, moves = prox_moves(problem, W, problem.design.rmatvec(A), step_bounds(problem, problem.loss.curvature(z)))
    pull = float(np.linalg.norm(A.sum(axis=0))) if problem.intercept else 0.0
    return target, moves, pull


def prox_moves(problem: Problem, W: Array, gradient: Array, L: Array) -> tuple[Array, Array]:
    """Target and moves of `block_moves` for a given gradient (p, K) and curvatures L_g."""
    by_feature = problem.groups.expand(L)[:, None]
    target = problem.penalty.block_prox(W - gradient / by_feature, 1.0 / L, W)
    return target, problem.groups.norms(by_feature * (W - target))


def step_bounds(problem: Problem, c: Array) -> Array:
    """L_g, (n_groups,): curvature of the loss in each block, from that in z, c (n,); positive also for zero blocks."""
    return positive(block_curvature(problem.design, problem.groups, c))


def positive(L: Array) -> Array:
    """Curvatures L of all groups, those of zero blocks a little above zero."""
    return np.maximum(L, 1e-12 * L.max(initial=0.0) + 1e-300)


def gradient_scale(problem: Problem) -> float:
    """max_g ||grad_g L|| at w = 0 and the best intercept: the unit in which `stationarity` is measured."""
    return float(problem.groups.norms(problem.null_gradient).max())


def soft(v: Array, mu: float) -> Array:
    """sign(v) max(|v| - mu, 0)."""
    return v if mu == 0.0 else np.sign(v) * np.maximum(np.abs(v) - mu, 0.0)


def free_columns(problem: Problem) -> Array | None:
    """Columns that the penalty does not see, (n, m): the constant one and the features of groups of weight 0."""
    penalty = problem.penalty
    free = ~penalty.penalised
    if penalty.is_group_lasso and penalty.lam == 0.0 and penalty.ridge == 0.0:
        free = np.ones_like(free)
    features = np.flatnonzero(problem.groups.expand(free))
    n = problem.design.shape[0]
    if not features.size:
        return np.ones((n, 1)) if problem.intercept else None
    columns = dense_columns(problem.design, features)
    return np.column_stack([np.ones(n), columns]) if problem.intercept else columns


def _look(problem: Problem, w: ArrayLike, b: ArrayLike) -> tuple[Array, Array, Array]:
    """z = Xw + 1 b', the `dual_candidate` A there, and X'A."""
    design, loss = problem.design, problem.loss
    U = free_columns(problem)
    only_constants = U is None or (problem.intercept and U.shape[1] == 1)
    least_squares = isinstance(loss, Squares) and loss.n_outputs == 1
    if least_squares and only_constants and isinstance(design, Dense) and fits(design.columns):
        s = loss.s
        y = (loss.y if loss.offset is None else loss.y - loss.offset)[:, 0]
        r, V, totals = residual(design.columns, s, problem.matrix(w)[:, 0], y - np.ravel(b), sums=problem.intercept)
        z, A, V = (r + y)[:, None], (s * r)[:, None], V[:, None]
        if U is not None:  # A loses a multiple of s
            centred = loss.project(A, z, U)
            A, V = centred, V - (A - centred).sum() / s.sum() * totals[:, None]
        return z, A, V
    z = problem.predictor(w, b)
    A = dual_candidate(problem, z)
    return z, A, design.rmatvec(A)


def _scale(problem: Problem, V: Array, over: NDArray[np.int64]) -> float:
    """The largest c with ||soft(c V_g, mu)|| <= lam_g for the groups `over`, which exceed it at c = 1."""
    mu = problem.penalty.entry_strength
    blocks = [V[problem.groups[int(g)]] for g in over]
    strength = problem.penalty.block_strength * problem.groups.weights[over]
    low, high = 0.0, 1.0
    for _ in range(60):
        c = 0.5 * (low + high)
        inside = all(np.linalg.norm(soft(c * v, mu)) <= bound for v, bound in zip(blocks, strength, strict=True))
        low, high = (c, high) if inside else (low, c)
    return low
