"""Block coordinate descent on a design that is read in passes: working sets that are fetched before they are used.

`BlockDescent` moves over a working set only, and asks for the other groups' gradients in its check. So it runs as it is
on a problem that holds the columns of the working sets in memory (see `held`), with these differences:

    before a sweep     columns of the set that are not held are fetched, all in one pass; and with them those of the
                       groups that come next by their gradients, so that a path fetches a few times only
    the check          the groups that are held are checked first, until they are as accurate as asked; only then the
                       gradient of all groups takes one pass, with their curvatures where jumps from zero depend on
                       these. For `Span` it takes none, and the curvatures one in all

Rows of length n are held, and for losses other than squares (or n < p) the columns of the working set, n |S| numbers;
for squares p |S|.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparseopt.designs import RowBlocks, block_curvature, gradient_and_curvature
from sparseopt.losses import Squares
from sparseopt.optimality import positive, soft, step_bounds
from sparseopt.penalty import Penalty
from sparseopt.problem import Problem
from sparseopt.solution import Solution, Start, given_point
from sparseopt.solvers.descent import FIRST_GUESS, BlockDescent, Progress
from sparseopt.solvers.gradients import Gradients
from sparseopt.solvers.held import Columns, Span
from sparseopt.solvers.iterate import Iterate

__all__ = ["StreamedDescent", "descent_for"]

Array = NDArray[np.float64]
AT_LEAST = 64  # features fetched by a pass, if there is room: few cost as much as these


def descent_for(problem: Problem, start: Start = None, n_lams: int = 1) -> BlockDescent:
    """The block coordinate descent that fits the design; see `BlockDescent`."""
    kind = StreamedDescent if isinstance(problem.design, RowBlocks) else BlockDescent
    return kind(problem, start, n_lams)


class StreamedDescent(BlockDescent):
    """`BlockDescent` for a problem whose design is `RowBlocks`."""

    def __init__(self, problem: Problem, start: Start = None, n_lams: int = 1) -> None:
        self.whole = problem
        loss, groups = problem.loss, problem.groups
        b = loss.null_intercept() if problem.intercept else np.zeros(problem.n_outputs)
        A = loss.derivative(np.broadcast_to(b, loss.y.shape).copy())
        self.store: Columns | Span
        if isinstance(loss, Squares) and problem.design.shape[1] < problem.design.shape[0]:
            self.store = Span(problem)
            V = -self.store.product
        else:
            self.store = Columns(problem)
            V = problem.design.rmatvec(A)
        self.null_norms = groups.norms(V)
        wanted = ~problem.shrinkage.penalised
        if start is not None:
            wanted |= groups.norms(problem.matrix(given_point(start)[0])) > 0.0
        rank = np.argsort(-_scores(self.null_norms, groups.weights))
        wanted[rank[:FIRST_GUESS]] = True
        point = _Fetching(self.store, rank)
        point.fetch(np.flatnonzero(wanted), np.flatnonzero(wanted))
        super().__init__(self.store.problem, start, n_lams)
        point.begin((self.point.W, self.point.b))
        self.point: _Fetching = point
        if isinstance(self.store, Columns):
            self.gradients: Any = _Passes(self.store, problem, A, V)
        self._tol = 0.0
        self._L: tuple[Array, Array] | None = None  # the curvature of the loss, and those of the groups at it
        self._of_all = False  # whether the curvatures last computed are those of all groups
        self._guessing = False  # whether those of another point will do

    def advance(self, penalty: Penalty, tol: float = 1e-6, max_epochs: int = 10_000) -> Progress:
        """As `BlockDescent.advance`; accuracies in the history, all but the last, may be those of the groups held."""
        self._tol = tol
        done = super().advance(penalty, tol, max_epochs)
        if isinstance(self.store, Span) or self.gradients.complete:
            return done
        accuracy, _ = self._check_all(self.point.is_touched)
        seconds, objective, _ = done.history[-1]
        return done._replace(history=(*done.history[:-1], (seconds, objective, accuracy)))

    def solve(self, penalty: Penalty, tol: float = 1e-6, max_epochs: int = 10_000) -> Solution:
        """The solution for one penalty, from where the last one ended."""
        found = super().solve(penalty, tol, max_epochs)
        b = self.intercept_of(*self.point.nonzero())
        return replace(
            found, problem=replace(self.whole, penalty=penalty), intercept=float(b[0]) if len(b) == 1 else b.copy()
        )

    def intercept_of(self, features: NDArray[np.int64], values: Array) -> Array:
        """b, (K,), at a point given by its nonzero coefficients, which is the present one."""
        return self.store.intercept(features, values) if isinstance(self.store, Span) else self.point.b

    @cached_property
    def _scale(self) -> float:
        return float(self.null_norms.max()) or 1.0

    def _first_set(self) -> NDArray[np.bool_]:
        penalty = self.point.penalty
        if penalty.lam == 0.0 and penalty.ridge == 0.0:  # all directions are free, and a dual point sees all of them
            self.point.bring(np.arange(len(self.whole.groups)))
        self._follow()
        self._guessing = True
        chosen = super()._first_set()
        self._guessing = False
        self._look_ahead()
        return chosen

    def _check(self, chosen: NDArray[np.bool_]) -> tuple[float, NDArray[np.int64]]:
        self._follow()
        if isinstance(self.store, Columns):
            self.gradients.only_held = True
            accuracy, violators = super()._check(chosen)
            if accuracy > self._tol or (violators.size and not self.point.convex):
                return accuracy, violators
        return self._check_all(chosen)

    def _check_all(self, chosen: NDArray[np.bool_]) -> tuple[float, NDArray[np.int64]]:
        """The check with the gradients of all groups."""
        if isinstance(self.store, Columns):
            self.gradients.only_held = False
            c = self.point.loss_curvature()
            known = self._of_all and self._L is not None and np.array_equal(self._L[0], c)
            if not (self.point.convex or known or self.point.is_held.all()):
                self._L, self._of_all = (c, self.gradients.with_curvatures(self.point.rows, c)), True
        found = super()._check(chosen)
        self._look_ahead()
        return found

    def _follow(self) -> None:
        """Take over the problem of the point, which has changed if columns were fetched."""
        if self.problem is self.point.problem:
            return
        if isinstance(self.store, Span):
            self.gradients = Gradients(self.point.problem.design, self.whole.groups, self.gradients.patience)
        elif not self._of_all:
            self._L = None  # not those of the groups that are new
        self.problem = self.point.problem

    def _look_ahead(self) -> None:
        self.point.rank = np.argsort(-_scores(self._gradient_norms(), self.whole.groups.weights))

    def _curvatures(self) -> Array:
        """L_g of all groups at this point, with the loss's own curvature, and of the whole design."""
        if isinstance(self.store, Span):
            if self._L is None:
                self._L = self.whole.loss.s, step_bounds(self.whole, self.whole.loss.s)
            return self._L[1]
        c = self.point.loss_curvature()
        if self._L is not None and (self._of_all or self.gradients.only_held):
            before, L = self._L
            if self._guessing or np.array_equal(before, c):
                return L
        if self.gradients.only_held or self.point.is_held.all():
            ids = np.flatnonzero(self.point.is_held)
            L = np.ones(len(self.whole.groups))  # of the others, whose gradients count as zero
            L[ids] = block_curvature(self.problem.design, self.whole.groups, c, ids)
            self._L, self._of_all = (c, positive(L)), bool(self.point.is_held.all())
        else:
            self._L, self._of_all = (c, step_bounds(self.whole, c)), True
        return self._L[1]

    def _sharpen(self, among: NDArray[np.bool_]) -> bool:
        return False  # they are exact, or of the groups held


