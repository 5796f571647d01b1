"""The space spanned by chosen groups: an orthonormal basis that follows as groups enter and leave.

For the weighted least-squares problem   min_w ||Y - D^(1/2) X w||^2 / 2 + ridge / 2 ||w||^2   and a set of groups, keep

    Q = D^(1/2) X T    with   Q'Q + ridge T'T = I         T: coefficients of the basis, one row per chosen feature
    t = Q'Y,   w = T t,   residual Y - Q t                the fit on the chosen groups

A group enters by projecting its columns on the complement of the basis, twice; directions that depend on the basis are
dropped. A group g leaves by a rotation: what the span reaches through g alone are the directions of the rows T_g. With
orthonormal W whose rows span those, the basis loses W Q and the objective rises by ||W t||^2 / 2, exactly. So nothing
is ever solved afresh, and rotations do not amplify rounding.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sparseopt.designs import dense_columns
from sparseopt.problem import Problem

__all__ = ["Basis"]

Array = NDArray[np.float64]

_FREE = -1  # stands for the intercept and the always-in groups among the members
_DEPENDENT = 1e-9  # a direction is dropped if less than this share of a column's norm is left of it
_Self = TypeVar("_Self", bound="Basis")


class Basis:
    """Orthonormal basis of the chosen groups and the weighted least-squares fit on them.

    The intercept and the always-in groups (weight 0) span the first directions and never leave.

    Parameters
    ----------
    problem : Problem
        Design, groups, intercept and ridge count.
    curvature : (n,) array
        D >= 0.
    target : (n, K) array
        D^(-1/2) Y, the response that is fitted.
    """

    def __init__(self, problem: Problem, curvature: Array, target: Array) -> None:
        self.problem = problem
        self.ridge = problem.penalty.ridge
        self.root = np.sqrt(curvature)
        self.members: list[int] = []
        n, n_outputs = target.shape
        self.residual = self.root[:, None] * target
        self.basis = np.zeros((n, 0))  # Q
        self.coefs = np.zeros((0, 0))  # T
        self.rows: dict[int, NDArray[np.int64]] = {}  # of T, per member
        self.targets = np.zeros((0, n_outputs))  # t
        self.partial: set[int] = set()  # members of which a direction was dropped that another member has
        self._lengths: dict[int, Array] = {}  # norms of the columns, per member
        self._begin()
        free = problem.groups.features(np.flatnonzero(~problem.penalty.penalised))
        columns = dense_columns(problem.design, free)
        if problem.intercept:
            columns = np.column_stack([np.ones(n), columns])
        self.rows[_FREE] = np.arange(columns.shape[1])
        self.coefs = np.zeros((columns.shape[1], 0))
        if columns.shape[1]:
            self._extend(_FREE, self.root[:, None] * columns, 0.0)
        self._free = self.basis

    @property
    def rank(self) -> int:
        """Dimension of the span."""
        return self.basis.shape[1]

    @property
    def value(self) -> float:
        """min over the chosen groups of the objective."""
        w = self.coefs[self._ridged] @ self.targets
        return float(0.5 * np.vdot(self.residual, self.residual) + 0.5 * self.ridge * np.vdot(w, w))

    @property
    def chosen(self) -> NDArray[np.int64]:
        """The groups that have entered, sorted."""
        return np.array(sorted(self.members), dtype=np.int64)

    def coefficients(self) -> tuple[Array, Array]:
        """W (p, K) and b (K,) of the fit."""
        problem = self.problem
        w = self.coefs @ self.targets
        W = np.zeros((problem.design.shape[1], w.shape[1]))
        free = w[self.rows[_FREE]]
        b = free[0] if problem.intercept else np.zeros(w.shape[1])
        W[problem.groups.features(np.flatnonzero(~problem.penalty.penalised))] = free[int(problem.intercept) :]
        for g in self.members:
            W[problem.groups[g]] = w[self.rows[g]]
        return W, b

    def copy(self: _Self) -> _Self:
        """An independent twin; arrays are shared, because a change replaces them."""
        twin = object.__new__(type(self))
        twin.__dict__.update(self.__dict__)
        twin.members, twin.rows, twin.partial = list(self.members), dict(self.rows), set(self.partial)
        twin._lengths = dict(self._lengths)
        return twin

    def move(self, chosen: ArrayLike) -> None:
        """Let groups leave and enter until `chosen` are the members."""
        wanted = [int(g) for g in np.asarray(chosen, np.int64)]
        for g in [g for g in self.members if g not in wanted]:
            self.leave(g)
        for g in wanted:
            if g not in self.rows:
                self.enter(g)

    def enter(self, g: int) -> None:
        """Let group g enter."""
        d = int(self.problem.groups.sizes[g])
        self.members.append(g)
        self.rows[g] = np.arange(len(self.coefs), len(self.coefs) + d)
        self.coefs = np.vstack([self.coefs, np.zeros((d, self.rank))])
        self._extend(g, self._columns(g), self.ridge)

    def leave(self, g: int) -> None:
        """Let group g, a member, leave again."""
        W = self.reach(g)
        e = W @ self.targets
        keep = np.linalg.qr(W.T, mode="complete")[0][:, len(W) :]
        self.residual = self.residual + self.basis @ (W.T @ e)
        self._forget(W, e, keep)
        rows = self.rows.pop(g)
        self.basis, self.targets = self.basis @ keep, keep.T @ self.targets
        self.coefs = np.delete(self.coefs @ keep, rows, axis=0)
        for other, at in self.rows.items():
            if at.size and at[0] > rows[0]:
                self.rows[other] = at - len(rows)
        self.members.remove(g)
        self.partial.discard(g)
        del self._lengths[g]
        for other in sorted(self.partial):  # what depended on the group that left is missing now
            self.partial.discard(other)
            self._extend(other, self._columns(other), self.ridge)

    def reach(self, g: int) -> Array:
        """W, orthonormal rows: the directions that the basis reaches through g alone, in its coordinates.

        Where another member is `partial`, it may reach some of these, too.
        """
        T = self.coefs[self.rows[g]] * self._lengths[g][:, None]  # free of the units of the columns
        e, V = np.linalg.eigh(T @ T.T)
        if e[0] > 1e-6 * e[-1]:
            return (V.T @ T) / np.sqrt(e)[:, None]
        _, sizes, W = np.linalg.svd(T, full_matrices=False)
        out: Array = W[sizes > 1e-10 * sizes.max(initial=0.0)]
        return out

    def reaches(self, members: list[int]) -> list[Array]:
        """`reach` of several members."""
        out: dict[int, Array] = {}
        sizes = np.array([len(self.rows[g]) for g in members])
        for d in np.unique(sizes):
            alike = [g for g, size in zip(members, sizes, strict=True) if size == d]
            T = self.coefs[np.concatenate([self.rows[g] for g in alike])].reshape(len(alike), d, -1)
            T = T * np.array([self._lengths[g] for g in alike])[:, :, None]
            e, V = np.linalg.eigh(T @ T.transpose(0, 2, 1))
            with np.errstate(invalid="ignore", divide="ignore"):
                W = (V.transpose(0, 2, 1) @ T) / np.sqrt(e)[:, :, None]
            for g, sharp, found in zip(alike, e[:, 0] > 1e-6 * e[:, -1], W, strict=True):
                out[g] = found if sharp else self.reach(g)
        return [out[g] for g in members]

    def losses(self) -> Array:
        """By how much the objective would rise without each member, in the order of `members`."""
        if self.partial:
            return np.array([self._loss(g) for g in self.members])
        return np.array([0.5 * float(((W @ self.targets) ** 2).sum()) for W in self.reaches(self.members)])

    def _loss(self, g: int) -> float:
        if self.partial - {g}:
            twin = self.copy()
            twin.leave(g)
            return max(twin.value - self.value, 0.0)
        return 0.5 * float(((self.reach(g) @ self.targets) ** 2).sum())

    def _extend(self, g: int, columns: Array, ridge: float) -> None:
        """Add to the basis what `columns`, weighted and in the rows of T that belong to g, bring to the span."""
        rows, ridged = self.rows[g], self._ridged
        T = np.zeros((len(self.coefs), len(rows)))
        T[rows, np.arange(len(rows))] = 1.0
        size = np.sqrt((columns**2).sum(axis=0) + ridge)
        self._lengths[g] = np.where(size > 0.0, size, 1.0)
        scale = 1.0 / self._lengths[g]
        Q = columns * scale
        T = T * scale
        for again in (False, True):
            Y = self.basis.T @ Q
            if self.ridge:
                Y += self.ridge * self.coefs[ridged].T @ T[ridged]
            Q, T = Q - self.basis @ Y, T - self.coefs @ Y
            factors, left = self._orthogonaliser(Q, T[ridged])
            if not again and factors.shape[1] < len(rows) and self._overlaps(g, columns * scale, factors.shape[1]):
                self.partial.add(g)
            Q, T = Q @ factors, T @ factors
            if left > 0.1:  # next to nothing cancelled, so a second projection would change nothing
                break
        e = Q.T @ self.residual
        if self.ridge:
            e -= self.ridge * T[ridged].T @ (self.coefs[ridged] @ self.targets)
        self._learn(Q, T, e)
        self.residual = self.residual - Q @ e
        self.basis, self.coefs = np.hstack([self.basis, Q]), np.hstack([self.coefs, T])
        self.targets = np.vstack([self.targets, e])

    def _overlaps(self, g: int, columns: Array, rank: int) -> bool:
        """Whether directions of the group are missing because of other members, not of itself or the free ones."""
        if g == _FREE:
            return False
        for _ in range(2):
            columns = columns - self._free @ (self._free.T @ columns)
        return int(np.count_nonzero(np.linalg.svd(columns, compute_uv=False) > _DEPENDENT)) > rank

    def _orthogonaliser(self, Q: Array, T: Array) -> tuple[Array, float]:
        """F such that the columns of (Q, ridge^(1/2) T) F are orthonormal, without the directions of next to no length.

        And the smallest eigenvalue of the Gram matrix of (Q, ridge^(1/2) T), whose columns had length 1 once.

        From the Gram matrix where that is well conditioned; rounding of the first pass is mended by the second.
        """
        e, V = np.linalg.eigh(Q.T @ Q + self.ridge * (T.T @ T))
        left = float(e.min(initial=np.inf))
        if left > 1e-6:
            return V / np.sqrt(e), left
        _, s, V = np.linalg.svd(np.vstack([Q, np.sqrt(self.ridge) * T]), full_matrices=False)
        kept = s > _DEPENDENT
        return V[kept].T / s[kept], 0.0

    def _columns(self, g: int) -> Array:
        return self.root[:, None] * dense_columns(self.problem.design, self.problem.groups[g])

    @property
    def _ridged(self) -> slice:
        """Rows of T that the ridge counts: all but those of what never leaves."""
        return slice(len(self.rows.get(_FREE, ())), None)

    # What a Span adds: the same events, seen from the groups of its pool.

    def _begin(self) -> None:
        """Called before anything has entered."""

    def _learn(self, Q: Array, T: Array, e: Array) -> None:
        """Called before directions Q with coefficients T and targets e join the basis."""

    def _forget(self, W: Array, e: Array, keep: Array) -> None:
        """Called before the directions W Q with targets e leave; the others become keep'Q."""
