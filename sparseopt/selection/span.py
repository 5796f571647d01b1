"""What every group would bring to a basis, and every exchange of two groups, without solving anything.

To a `Basis` Q with fit residual r add, for all features of a pool of groups,

    B = Q'D^(1/2) X,      c = X'D^(1/2) r,      S_j = X_j'D X_j + ridge I - B_j'B_j

c_j is what pulls on group j, and S_j its curvature once the members have adapted. Then, exactly,

    gain of entering j              c_j' S_j^+ c_j / 2
    the same after g has left       with c_j + E_j'e in place of c_j and S_j + E_j'E_j in place of S_j,

where E = W B, e = W t, and the rows of W are the directions that only g reaches. All |members| x |pool| exchanges cost
products of size (rank, p) and Cholesky factorisations of size |j|.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sparseopt.designs import block_grams, take_columns
from sparseopt.jit import kernel
from sparseopt.problem import Problem
from sparseopt.selection.basis import Basis

__all__ = ["Span"]

Array = NDArray[np.float64]


class Span(Basis):
    """A `Basis` that knows what every group of a pool would add to it.

    Parameters
    ----------
    problem, curvature, target
        See `Basis`.
    pool : (m,) integers, optional
        The groups that may enter; default all of positive weight.
    """

    def __init__(self, problem: Problem, curvature: Array, target: Array, pool: ArrayLike | None = None) -> None:
        counted = np.flatnonzero(problem.penalty.penalised)
        self.pool: NDArray[np.int64] = counted if pool is None else np.asarray(pool, np.int64)
        self._waiting: list[tuple[Array, Array, Array]] | None = None
        super().__init__(problem, curvature, target)

    def copy(self) -> Span:
        twin = super().copy()
        twin.blocks = self.blocks.copy()  # the one array that is changed in place
        return twin

    def gains(self, without: int | None = None) -> Array:
        """By how much the objective would fall if a group entered, (len(pool),), -inf for members.

        With `without`, a member: after that one has left.
        """
        if without is not None and self.partial - {without}:
            twin = self.copy()
            twin.leave(without)
            out = twin.gains()
            out[self._position[without]] = -np.inf
            return out
        W = np.zeros((0, self.rank)) if without is None else self.reach(without)
        return self._gains_without(W, W @ self.targets)

    def exchanges(self) -> Array:
        """By how much every exchange lowers the objective, (members, pool): what one brings less what one takes."""
        table = np.empty((len(self.members), len(self.pool)))
        shared = [g for g in self.members if self.partial - {g}]
        plain = [g for g in self.members if not self.partial - {g}]
        if plain:  # one product for all of them
            reaches = self.reaches(plain)
            ends = np.cumsum([0, *(len(W) for W in reaches)])
            W = np.vstack(reaches)
            e = W @ self.targets
            rows = np.array([self.members.index(g) for g in plain])
            E = W @ self.products
            _all_gains(
                self.pulls, self.blocks, self._offsets, self._starts, E, e, ends, self._norms, rows, table
            )  # fmt: skip
        for g in shared:
            table[self.members.index(g)] = self.gains(without=g) - self._loss(g)
        table[:, self._position[self.members]] = -np.inf
        return table

    def best_exchange(self, least: float) -> tuple[int, int] | None:
        """The groups (i, j) such that i leaves, j enters and the objective falls most; None if not by `least`."""
        table = self.exchanges()
        if not table.size:
            return None
        i, j = np.unravel_index(int(np.argmax(table)), table.shape)
        return (self.members[int(i)], int(self.pool[int(j)])) if table[i, j] > least else None

    def _gains_without(self, W: Array, e: Array) -> Array:
        out = np.empty(len(self.pool))
        _gains(self.pulls, self.blocks, self._offsets, self._starts, W @ self.products, e, self._norms, out)
        out[self._position[self.members]] = -np.inf
        return out

    def _begin(self) -> None:
        groups = self.problem.groups
        features = groups.features(self.pool)
        self._starts = np.concatenate([[0], np.cumsum(groups.sizes[self.pool])]).astype(np.int64)
        self._position = np.full(len(groups), -1)
        self._position[self.pool] = np.arange(len(self.pool))
        self._design = take_columns(self.problem.design, features)
        grams = block_grams(self.problem.design, groups, self.pool, self.root**2)
        self._offsets = np.concatenate([[0], np.cumsum([H.size for H in grams])]).astype(np.int64)
        self._norms = np.concatenate([H.diagonal() for H in grams]) + self.ridge if grams else np.zeros(0)
        self.blocks = np.concatenate([H.ravel() for H in grams] or [np.zeros(0)])  # S
        _add_diagonal(self.blocks, self._offsets, self._starts, self.ridge)
        self.products = np.zeros((0, len(features)))  # B
        self.pulls = self._dots(self.residual)  # c

    def move(self, chosen: ArrayLike) -> None:
        for g in np.setdiff1d(self.members, chosen):
            self.leave(int(g))
        self._waiting = []
        super().move(chosen)
        waiting, self._waiting = self._waiting, None
        if waiting:  # one product for all that entered
            T = np.hstack([np.pad(t, ((0, len(self.coefs) - len(t)), (0, 0))) for _, t, _ in waiting])
            self._learn(np.hstack([q for q, _, _ in waiting]), T, np.vstack([e for _, _, e in waiting]))

    def _learn(self, Q: Array, T: Array, e: Array) -> None:
        if self._waiting is not None:
            self._waiting.append((Q, T, e))
            return
        new = self._dots(Q).T
        if self.ridge:
            for g in self.members:
                lo = self._starts[self._position[g]]
                new[:, lo : lo + len(self.rows[g])] += self.ridge * T[self.rows[g]].T
        self._shift(new, e, -1.0)
        self.products = np.vstack([self.products, new])

    def _forget(self, W: Array, e: Array, keep: Array) -> None:
        self._shift(W @ self.products, e, 1.0)
        self.products = keep.T @ self.products

    def _shift(self, E: Array, e: Array, sign: float) -> None:
        self.pulls = self.pulls + sign * (E.T @ e)
        _add_blocks(self.blocks, self._offsets, self._starts, np.ascontiguousarray(E), sign)

    def _dots(self, R: Array) -> Array:
        return self._design.rmatvec(self.root[:, None] * R)


@kernel
def _add_blocks(blocks, offsets, starts, E, sign):
    """S_g += sign E_g'E_g for every group."""
    for g in range(len(starts) - 1):
        lo, d = starts[g], starts[g + 1] - starts[g]
        for r in range(E.shape[0]):
            for i in range(d):
                a = sign * E[r, lo + i]
                at = offsets[g] + i * d
                for j in range(d):
                    blocks[at + j] += a * E[r, lo + j]


