"""Accelerated proximal gradient: all blocks at once, two products with X per iteration.

In centred coordinates, b = beta - m'w with the weighted means m = X'c / sum c, the intercept and w do not see each
other in the quadratic bound of the loss, so each has a step of its own. With H = (X - 1 m')' diag(c) (X - 1 m'),

    w+ = prox_{t Omega}(w~ - t grad_w),   t_g = 1 / (theta D_g),   theta >= largest eigenvalue of D^-1/2 H D^-1/2
    beta+ = beta~ - grad_beta / (theta_0 sum c)

from the extrapolated point w~ = w + mu (w - w_previous). D_g is the mean diagonal entry of H in block g, and in blocks
without penalty the diagonal itself. theta comes from a power iteration and rises where a step shows it too small:

    L(z+) > L(z~) + <grad, z+ - z~> + theta |w+ - w~|_D^2 / 2 + theta_0 (sum c) |beta+ - beta~|^2 / 2;

losses with bounded curvature c replace the left side by its bound, which rounding cannot spoil. A point is kept only if
F falls; otherwise, and where momentum points against the step, the next step is a plain one from the last point kept.
For nonconvex q, F must fall in proportion to |w+ - w~|^2, so every limit is a fixed point of the plain step.

References: Beck, Teboulle (2009), IEEE Trans. Image Process. 18 (monotone version). O'Donoghue, Candes (2015),
"Adaptive restart for accelerated gradient schemes", Found. Comput. Math. 15. Li, Lin (2015), "Accelerated proximal
gradient methods for nonconvex programming", NeurIPS, Algorithm 1.
"""

from __future__ import annotations

import math
import time
import warnings
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sparseopt.centring import centred
from sparseopt.designs import block_curvature
from sparseopt.groups import Groups
from sparseopt.optimality import block_moves, dual_bound, dual_candidate, gradient_scale
from sparseopt.penalty import Composite
from sparseopt.problem import Problem
from sparseopt.solution import ConvergenceWarning, Solution, Start, Status
from sparseopt.solvers.starts import starting_point

__all__ = ["fista"]

Array = NDArray[np.float64]
CHECK = 10  # iterations between two computations of the accuracy
PATIENCE = 100  # checks without progress until the solver gives up
ROUNDING = 1e-14  # of F: a rise by less is not seen as one
DESCENT = 1e-3  # share of theta |step|^2 by which F must fall where q is not convex


def fista(
    problem: Problem,
    start: Start = None,
    *,
    tol: float = 1e-6,
    max_iter: int = 10_000,
) -> Solution:
    """Solve a group-sparse problem by accelerated proximal gradient steps with restarts.

    Slower than `bcd` on sparse problems, as every iteration sees all features; a second opinion that shares no code
    with it but the definitions, and a good choice where nearly all groups are active and hardly correlated.

    Parameters
    ----------
    problem : Problem
        Any loss and design; any separable penalty.
    start : Solution or (w, b), optional
        Where to start; default w = 0 and the best intercept for it, also where a convex F is larger at the start.
    tol : float
        Convex with q = L2: relative duality gap. Otherwise: stationarity, see `sparseopt.optimality.stationarity`.
    max_iter : int
        Limit of iterations.

    Returns
    -------
    Solution
        With a status that says whether `tol` was reached; a ConvergenceWarning is given if it was not. The objectives
        in its history never rise.

    Raises
    ------
    TypeError
        If the penalty is a `Composite` with q other than L2.

    Notes
    -----
    For nonconvex q the answer depends on the start. The common step is shorter than the one that a block could make
    alone; where the iteration has come to rest, blocks that still jump under their own step do so, one at a time,
    if F falls.

    Examples
    --------
    >>> import numpy as np
    >>> from sparseopt import Problem
    >>> X = 1.0 + np.random.default_rng(0).normal(size=(50, 20))
    >>> solution = fista(Problem.build(X, X[:, :2].sum(axis=1), groups=2, lam=0.1), tol=1e-10)
    >>> solution.gap < 1e-10, solution.support
    (True, array([0]))
    """
    if isinstance(problem.shrinkage, Composite) and not problem.shrinkage.is_group_lasso:
        raise TypeError(f"penalty is a Composite of {problem.shrinkage.q}, whose groups do not separate: use bcd.")
    near = centred(problem)
    solution = near.solution(_Iteration(near.problem, near.start(start)).run(tol, max_iter))
    if not solution.status.ok:
        warnings.warn(solution.status.value, ConvergenceWarning, stacklevel=2)
    return solution


