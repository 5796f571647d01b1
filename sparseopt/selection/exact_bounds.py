"""Lower bounds for the best choice of at most k groups, from dual points alone.

    min over w, b, at most k groups    L(Xw + b) + rho/2 ||w||^2,      groups in I in, groups in O out, ||w_g|| <= M_g

For every A (n, K) that is orthogonal to the intercept and the always-in columns, V = X'A,

    minimum >= -L*(A) - sum_{g in I} h_g(||V_g||) - (sum of the k - |I| largest h_g(||V_g||) over the other g not in O)
    h_g(v)  = max_{0 <= u <= M_g} v u - rho/2 u^2                   with rho > 0 also for M_g = inf: v^2 / (2 rho).

Leaves (I, O) that cover all choices, with a dual point each, prove the smallest of their bounds. With rho = 0 the dual
point of a leaf is the gradient at the fit on all groups that are not out, so that V vanishes there up to rounding and
M_g, finite, hardly matters. M_g holds every w that fits at least as well as the best choice known, or, where groups
depend on always-in columns, one w of those that predict the same.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from sparseopt.cardinality import AtMost
from sparseopt.designs import dense_columns
from sparseopt.problem import Problem
from sparseopt.solution import BoundProof

__all__ = ["Leaf", "SubsetParts", "blocks", "proof_of"]

Array = NDArray[np.float64]
State = NDArray[np.int8]  # per counted group: 1 in, -1 out, 0 open

MAX_LEAVES = 5000  # of a proof
MAX_NUMBERS = 2e7  # in its dual points
_RANK = 1e-10


@dataclass(frozen=True, eq=False)
class Leaf:
    """A part of all choices with its dual point: states of the counted groups and A (n, K)."""

    state: State
    A: Array


@dataclass(frozen=True, eq=False)
class SubsetParts:
    """A subset problem taken apart: dense columns of the groups that count, and of what is always in.

    Parameters
    ----------
    problem : Problem
        With an `AtMost`.
    """

    problem: Problem

    @cached_property
    def ids(self) -> NDArray[np.int64]:
        """Numbers of the groups that count, (G,)."""
        return np.flatnonzero(self.problem.penalty.penalised)

    @cached_property
    def k(self) -> int:
        """How many of them may be in."""
        penalty = self.problem.penalty
        assert isinstance(penalty, AtMost)
        return min(penalty.k, len(self.ids))

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """Where each group begins in `X`, (G + 1,)."""
        return np.concatenate([[0], np.cumsum(self.problem.groups.sizes[self.ids])]).astype(np.int64)

    @cached_property
    def X(self) -> Array:
        """Columns of the groups that count, group after group, (n, P)."""
        return np.asarray(dense_columns(self.problem.design, self.problem.groups.features(self.ids)), np.float64)

    @cached_property
    def U(self) -> Array:
        """The constant column, if b is free, and those of the always-in groups, (n, m)."""
        problem = self.problem
        always = problem.groups.features(np.flatnonzero(~problem.penalty.penalised))
        columns = np.asarray(dense_columns(problem.design, always), np.float64)
        return np.column_stack([np.ones(len(columns)), columns]) if problem.intercept else columns

    def columns(self, groups: NDArray[np.int64]) -> NDArray[np.int64]:
        """Columns of `X` that belong to some of the counted groups, numbered 0, ..., G - 1."""
        parts = [np.arange(self.starts[g], self.starts[g + 1]) for g in groups]
        return np.concatenate(parts) if parts else np.zeros(0, np.int64)

    def allowed(self, state: State) -> NDArray[np.int64]:
        """The groups whose fit bounds a leaf: those in if there are k of them, otherwise all that are not out."""
        return np.flatnonzero(state > 0) if np.count_nonzero(state > 0) >= self.k else np.flatnonzero(state >= 0)

    def feasible(self, A: Array, z: Array, groups: NDArray[np.int64] | None = None) -> Array:
        """dL/dz at z, made orthogonal to the always-in columns (and to those of `groups`), inside the domain of L*."""
        loss = self.problem.loss
        if not np.isfinite(A).all():  # of a refit that ran off to infinity
            return np.zeros_like(A)
        U = self.U if groups is None else np.hstack([self.U, self.X[:, self.columns(groups)]])
        if U.shape[1]:
            A = loss.project(A, z, U)
        return A * max(loss.dual_scale(A), 0.0)

    def norms(self, A: Array) -> Array:
        """||X_g'A|| of the counted groups, (G,)."""
        V = self.X.T @ A
        return np.sqrt(np.add.reduceat((V**2).sum(axis=1), self.starts[:-1]))

    def bound(self, A: Array, state: State, radius: Array, v: Array | None = None) -> float:
        """The bound of the top of this file for the leaf `state`; `radius` (G,) of the counted groups."""
        m = np.count_nonzero(state > 0)
        if m > self.k:
            return float("inf")
        h = _support(self.norms(A) if v is None else v, radius, self.problem.penalty.ridge)
        free = np.sort(h[state == 0])[::-1]
        value = -self.problem.loss.conjugate(A) - h[state > 0].sum() - free[: self.k - m].sum()
        return float(value) if value == value else -float("inf")

    def radius(self, upper: float, norms: Array) -> Array:
        """M_g of the counted groups, (G,); inf with a ridge. At least `norms`, those of the best choice known.

        Where no ball is known to hold all w with F <= upper (columns that depend on each other across groups, or a
        minimum at infinity), a thousand times the largest of `norms`: the claim is then about w no longer than that.
        """
        if self.problem.penalty.ridge > 0.0:
            return np.full(len(self.ids), np.inf)
        found = self.level_radius(upper)
        return np.maximum(np.where(np.isfinite(found), found, 1e3 * max(norms.max(initial=0.0), 1.0)), norms)

    def level_radius(self, upper: float) -> Array:
        """max ||w_g|| over all w with F <= upper, an upper bound of it per counted group, (G,); inf where unknown.

        With A_0 the dual point of the fit on all groups and B with X'B = e_j: every w with F(w) <= upper has
        t w_j <= upper + L*(A_0 + t B), for every t > 0. For least squares the best t gives the ellipsoid of these w.
        """
        from sparseopt.selection.fit import refit

        problem, loss = self.problem, self.problem.loss
        unknown = np.full(len(self.ids), np.inf)
        if loss.sums_to_zero or not len(self.ids):
            return unknown
        full = refit(replace(problem, penalty=AtMost(problem.groups, len(self.ids))), self.ids)
        z = problem.predictor(full.W, full.b)
        c = loss.curvature(z)
        Z, sizes, starts = blocks(self.X, self.U, c, self.starts, orthonormal=True)
        H = Z.T @ Z
        e = np.linalg.eigvalsh(H) if len(H) else np.ones(1)
        if not len(H) or e[0] <= 1e-9 * e[-1]:
            return unknown
        inverse = np.linalg.inv(H)
        A = self.feasible(full.A, z, np.arange(len(self.ids)))
        spare = max(upper + loss.conjugate(A), 0.0) * (1.0 + 1e-9)
        spare += 1e-12 * (abs(upper) + float(np.abs(A * loss.y).sum()))  # rounding, also that of a verifier
        W = inverse @ (Z.T @ (np.sqrt(c)[:, None] * z))
        out = np.zeros(len(self.ids))
        steps = np.zeros(0) if loss.is_quadratic else np.logspace(-3.0, 3.0, 31)
        B = np.sqrt(c)[:, None] * (Z @ inverse)
        for g in range(len(self.ids)):
            own = slice(starts[g], starts[g + 1])
            if starts[g] == starts[g + 1]:
                continue
            if loss.is_quadratic:
                reach = np.linalg.norm(W[own]) + np.sqrt(2.0 * spare * np.linalg.eigvalsh(inverse[own, own])[-1])
            else:
                reach = np.linalg.norm(
                    [
                        self._reach(A, B[:, [j]], spare, inverse[j, j], upper, steps)
                        for j in range(starts[g], starts[g + 1])
                    ]
                )
            out[g] = reach / sizes[g]
        return out * (1.0 + 1e-6)

    def _reach(self, A: Array, B: Array, spare: float, variance: float, upper: float, steps: Array) -> float:
        """A bound of |w_j| over outputs, from t w_j <= upper + L*(A + t B)."""
        loss = self.problem.loss
        unit = np.sqrt(2.0 * max(spare, 1e-12) / variance)
        total = 0.0
        for k in range(A.shape[1]):
            push = np.zeros_like(A)
            push[:, [k]] = B
            sides = [0.0]
            for sign in (1.0, -1.0):
                bounds = [(upper + loss.conjugate(A + sign * t * unit * push)) / (t * unit) for t in steps]
                sides.append(float(min(bounds)))
            total += max(sides) ** 2
        return float(np.sqrt(total))