@kernel
def _add_diagonal(blocks, offsets, starts, ridge):
    for g in range(len(starts) - 1):
        d = starts[g + 1] - starts[g]
        for i in range(d):
            blocks[offsets[g] + i * d + i] += ridge


@kernel
def _all_gains(c, blocks, offsets, starts, E, e, ends, norms, rows, table):
    """table[rows[i]] = gains after member i, whose reach has the rows from ends[i] of E and e, left, less its loss."""
    for i in range(len(rows)):
        lo, hi = ends[i], ends[i + 1]
        loss = 0.0
        for r in range(lo, hi):
            for k in range(e.shape[1]):
                loss += 0.5 * e[r, k] ** 2
        out = table[rows[i]]
        _gains(c, blocks, offsets, starts, E[lo:hi], e[lo:hi], norms, out)
        out -= loss


@kernel
def _gains(c, blocks, offsets, starts, E, e, norms, out):
    """c_g' S_g^+ c_g / 2 with c_g + E_g'e and S_g + E_g'E_g, by Cholesky; dependent directions are left out."""
    n_outputs = c.shape[1]
    widest = 0
    for g in range(len(starts) - 1):
        widest = max(widest, starts[g + 1] - starts[g])
    M = np.empty((widest, widest))
    v = np.empty(widest)
    for g in range(len(starts) - 1):
        lo, d = starts[g], starts[g + 1] - starts[g]
        for i in range(d):
            for j in range(i + 1):
                M[i, j] = blocks[offsets[g] + i * d + j]
                for r in range(E.shape[0]):
                    M[i, j] += E[r, lo + i] * E[r, lo + j]
        for j in range(d):
            pivot = M[j, j]
            for m in range(j):
                pivot -= M[j, m] * M[j, m]
            # 1e-12: what is left of a column whose square norm lost twelve digits is rounding
            M[j, j] = np.sqrt(pivot) if pivot > 1e-12 * norms[lo + j] else 0.0
            for i in range(j + 1, d):
                value = M[i, j]
                for m in range(j):
                    value -= M[i, m] * M[j, m]
                M[i, j] = value / M[j, j] if M[j, j] > 0.0 else 0.0
        total = 0.0
        for k in range(n_outputs):
            for i in range(d):
                value = c[lo + i, k]
                for r in range(E.shape[0]):
                    value += E[r, lo + i] * e[r, k]
                for m in range(i):
                    value -= M[i, m] * v[m]
                v[i] = value / M[i, i] if M[i, i] > 0.0 else 0.0
                total += v[i] * v[i]
        out[g] = 0.5 * total