class _Fetching(Iterate):
    """A point that fetches the columns it is to move over; `rank` says which groups come next."""

    def __init__(self, store: Columns | Span, rank: NDArray[np.int64]) -> None:
        self.store, self.rank = store, rank
        self.is_held = np.zeros(len(rank), dtype=np.bool_)

    def begin(self, point: tuple[Array, Array]) -> None:
        """Start at a point, or anew at the same one, on what is held now."""
        self.problem = self.store.problem
        Iterate.__init__(self, self.problem, point)

    def minimise(self, ids: NDArray[np.int64], goal: float, budget: int) -> int:
        """As `Iterate.minimise`."""
        self.bring(ids)
        return super().minimise(ids, goal, budget)

    def bring(self, ids: NDArray[np.int64]) -> None:
        """Hold the groups `ids`, and go on from the same point."""
        if self.is_held[ids].all():
            return
        penalty, last = self.penalty, self.last
        self.fetch(ids, np.concatenate([ids, np.flatnonzero((self.norms() > 0.0) | ~self.penalised)]))
        self.begin((self.W, self.b))
        self.take(penalty)
        self.last = last if isinstance(self.store, Columns) else None  # the samples of a `Span` are new

    def fetch(self, ids: NDArray[np.int64], used: NDArray[np.int64]) -> None:
        """Fetch the groups `ids`, and the next ones if there is room; those not `used` may go where there is none."""
        groups = self.store.whole.groups
        new = ids[~self.is_held[ids]]
        if not new.size:
            return
        wanted = int(groups.sizes[new].sum())
        others = self.is_held.copy()
        others[used] = False
        room = self.store.extra(wanted)
        if room == 0 and isinstance(self.store, Columns) and others.any():
            self.store.forget(groups.features(np.flatnonzero(others)))
            self.is_held[others] = False
        self.is_held[new] = True
        room = min(room, max(wanted, AT_LEAST - wanted, len(self.store.features) // 2))
        rest = self.rank[~self.is_held[self.rank]]
        extra = rest[np.cumsum(groups.sizes[rest]) <= room]
        self.is_held[extra] = True
        self.store.add(groups.features(np.sort(np.concatenate([new, extra]))))


class _Passes:
    """The gradient of every group by one pass over X, with the interface of `Gradients`; `only_held` needs no pass.

    Then gradients of groups that are not held count as zero. `complete` says that those of all groups are known.
    """

    def __init__(self, store: Columns, problem: Problem, A: Array, V: Array) -> None:
        assert isinstance(problem.design, RowBlocks)
        self.store, self.design, self.groups = store, problem.design, problem.groups
        self.rows, self.V, self.known = np.ascontiguousarray(A.T), V, 1
        self.complete, self.only_held = True, False
        self.slack = np.zeros(len(self.groups))

    def at(self, rows: Array) -> None:
        """Take a new A' = rows, (K, n)."""
        if self.complete and np.array_equal(rows, self.rows):
            return
        self.rows = rows.copy()
        in_memory, held = self.store.held, self.store.features
        self.complete = not self.only_held or len(held) == len(self.V)
        if in_memory is not None and (self.only_held or len(held) == len(self.V)):
            self.V = np.zeros_like(self.V)
            self.V[held] = in_memory.rmatvec(rows.T)
        else:
            self.V = self.design.rmatvec(rows.T)

    def with_curvatures(self, rows: Array, c: Array) -> Array:
        """The same, and L_g for c, in one pass."""
        self.rows, self.complete = rows.copy(), True
        self.V, L = gradient_and_curvature(self.design, self.groups, rows.T, c)
        return positive(L)

    def norms(self, mu: float) -> Array:
        """||soft(X_g'A, mu)||."""
        return self.groups.norms(soft(self.V, mu))

    def above(self, threshold: Array, mu: float) -> NDArray[np.bool_]:
        """The groups whose ||soft(X_g'A, mu)|| exceeds the threshold, (G,)."""
        return self.norms(mu) > threshold

    def ensure(self, among: NDArray[np.bool_]) -> bool:
        """Whether any of the groups `among` was not exact: none."""
        return False


def _scores(norms: Array, omega: Array) -> Array:
    """Gradient norms per weight; groups without penalty come last, because they are always held."""
    return np.divide(norms, omega, out=np.zeros_like(norms), where=omega > 0.0)
