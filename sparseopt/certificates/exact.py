"""The problem of a certificate file in ball arithmetic: objective, exactly feasible dual points, lower bounds.

A dual point comes as floats a. The exact one near it: v = a / s clipped into the domain of f*, then made orthogonal to
the free columns, see `balance`, in balls that contain a point which meets the equalities exactly. For the group lasso
a scale c <= 1 then makes the inequalities certain. What the balls say of this point bounds the optimum:

    F >= -L*(cA) - sum_g (||soft(c X_g'A, mu)|| - lam_g)_+^2 / (2 ridge).
"""

from __future__ import annotations

from collections.abc import Container
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparseopt.certificates.balance import balanced
from sparseopt.certificates.balls import Curve, Refusal, arb, arb_mat, balls, conjugate, curve, norm, sample_value

__all__ = ["Dual", "Exact"]

Array = NDArray[Any]
Ball = Any
_CHUNK = 64  # columns that are dense at one time


class Dual:
    """An exactly feasible dual point: v = A / s and A (n lists of K balls), V = X'A (p lists of K balls)."""

    def __init__(self, case: Exact, v: list[list[Ball]]) -> None:
        self.case, self.v = case, v
        self.value: Ball | None = None  # -L*(A), once it is known
        self.A = [[s * x for x in row] for s, row in zip(case.s, v, strict=True)]

    @cached_property
    def V(self) -> list[list[Ball]]:
        return self.case.pull(self.A)


