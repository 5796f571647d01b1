"""Branch and bound over the groups: which are in, which are out, until no open choice can beat the best one.

Best first: the node with the smallest bound is taken next, so that the bound of all choices rises with every node. For
least squares on independent columns, or with a ridge, a dive of `branching_gram` follows every node depth first. Other
problems go node by node through refits:

    refit      min F over all groups that are not out bounds the node; with a ridge, its dual point bounds it better
    shares     with a ridge rho / z_g per open group, z_g = min(1, ||w_g|| / nu), sum z = k - |I|, repeated a few times:
               the perspective relaxation by alternating minimisation, whose every dual point is a bound.

Every node keeps the dual point of its bound, which is what proves it at the end.
"""

from __future__ import annotations

import heapq
import time
from dataclasses import dataclass, replace
from itertools import count

import numpy as np
from numpy.typing import NDArray

from sparseopt.designs import Dense, dense_columns
from sparseopt.selection.branching_gram import dive
from sparseopt.selection.exact_bounds import MAX_LEAVES, MAX_NUMBERS, Leaf, State, SubsetParts, blocks
from sparseopt.selection.fit import Fit, refit
from sparseopt.selection.subset_kernels import improve, subset_value

__all__ = ["Found", "branching"]

Array = NDArray[np.float64]

_FLOOR = 1e-13  # of F without groups: differences below are rounding
_SWAPS = 400  # that are tried with refits before branching
_ROUNDS = 4  # of new shares per node


@dataclass(frozen=True, eq=False)
class Found:
    """The best choice found, and what bounds all choices.

    Parameters
    ----------
    chosen : (m,) integers
        Counted groups, numbered 0, ..., G - 1.
    bound : float
        No choice is better.
    leaves : list of Leaf, optional
        What proves it; None if that is too large, or if the bound does not come from dual points.
    nodes : int
        Nodes looked at.
    """

    chosen: NDArray[np.int64]
    bound: float
    leaves: list[Leaf] | None
    nodes: int


def branching(parts: SubsetParts, start: NDArray[np.int64] | None, tol: float, deadline: float) -> Found:
    """Branch and bound until the relative gap is at most `tol`, or `deadline` (time.perf_counter) has passed.

    At least one node is looked at, or one dive made.
    """
    if parts.problem.loss.is_quadratic:
        gram = _Gram(parts)
        if gram.safe:
            return gram.search(start, tol, deadline)
    return _Refits(parts).search(start, tol, deadline)