def _support(v: Array, radius: Array, ridge: float) -> Array:
    """h_g(v_g), see the top of this file."""
    if ridge == 0.0:
        return np.where(v > 0.0, v * np.where(v > 0.0, radius, 0.0), 0.0)
    u = np.minimum(v / ridge, radius)
    return v * u - 0.5 * ridge * u * u


def blocks(
    X: Array, U: Array, c: Array, starts: NDArray[np.int64], *, orthonormal: bool
) -> tuple[Array, Array, NDArray[np.int64]]:
    """Columns sqrt(c) X without what `U` explains, and, if asked for, an orthonormal basis Z_g of each group of them.

    Returns
    -------
    Z : (n, P') array
        Groups one after the other.
    sizes : (G,) array
        The smallest positive singular value of each group; 1 where not orthonormalised.
    starts : (G + 1,) array
        Where each group begins in Z.
    """
    root = np.sqrt(c)[:, None]
    Y = root * X
    if U.shape[1]:
        Q, s, _ = np.linalg.svd(root * U, full_matrices=False)
        Q = Q[:, s > 1e-12 * s.max(initial=0.0)]
        for _ in range(2):
            Y = Y - Q @ (Q.T @ Y)
    G = len(starts) - 1
    if not orthonormal:
        return Y, np.ones(G), starts
    parts: list[Array] = []
    sizes = np.ones(G)
    for g in range(G):
        own = slice(starts[g], starts[g + 1])
        Q, s, _ = np.linalg.svd(Y[:, own], full_matrices=False)
        kept = s > _RANK * max(float(np.linalg.norm(root * X[:, own])), 1e-300)
        parts.append(Q[:, kept])
        if kept.any():
            sizes[g] = s[kept].min()
    ends = np.concatenate([[0], np.cumsum([part.shape[1] for part in parts])]).astype(np.int64)
    return np.hstack(parts) if parts else Y, sizes, ends


def proof_of(parts: SubsetParts, leaves: list[Leaf], upper: float, norms: Array) -> tuple[float, BoundProof]:
    """The bound that leaves prove, and the proof; `upper` and `norms` (G,) of the best choice known."""
    radius = parts.radius(upper, norms)
    bounds = []
    zero = np.zeros_like(leaves[0].A)  # proves that losses are >= 0, more than a refit that runs off to infinity
    for i, leaf in enumerate(leaves):
        bounds.append(max((parts.bound(A, leaf.state, radius), at == 0) for at, A in enumerate((leaf.A, zero))))
        if not bounds[-1][1]:
            leaves[i] = Leaf(leaf.state, zero)
    everywhere = np.full(len(parts.problem.groups), np.inf)
    everywhere[parts.ids] = radius
    proof = BoundProof(
        np.stack([leaf.A for leaf in leaves]),
        tuple(tuple(int(g) for g in parts.ids[leaf.state > 0]) for leaf in leaves),
        tuple(tuple(int(g) for g in parts.ids[leaf.state < 0]) for leaf in leaves),
        everywhere,
    )
    return min(bound for bound, _ in bounds), proof
