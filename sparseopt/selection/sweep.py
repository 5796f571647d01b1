"""Chosen groups of a least-squares problem by sweeps of its Gram matrix: the fast twin of `Span`.

    minimise over w, b    ||D^(1/2) (y - Xw - b)||^2 / 2 + ridge / 2 ||w||^2     on the chosen groups

A `Span` keeps an orthonormal basis, which takes a product with n numbers for every change and no harm from columns that
depend on each other. A `Sweep` keeps the inverse of the Gram matrix of the chosen features and its products with all
others (`sparseopt.selection.sweep_kernels`), which never look at samples once the rows X_g'DX of a group are known.
Rounding grows with the inflation of variances there, so `enter` raises `Dependent` beyond 1e7, and `fit` improves the
coefficients by the residual of the samples themselves, once, which leaves rounding only.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sparseopt.designs import block_grams, dense_columns, take_columns
from sparseopt.problem import Problem
from sparseopt.selection.basis import Basis
from sparseopt.selection.exchange_kernels import best_exchange, factor, member_losses
from sparseopt.selection.fit import Fit
from sparseopt.selection.sweep_kernels import Table, begin, enter_group, leave_group

__all__ = ["Dependent", "Sweep"]

Array = NDArray[np.float64]

_ROWS = 3e7  # numbers of Gram rows that are kept
_DRIFT = 1e-6  # largest relative correction of the coefficients by the samples


class Dependent(Exception):
    """The chosen columns depend on each other too much for a Gram matrix: a `Span` can tell."""


class Sweep:
    """Chosen groups and what each of the others would bring, for least squares.

    Parameters
    ----------
    problem : Problem
        Of quadratic loss. Its design, groups, intercept and ridge count.
    pool : (m,) integers
        The groups that may enter.
    room : int
        How many may be chosen at once.
    """

    def __init__(self, problem: Problem, pool: NDArray[np.int64], room: int) -> None:
        self.problem, self.pool = problem, pool
        loss, groups = problem.loss, problem.groups
        self._root = np.sqrt(loss.s)
        y = loss.y if loss.offset is None else loss.y - loss.offset
        self._free = Basis(problem, loss.s, y)  # intercept and always-in groups
        self._target = self._free.residual
        sizes = groups.sizes[pool]
        p, n_outputs = int(sizes.sum()), loss.n_outputs
        rank = int(np.sort(sizes)[::-1][:room].sum())
        ends = np.cumsum(sizes**2)
        self._features = groups.features(pool)
        self._always = groups.features(np.flatnonzero(~problem.penalty.penalised))
        self._design = take_columns(problem.design, self._features)
        self._known = self._dots(self._free.basis)  # of the free directions, which no group reaches
        grams = block_grams(problem.design, groups, pool, loss.s)
        scales = np.concatenate([H.diagonal() for H in grams] or [np.zeros(0)]) + problem.penalty.ridge
        table = Table(
            starts=np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
            offsets=np.concatenate([[0], ends]).astype(np.int64),
            scales=scales,
            units=np.empty(p),
            blocks=np.concatenate([H.ravel() for H in grams] or [np.zeros(0)]),
            pulls=np.ascontiguousarray(self._dots(self._target)),
            swept=np.empty((rank, p)),
            coefs=np.empty((rank, n_outputs)),
            spread=np.empty((rank, rank)),
            columns=np.zeros(rank, np.int64),
            members=np.zeros(room, np.int64),
            firsts=np.zeros(room + 1, np.int64),
            inside=np.zeros(len(pool), np.int64),
            n_members=np.zeros(1, np.int64),
            roots=np.empty(int(ends[-1]) if len(pool) else 0),
            sound=np.zeros(len(pool), np.int64),
            reach=np.empty(len(pool)),
            stretch=np.empty(len(pool)),
        )
        begin(table, self._known, problem.penalty.ridge)
        self.table = table
        self.members: list[int] = []
        self.value = 0.5 * float(np.vdot(self._target, self._target))
        self._position = np.full(len(groups), -1)
        self._position[pool] = np.arange(len(pool))
        self._rows: dict[int, Array] = {}
        self._gains: Array | None = None  # None: since the last change nobody has asked
        self._losses: Array | None = None

    @property
    def chosen(self) -> NDArray[np.int64]:
        """The groups that have entered, sorted."""
        return np.array(sorted(self.members), dtype=np.int64)

    def copy(self) -> Sweep:
        """An independent twin, but for the Gram rows that both know."""
        twin = object.__new__(Sweep)
        parts = {name: part.copy() for name, part in self.table._asdict().items()}
        twin.__dict__.update(self.__dict__, table=Table(**parts))
        twin.members = list(self.members)
        return twin

    def gains(self) -> Array:
        """By how much the objective would fall if a group entered, (len(pool),), -inf for members."""
        if self._gains is None:
            self._gains = np.empty(len(self.pool))
            factor(self.table, self._gains)
        return self._gains.copy()

    def losses(self) -> Array:
        """By how much the objective would rise without each member, in the order of `members`."""
        if self._losses is None:
            self._losses = np.asarray(member_losses(self.table))
        return self._losses.copy()

    def best_exchange(self, least: float) -> tuple[int, int] | None:
        """The groups (i, j) such that i leaves, j enters and the objective falls most; None if not by `least`."""
        self.gains()
        _, out, into, _, self._losses = best_exchange(self.table, least)
        return None if out < 0 else (self.members[out], int(self.pool[into]))

    def enter(self, g: int) -> None:
        """Let group g enter; raises `Dependent`, and changes nothing, if it depends on members."""
        fall = enter_group(self.table, self._position[g], self._row(g))
        if fall < 0.0:
            raise Dependent(g)
        self.members.append(g)
        self.value -= fall
        self._gains = self._losses = None

    def leave(self, g: int) -> None:
        """Let group g, a member, leave again."""
        self.value += leave_group(self.table, self.members.index(g))
        self.members.remove(g)
        self._gains = self._losses = None

    def move(self, chosen: ArrayLike) -> None:
        """Let groups leave and enter until `chosen` are the members."""
        wanted = [int(g) for g in np.asarray(chosen, np.int64)]
        for g in [g for g in self.members if g not in wanted]:
            self.leave(g)
        for g in wanted:
            if g not in self.members:
                self.enter(g)

    def fit(self) -> Fit:
        """The fit on the members; `Dependent` if rounding has reached the coefficients."""
        problem, table, free = self.problem, self.table, self._free
        rank = int(table.firsts[table.n_members[0]])
        features = self._features[table.columns[:rank]]
        columns = dense_columns(problem.design, features)
        w = table.coefs[:rank]
        residual, _ = self._left(columns, w)
        downhill = columns.T @ (self._root[:, None] * residual) - problem.penalty.ridge * w
        change = table.spread[:rank, :rank] @ downhill
        size = np.sqrt(table.units[table.columns[:rank], None])
        if np.abs(size * change).max(initial=0.0) > _DRIFT * np.abs(size * w).max(initial=0.0):
            raise Dependent(self.chosen)
        w = w + change
        residual, along = self._left(columns, w)
        start = free.coefs @ (free.targets + along)
        W = np.zeros((problem.design.shape[1], w.shape[1]))
        W[self._always] = start[int(problem.intercept) :]
        W[features] = w
        b = start[0] if problem.intercept else np.zeros(w.shape[1])
        value = 0.5 * float(np.vdot(residual, residual)) + 0.5 * problem.penalty.ridge * float(np.vdot(w, w))
        return Fit(problem, self.chosen, W, b, -self._root[:, None] * residual, value)

    def _left(self, columns: Array, w: Array) -> tuple[Array, Array]:
        """What coefficients w of the columns leave of the target, and what of that free directions explain."""
        residual = self._target - self._root[:, None] * (columns @ w)
        along = self._free.basis.T @ residual
        return residual - self._free.basis @ along, along

    def _row(self, g: int) -> Array:
        """X_g'D(X - what free directions explain of it), (d, p)."""
        if g not in self._rows:
            at = self._position[g]
            own = slice(self.table.starts[at], self.table.starts[at + 1])
            columns = self._root[:, None] * dense_columns(self.problem.design, self._features[own])
            row = self._dots(columns - self._free.basis @ self._known[:, own])
            if (len(self._rows) + 1) * row.size > _ROWS:
                self._rows.clear()
            self._rows[g] = row
        return self._rows[g]

    def _dots(self, R: Array) -> Array:
        return np.ascontiguousarray(self._design.rmatvec(self._root[:, None] * R).T)