class Exact:
    """Data and formulas of one problem; words and arrays as `sparseopt.certificates.files.read` gives them."""

    def __init__(self, words: dict[str, Any], arrays: dict[str, Array]) -> None:
        self.words, self.arrays = words, arrays
        self.loss, self.delta = words["loss"]["name"], words["loss"]["params"].get("delta", 1.0)
        self.kind, self.intercept, self.names = words["penalty"], words["intercept"], [str(x) for x in words["names"]]
        self.n, self.K = arrays["y"].shape
        self.s, self.y = balls(arrays["s"]), balls(arrays["y"])
        self.offset = balls(arrays.get("offset", np.zeros((self.n, self.K))))
        cuts = zip(arrays["group_indptr"][:-1], arrays["group_indptr"][1:], strict=True)
        self.groups = [arrays["group_indices"][lo:hi] for lo, hi in cuts]
        self.penalised, self.omega = arrays["group_weights"] > 0.0, balls(arrays["group_weights"])
        self.lam, self.ridge, share = arb(words["lam"]), arb(words["ridge"]), arb(words["l1_ratio"])
        self.block, self.mu = self.lam * (1 - share), self.lam * share
        self.W, self.b = balls(arrays["w"].reshape(-1, self.K)), balls(arrays["b"])
        self._chunks: dict[int, Any] = {}

    # -- data ----------------------------------------------------------------------------------------------------------

    @cached_property
    def q(self) -> Curve:
        """The regularizer."""
        if self.words["q"] is None:
            raise Refusal("the problem has no regularizer")
        return curve(self.words["q"])

    @property
    def is_lasso(self) -> bool:
        """Whether the penalty is a (sparse) group lasso."""
        return self.kind != "at_most" and (self.block == 0 or self.words["q"]["name"] == "L2")

    def dense(self, features: Array) -> Array:
        """Columns of X, (n, d) floats."""
        if "X" in self.arrays:
            found: Array = self.arrays["X"][:, features]
            return found
        data, rows, cuts = (self.arrays[name] for name in ("X_data", "X_indices", "X_indptr"))
        out = np.zeros((self.n, len(features)))
        for k, j in enumerate(features):
            out[rows[cuts[j] : cuts[j + 1]], k] = data[cuts[j] : cuts[j + 1]]
        return out

    def columns(self, features: Array) -> Any:
        """Columns of X as an exact matrix."""
        return arb_mat(self.n, len(features), self.dense(features).ravel().tolist())

    def pull(self, A: list[list[Ball]]) -> list[list[Ball]]:
        """X'A."""
        right, out = arb_mat(A), []
        p = len(self.W)
        for start in range(0, p, _CHUNK):
            left = self._chunks.get(start)
            if left is None:
                left = self.columns(np.arange(start, min(start + _CHUNK, p))).transpose()
                if self.n * p <= 4e6:
                    self._chunks[start] = left
            out += (left * right).tolist()
        return out

    # -- objective -----------------------------------------------------------------------------------------------------

    def predictor(self) -> list[list[Ball]]:
        """Xw + b + offset."""
        active = np.flatnonzero(self.arrays["w"].reshape(-1, self.K).any(axis=1))
        z = [[o + (b if self.intercept else 0) for o, b in zip(row, self.b, strict=True)] for row in self.offset]
        if active.size:
            fit = (self.columns(active) * arb_mat([self.W[j] for j in active])).tolist()
            z = [[x + o for x, o in zip(*rows, strict=True)] for rows in zip(fit, z, strict=True)]
        return z

    def norms(self, V: list[list[Ball]], mu: Ball = 0, c: Ball = 1) -> list[Ball]:
        """||soft(c V_g, mu)|| of every group."""
        return [norm(soft(c * x, mu) for j in group for x in V[j]) for group in self.groups]

    def objective(self, lasso: bool = False) -> Ball:
        """F(w, b); with q = L2 in place of q if `lasso`."""
        if not self.intercept and any(x != 0 for x in self.b):
            raise Refusal("the problem has no intercept, but b is not 0")
        fit = arb(0)
        for s, y, z in zip(self.s, self.y, self.predictor(), strict=True):
            fit += s * sample_value(self.loss, self.delta, y, z) if s > 0 else 0
        seen = [x for g in np.flatnonzero(self.penalised) for j in self.groups[g] for x in self.W[j]]
        return fit + self._group_term(lasso) + self.mu * sum(map(abs, seen), arb(0)) + self.ridge / 2 * norm(seen) ** 2

    def _group_term(self, lasso: bool) -> Ball:
        norms = self.norms(self.W)
        scaled = [(self.omega[g], norms[g]) for g in np.flatnonzero(self.penalised) if not norms[g] == 0]
        if self.kind == "at_most":
            if len(scaled) > self.words["k"]:
                raise Refusal(f"w has {len(scaled)} nonzero groups, more than k = {self.words['k']}")
            return arb(0)
        if lasso or self.is_lasso or (self.kind == "composite" and len(scaled) < 2):
            return self.block * sum((omega * u for omega, u in scaled), arb(0))
        if self.kind == "composite":
            return self.block * self.q.inverse(sum((self.q.value(omega * u) for omega, u in scaled), arb(0)))
        return self.block * sum((omega * self.q.value(u) for omega, u in scaled), arb(0))

    # -- dual points ---------------------------------------------------------------------------------------------------

    def free(self, also: Container[int] = ()) -> Array:
        """Columns that no penalty sees, and those of the groups `also`, on the samples that count, (n, m)."""
        features = [j for g, group in enumerate(self.groups) for j in group if g in also or not self.penalised[g]]
        U = [np.ones((self.n, 1))] * self.intercept + [self.dense(np.array(features, dtype=np.int64))]
        return np.hstack([np.zeros((self.n, 0)), *U]) * (self.arrays["s"] > 0.0)[:, None]

    def dual(self, a: Array, also: Container[int] = ()) -> Dual:
        """An exact dual point near the floats a, (n, K), orthogonal to the columns of the groups `also` too."""
        if a.shape != (self.n, self.K) or not np.isfinite(a).all():
            raise Refusal(f"the dual point has shape {a.shape} or entries that are not finite")
        s, y = self.arrays["s"], self.arrays["y"]
        v = a / np.where(s > 0.0, s, np.inf)[:, None]
        if self.loss == "huber":
            v = np.clip(v, -self.delta, self.delta)
        elif self.loss == "poisson":
            v = np.maximum(v, -y)
        elif self.loss != "squares":
            v = np.clip(v, -y, 1.0 - y)
        exact = balls(v)
        if self.loss == "multinomial":
            v = np.where(y == 0.0, v, 0.0) / np.maximum(v.sum(axis=1, where=y == 0.0) * (1.0 + 1e-15), 1.0)[:, None]
            exact = balls(v)
            for row, label in zip(exact, y.argmax(axis=1), strict=True):
                row[label] = -sum(row, arb(0))
        U = self.free(also)
        if not U.shape[1] or not a.any():
            return Dual(self, exact)
        for flat in (False, True):  # the flat metric where the other is all but singular and moves far
            try:
                point = Dual(self, balanced(self, exact, v, U, flat))
                self.minus_conjugate(point)
                return point
            except Refusal as refusal:
                reason = refusal
        raise reason

    def minus_conjugate(self, point: Dual, c: Ball = 1) -> Ball:
        """-L*(cA)."""
        if c == 1 and point.value is not None:
            return point.value
        total = arb(0)
        for s, y, v, o in zip(self.s, self.y, point.v, self.offset, strict=True):
            if s > 0:
                v = [c * x for x in v]
                total += s * (sum((x * r for x, r in zip(v, o, strict=True)), arb(0))
                              - conjugate(self.loss, self.delta, y, v))  # fmt: skip
        if c == 1:
            point.value = total
        return total

    def bound(self, a: Array, strength: Ball | None = None) -> tuple[Ball, list[Ball]]:
        """A lower bound of the group lasso with `strength` omega_g (default: that of the problem), and the norms."""
        block = self.block if strength is None else strength
        everything = bool(block == 0 and self.mu == 0 and self.ridge == 0)
        point, c, over = self.dual(a, range(len(self.groups)) if everything else ()), arb(1), arb(0)
        seen = [] if everything else np.flatnonzero(self.penalised).tolist()
        norms = self.norms(point.V, self.mu)
        if self.ridge == 0:
            wide = [g for g in seen if not norms[g] <= block * self.omega[g]]
            low, high = (arb(0), arb(1)) if wide else (arb(1), arb(1))
            for _ in range(60 if wide else 0):
                c = ((low + high) / 2).mid()
                inside = all(
                    norm(soft(c * x, self.mu) for j in self.groups[g] for x in point.V[j]) <= block * self.omega[g]
                    for g in wide
                )
                low, high = (c, high) if inside else (low, c)
            c = low
        if not c == 1:
            norms = self.norms(point.V, self.mu, c)
        if self.ridge > 0:
            over = sum(((norms[g] - block * self.omega[g]).nonnegative_part() ** 2 for g in seen), arb(0))
            over = over / (2 * self.ridge)
        return self.minus_conjugate(point, c) - over, norms


def soft(x: Ball, mu: Ball) -> Ball:
    """|x| - mu, or 0 if that is negative."""
    return (abs(x) - mu).nonnegative_part() if mu != 0 else x