class _Gram:
    """Least squares on Gram matrices, see `branching_gram`."""

    def __init__(self, parts: SubsetParts) -> None:
        self.parts = parts
        problem, loss = parts.problem, parts.problem.loss
        self.rho = float(problem.penalty.ridge)
        self.root = np.sqrt(loss.s)[:, None]
        y = self.root * (loss.y if loss.offset is None else loss.y - loss.offset)
        if parts.U.shape[1]:
            Q, s, _ = np.linalg.svd(self.root * parts.U, full_matrices=False)
            Q = Q[:, s > 1e-12 * s.max(initial=0.0)]
            for _ in range(2):
                y = y - Q @ (Q.T @ y)
        self.y = np.ascontiguousarray(y)
        self.Z, _, self.starts = blocks(parts.X, parts.U, loss.s, parts.starts, orthonormal=self.rho == 0.0)
        self.H = np.ascontiguousarray(self.Z.T @ self.Z)
        self.C = np.ascontiguousarray(self.Z.T @ self.y)
        self.yy = float((self.y**2).sum())
        e = np.linalg.eigvalsh(self.H) if len(self.H) else np.ones(1)
        self.least, self.most = max(float(e[0]), 0.0), float(e[-1])
        self.safe = self.least + self.rho > 1e-8 * (self.most + self.rho)

    def search(self, start: NDArray[np.int64] | None, tol: float, deadline: float) -> Found:
        parts, k = self.parts, self.parts.k
        n, K = self.y.shape
        p, G = len(self.H), len(parts.ids)
        floor = _FLOOR * self.yy
        best, upper = self._first(start)
        levels = int(min(G - k + 2, max(4, 2e7 // max(p * p, 1))))
        P, W, X = np.zeros((levels, p, p)), np.zeros((levels, p, K)), np.zeros((levels, p, K))
        size = max(1000, 2 * (levels * (k + 2) + 2 * G + 4))
        points = np.zeros((size, p, K))
        out = (
            np.zeros((size, G), np.int8), points, np.zeros(size),
            np.zeros((size, G), np.int8), np.zeros((size, p, K)), np.zeros(size),
        )  # fmt: skip
        tick = count()
        heap: list[tuple[float, int, State, Array]] = [(0.0, next(tick), np.zeros(G, np.int8), np.zeros((p, K)))]
        closed: list[tuple[State, Array]] = []
        limit = min(MAX_LEAVES, int(MAX_NUMBERS / (n * K)))
        proving, lowest, nodes, delta = True, np.inf, 0, 0.0
        budget, steps = 100, 25
        while heap and heap[0][0] < upper - max(0.5 * tol * upper, floor):
            if nodes and time.perf_counter() > deadline:
                break
            if proving and len(closed) + len(heap) > limit:
                proving, closed = False, []
                out = (out[0], np.zeros((0, p, K)), *out[2:])
                delta = self.least * (1.0 - 1e-6) if self.least > 1e-6 * self.most else 0.0
            bound, _, state, point = heapq.heappop(heap)
            rows = np.flatnonzero(np.repeat(state >= 0, np.diff(self.starts)))
            inverse = np.linalg.inv(self.H[np.ix_(rows, rows)] + self.rho * np.eye(len(rows)))
            P[0], W[0], X[0] = 0.0, 0.0, point
            P[0][np.ix_(rows, rows)] = 0.5 * (inverse + inverse.T)
            W[0][rows] = inverse @ self.C[rows]
            began = time.perf_counter()
            upper, leaves, opened, looked = dive(
                self.H, self.C, self.yy, self.starts, k, self.rho, delta, max(self.most - delta, 1e-300), 0.5 * tol,
                floor, upper, best, state, P, W, X, 200 if nodes == 0 else 50, steps, budget, *out,
            )  # fmt: skip
            took = time.perf_counter() - began
            if nodes:  # the first call may compile
                budget = int(min(max(50, budget * min(2.0, 0.05 / max(took, 1e-6))), 2000))
            nodes += looked
            lowest = min(lowest, float(out[2][:leaves].min(initial=np.inf)))
            if proving:
                closed += [(out[0][i].copy(), out[1][i].copy()) for i in range(leaves)]
            for i in range(opened):
                entry = (max(float(out[5][i]), bound), next(tick), out[3][i].copy(), out[4][i].copy())
                heapq.heappush(heap, entry)
        slack = 1e-15 * self.yy * max(100.0, (self.most + self.rho) / (self.least + self.rho))
        bound = min(lowest, min((entry[0] for entry in heap), default=np.inf), upper) - slack
        found = None
        if proving and len(closed) + len(heap) <= limit:
            found = [Leaf(state, self._dual(state, point, False)) for state, point in closed]
            found += [Leaf(state, self._dual(state, point, True)) for _, _, state, point in heap]
        return Found(np.flatnonzero(best), max(bound, 0.0), found, nodes)

    def _first(self, start: NDArray[np.int64] | None) -> tuple[State, float]:
        """A choice by greedy steps and swaps, from `start` and from nothing."""
        G, k = len(self.parts.ids), self.parts.k
        best, upper = np.zeros(G, np.int8), np.inf
        for seed in [np.zeros(0, np.int64)] + ([] if start is None else [start[:k]]):
            chosen = np.zeros(G, np.int8)
            chosen[seed] = 1
            value = improve(self.H, self.C, self.yy, self.rho, self.starts, k, chosen)
            if value < upper:
                best, upper = chosen, float(value)
        return best, float(subset_value(self.H, self.C, self.yy, self.rho, self.starts, best, np.zeros_like(self.C)))

    def _dual(self, state: State, point: Array, weak: bool) -> Array:
        """A of a leaf; with `weak`, the better one of `point` and the refit."""
        groups = self.parts.allowed(state)
        member = np.zeros(len(state), bool)
        member[groups] = True
        rows = np.flatnonzero(np.repeat(member, np.diff(self.starts)))
        radius = np.full(len(state), np.inf)
        if self.rho > 0.0 and not weak:
            return -self.root * (self.y - self.Z @ point)
        Z = self.Z[:, rows]
        H = self.H[np.ix_(rows, rows)] + self.rho * np.eye(len(rows))
        w = np.linalg.solve(H, self.C[rows]) if len(rows) else self.C[rows]
        residual = self.y - Z @ w
        if self.rho == 0.0:
            for _ in range(2 if len(rows) else 0):
                residual = residual - Z @ np.linalg.solve(H, Z.T @ residual)
            return -self.root * residual
        options = [-self.root * residual, -self.root * (self.y - self.Z @ point)]
        return max(options, key=lambda A: self.parts.bound(A, state, radius))


class _Refits:
    """Any convex loss, and least squares on dependent columns without a ridge."""

    def __init__(self, parts: SubsetParts) -> None:
        self.parts = parts
        self.rho = float(parts.problem.penalty.ridge)
        self.tried: dict[tuple[int, ...], Fit] = {}
        self.best: tuple[int, ...] = ()
        self.upper = np.inf
        self.unbounded = np.full(len(parts.ids), np.inf)
        p = parts.problem.design.shape[1]
        self.rows = (
            np.ascontiguousarray(dense_columns(parts.problem.design, np.arange(p)).T) if self.rho > 0.0 else None
        )

    def search(self, start: NDArray[np.int64] | None, tol: float, deadline: float) -> Found:
        parts, k = self.parts, self.parts.k
        n, K = parts.problem.loss.y.shape
        G = len(parts.ids)
        base = self.choose(())
        scale = base.value
        self._first(base, start, deadline)
        tick = count()
        zero = np.zeros((n, K))
        heap: list[tuple[float, int, State, Array, Fit | None]] = [(0.0, next(tick), np.zeros(G, np.int8), zero, None)]
        closed: list[Leaf] = []
        lowest, nodes = np.inf, 0
        limit = min(MAX_LEAVES, int(MAX_NUMBERS / (n * K)))
        proving = True
        while heap and heap[0][0] < self.target(tol, scale):
            if nodes and time.perf_counter() > deadline:
                break
            inherited, _, state, A, last = heapq.heappop(heap)
            nodes += 1
            m = int(np.count_nonzero(state > 0))
            groups = parts.allowed(state)
            if m >= k or np.count_nonzero(state >= 0) <= k:
                bound, A = self._better(state, inherited, A, self._leaf(groups, state))
                lowest = min(lowest, bound)
                closed.append(Leaf(state, A))
                continue
            fit = refit(parts.problem, parts.ids[groups], last)
            bound, A, worth = self._bounds(state, groups, fit, inherited, A, self.target(tol, scale))
            order = np.argsort(np.where(state == 0, -worth, np.inf), kind="stable")[: k - m]
            self.choose(tuple(sorted({*np.flatnonzero(state > 0).tolist(), *order.tolist()})))
            if bound >= self.target(tol, scale):
                lowest = min(lowest, bound)
                closed.append(Leaf(state, A))
                continue
            v = parts.norms(A)
            now = state.copy()
            for g in order:
                child = now.copy()
                child[g] = -1
                heapq.heappush(heap, (self._value(A, child, v, bound), next(tick), child, A, fit))
                now[g] = 1
            heapq.heappush(heap, (self._value(A, now, v, bound), next(tick), now, A, fit))
            if proving and len(closed) + len(heap) > limit:
                proving = False
        bound = min(lowest, min((entry[0] for entry in heap), default=np.inf), self.upper)
        leaves = closed + [Leaf(entry[2], entry[3]) for entry in heap]
        return Found(np.array(self.best, np.int64), max(bound, 0.0), leaves if proving else None, nodes)

    def target(self, tol: float, scale: float) -> float:
        """The bound at which a node is done with."""
        return self.upper - max(0.5 * tol * self.upper, _FLOOR * scale)

    def choose(self, groups: tuple[int, ...]) -> Fit:
        """The fit on a choice of at most k groups; the best one is remembered."""
        if groups not in self.tried:
            last = self.tried.get(self.best)
            self.tried[groups] = refit(self.parts.problem, self.parts.ids[list(groups)], last)
            if len(self.tried) > 1000:
                self.tried = {key: self.tried[key] for key in {groups, self.best}}
        fit = self.tried[groups]
        if fit.value < self.upper:
            self.upper, self.best = fit.value, groups
        return fit

    def _first(self, fit: Fit, start: NDArray[np.int64] | None, deadline: float) -> None:
        """A choice by steepest groups and swaps."""
        parts, k = self.parts, self.parts.k
        chosen: list[int] = []
        while len(chosen) < k:
            v = parts.norms(fit.A)
            v[chosen] = -1.0
            chosen.append(int(np.argmax(v)))
            fit = self.choose(tuple(sorted(chosen)))
        if start is not None:
            self.choose(tuple(sorted(start[:k].tolist())))
        left, before = _SWAPS, np.inf
        while self.upper < before and left > 0:
            before, base = self.upper, self.best
            for out in base:
                for into in set(range(len(parts.ids))) - set(base):
                    left -= 1
                    if left > 0 and time.perf_counter() < deadline:
                        self.choose(tuple(sorted({*base, into} - {out})))

    def _leaf(self, groups: NDArray[np.int64], state: State) -> Array:
        return self._point(self.choose(tuple(groups.tolist())), groups)

    def _point(self, fit: Fit, groups: NDArray[np.int64]) -> Array:
        z = self.parts.problem.predictor(fit.W, fit.b)
        return self.parts.feasible(fit.A, z, groups if self.rho == 0.0 else None)

    def _value(self, A: Array, state: State, v: Array, bound: float) -> float:
        """The bound of a child from the dual point of its parent."""
        if self.rho == 0.0:
            return bound
        return max(self.parts.bound(A, state, self.unbounded, v), 0.0)

    def _better(self, state: State, bound: float, A: Array, other: Array) -> tuple[float, Array]:
        if self.rho == 0.0:  # V is zero up to rounding where it counts
            value = -self.parts.problem.loss.conjugate(other)
        else:
            value = self.parts.bound(other, state, self.unbounded)
        return (value, other) if value > bound else (bound, A)

    def _bounds(
        self, state: State, groups: NDArray[np.int64], fit: Fit, bound: float, A: Array, target: float
    ) -> tuple[float, Array, Array]:
        """The best bound of a node, its dual point, and what each group is worth."""
        parts, problem = self.parts, self.parts.problem
        bound, A = self._better(state, bound, A, self._point(fit, groups))
        if self.rho == 0.0:
            c = np.sqrt(problem.loss.curvature(problem.predictor(fit.W, fit.b)))[:, None]
            worth = np.zeros(len(state))
            for g in groups:
                own = slice(parts.starts[g], parts.starts[g + 1])
                worth[g] = np.linalg.norm(c * (parts.X[:, own] @ fit.W[problem.groups[int(parts.ids[g])]]))
            return bound, A, worth
        left = parts.k - int(np.count_nonzero(state > 0))
        W, last = fit.W, fit
        for _ in range(_ROUNDS):
            if bound >= target:
                break
            z = _shares(np.where(state == 0, problem.groups.norms(W)[parts.ids], 0.0), left)
            z[state > 0] = 1.0
            factor = np.ones(len(problem.groups))
            factor[parts.ids] = np.sqrt(np.maximum(z, 1e-4))
            scale = problem.groups.expand(factor)[:, None]
            scaled = replace(problem, design=Dense(self.rows * scale))
            last = refit(scaled, parts.ids[groups], replace(last, problem=scaled, W=W / scale, basis=None))
            W, before = last.W * scale, bound
            bound, A = self._better(state, bound, A, parts.feasible(last.A, scaled.predictor(last.W, last.b)))
            if bound < before + 0.05 * (target - before):
                break
        return bound, A, parts.norms(A)


def _shares(u: Array, left: int) -> Array:
    """z = min(1, u / nu) with sum z = left: the minimiser of sum u_g^2 / z_g."""
    z = np.zeros_like(u)
    order = np.argsort(-u)
    rest = u.sum()
    for i, g in enumerate(order):
        if left - i <= 0 or rest <= 0.0:
            break
        if u[g] * (left - i) >= rest:
            z[g] = 1.0
            rest -= u[g]
        else:
            z[order[i:]] = u[order[i:]] * (left - i) / rest
            break
    return z