class _Point(NamedTuple):
    W: Array  # (p, K)
    beta: Array  # (K,)
    z: Array  # (n, K)

    def beyond(self, last: _Point, mu: float) -> _Point:
        """self + mu (self - last)."""
        return _Point(*(here + mu * (here - there) for here, there in zip(self, last, strict=True)))


class _Iteration:
    """The state: the last point kept, the metric, and what it takes to see the accuracy."""

    def __init__(self, problem: Problem, start: Start) -> None:
        self.problem = problem
        W, b = starting_point(problem, start)
        self.slack = 0.0 if problem.is_convex else DESCENT
        self.scale = 0.0
        self._measure(W, b)
        self.x = self._point(W, b + self.means @ W)
        self.F = self._value(self.x)

    def run(self, tol: float, max_iter: int) -> Solution:
        """Iterate until `tol` or `max_iter` is reached, or nothing falls any more."""
        began = time.perf_counter()
        history: list[tuple[float, float, float]] = []
        iterations, status = 0, None
        y, momentum = self.x, 1.0
        idle, best = 0, (math.inf, math.inf)
        while status is None:
            last = self.x
            plain = y is last
            new, travelled = self._step(y, self.problem.loss.derivative(y.z))
            iterations += 1
            F = self._value(new)
            if plain or self.F + ROUNDING * abs(self.F) - self.slack * travelled >= F:
                self.x, self.F = new, F
                momentum, before = 0.5 * (1.0 + math.sqrt(1.0 + 4.0 * momentum**2)), momentum
                if self._dot(y, new, new, last) > 0.0:
                    y, momentum = new, 1.0
                else:
                    y = new.beyond(last, (before - 1.0) / momentum) if before > 1.0 else new
            else:
                y, momentum = last, 1.0
            if iterations % CHECK and iterations < max_iter and travelled > 0.0:
                continue
            accuracy = self._accuracy()
            if accuracy > tol and travelled <= self.rest * tol**2 and self._jump(tol):
                y, momentum = self.x, 1.0
                accuracy = self._accuracy()
            history.append((time.perf_counter() - began, self.F, accuracy))
            progress = self.F < best[0] - ROUNDING * abs(self.F) or accuracy < 0.9 * best[1]
            best = min(best[0], self.F), min(best[1], accuracy)
            idle = 0 if progress else idle + 1
            if accuracy <= tol:
                status = Status.CONVERGED
            elif iterations >= max_iter:
                status = Status.MAX_EPOCHS
            elif idle >= PATIENCE:
                status = Status.STALLED
        W, b = self.x.W, self._intercept(self.x)
        single = self.problem.n_outputs == 1
        w = W[:, 0].copy() if single else W
        return Solution(
            w, float(b[0]) if single else b, self.problem, status, iterations, history[-1][0], tuple(history)
        )

    # -- the metric ----------------------------------------------------------------------------------------------------

    def _measure(self, W: Array, b: Array) -> None:
        """Means m, metric D, and a first theta, from the curvature bound, or from the curvature at the start."""
        problem = self.problem
        p = problem.design.shape[1]
        self.bound = problem.loss.curvature_bound()
        c = problem.loss.curvature(problem.predictor(W, b)) if self.bound is None else self.bound
        total = float(c.sum())
        self.means = np.zeros(p)
        self.total = 0.0
        if problem.intercept and total > 0.0:
            self.total = total
            self.means = problem.design.rmatvec(c[:, None])[:, 0] / total
        single = Groups.equal(p, 1)
        diagonal = block_curvature(problem.design, single, c) - self.total * self.means**2
        groups = problem.groups
        D = np.add.reduceat(diagonal[groups.indices], groups.indptr[:-1]) / groups.sizes
        top = float(D.max())
        self.D = np.maximum(D, 1e-12 * top) if top > 0.0 else np.ones_like(D)
        free = groups.expand(~problem.penalty.penalised)
        self.by_feature = np.where(free, np.maximum(diagonal, 1e-12 * top or 1.0), groups.expand(self.D))[:, None]
        root = np.sqrt(self.by_feature)
        v = np.random.default_rng(0).standard_normal((p, 1))
        self.theta, self.theta_0 = 1.0, 1.0
        self.ceiling = math.inf if self.bound is None else float(p)  # the trace of D^-1/2 H D^-1/2
        for _ in range(20):
            z = self._product(v / root)
            v = (problem.design.rmatvec(c[:, None] * z) - self.means[:, None] * (c @ z)) / root
            size = float(np.linalg.norm(v))
            if size == 0.0:
                break
            self.theta, v = max(size, 1e-12), v / size

    def _product(self, W: Array) -> Array:
        """(X - 1 m') W."""
        return self.problem.design.matvec(W) - self.means @ W

    def _point(self, W: Array, beta: Array) -> _Point:
        return _Point(W, beta, self._product(W) + beta)

    def _intercept(self, point: _Point) -> Array:
        return point.beta - self.means @ point.W

    def _value(self, point: _Point) -> float:
        return self.problem.loss.value(point.z) + self.problem.penalty.value(point.W)

    def _dot(self, a: _Point, b: _Point, c: _Point, d: _Point) -> float:
        """<a - b, c - d> in the metric."""
        W = np.vdot(self.by_feature * (a.W - b.W), c.W - d.W)
        return float(self.theta * W + self.theta_0 * self.total * np.vdot(a.beta - b.beta, c.beta - d.beta))

    # -- a step --------------------------------------------------------------------------------------------------------

    def _step(self, y: _Point, A: Array) -> tuple[_Point, float]:
        """A prox-gradient step from y, and its squared length in the metric; theta rises until it is safe."""
        pull = A.sum(axis=0)
        gradient = self.problem.design.rmatvec(A) - np.outer(self.means, pull)
        if self.bound is None:  # the curvature may have fallen
            self.theta, self.theta_0 = 0.95 * self.theta, 0.95 * self.theta_0
        while True:
            theta = self.theta * (1.0 + 2.0 * self.slack)
            W = self.problem.penalty.prox(y.W - gradient / (theta * self.by_feature), 1.0 / (theta * self.D))
            beta = y.beta - pull / (self.theta_0 * self.total) if self.total > 0.0 else y.beta
            new = self._point(W, beta)
            along = float((self.by_feature * (W - y.W) ** 2).sum())
            across = self.total * float(((beta - y.beta) ** 2).sum())
            length = self.theta * along + self.theta_0 * across
            bend = self._bend(y, new, A)
            if bend <= length * (1.0 + 1e-9) or length == 0.0 or self.theta == self.ceiling:
                return new, length
            # Without a bound of the curvature the two parts may work together: then both must rise.
            if self.bound is None:
                factor = 2.0 if not np.isfinite(bend) else min(2.0, 1.1 * bend / length)
                self.theta, self.theta_0 = factor * self.theta, factor * self.theta_0
            else:
                rise = (bend - across) / along if along > 0.0 else math.inf
                self.theta = min(1.02 * rise, self.ceiling)

    def _bend(self, y: _Point, new: _Point, A: Array) -> float:
        """2 [L(z+) - L(z~) - <A, z+ - z~>], or a bound of it."""
        dz = new.z - y.z
        if self.bound is not None:
            return float(self.bound @ (dz * dz).sum(axis=1))
        loss = self.problem.loss
        before = loss.value(y.z)
        bend = 2.0 * (loss.value(new.z) - before - float(np.vdot(A, dz)))
        if bend > 1e-9 * abs(before):
            return bend
        return float(np.vdot(loss.derivative(new.z) - A, dz))  # the same to first order, without cancellation

    # -- accuracy ------------------------------------------------------------------------------------------------------

    @property
    def rest(self) -> float:
        """Squared length of a step, relative to tol^2, from which on the iteration counts as at rest."""
        return 1e-2 * self.scale**2 / (self.theta * float(self.D.max()))

    def _accuracy(self) -> float:
        """Relative duality gap, or stationarity where no dual is known."""
        problem = self.problem
        if problem.penalty.is_group_lasso:
            A = dual_candidate(problem, self.x.z)
            dual = dual_bound(problem, A, problem.design.rmatvec(A))
            size = max(abs(self.F), abs(dual))
            return max(self.F - dual, 0.0) / size if size > 0.0 else 0.0
        self.scale = self.scale or gradient_scale(problem) or 1.0
        moves, pull = block_moves(problem, self.x.W, self._intercept(self.x))[1:]
        return max(float(moves.max()), pull) / self.scale

    def _jump(self, tol: float) -> bool:
        """Move one block by its own prox step, the largest move that makes F fall; False if there is none."""
        if self.problem.penalty.is_group_lasso:
            return False
        target, moves, _ = block_moves(self.problem, self.x.W, self._intercept(self.x))
        for g in np.argsort(-moves)[: int((moves > tol * self.scale).sum())]:
            W = self.x.W.copy()
            rows = self.problem.groups[int(g)]
            W[rows] = target[rows]
            new = self._point(W, self.x.beta)
            F = self._value(new)
            if F < self.F - ROUNDING * abs(self.F):
                self.x, self.F = new, F
                return True
        return False
