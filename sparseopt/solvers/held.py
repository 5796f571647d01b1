"""What a solver holds in memory of a design that is read in passes, as an ordinary problem on all p features.

`Columns`, for any loss: the columns of the features in use, n numbers each.

`Span`, for least squares with more samples than features: X seen from the span of the columns in use, p numbers each.
With Xc, yc centred (if there is an intercept), S = diag(s), M the features in use and Xc_M'S Xc_M = R'R,

    P = R^-T Xc_M'S Xc,   t = R^-T Xc_M'S yc,   Q'Q = yc'S yc - t't,   L'Q = Xc'S yc - P't,

the samples [P; L'] with targets [t; Q] have for all w on M the objective of the original, and its gradient in *every*
feature: P'(Pw - t) - L'Q = Xc'S (Xc w - yc). So X is read only when M grows, by a block step of a pivoted Cholesky
factorisation. As in `compress`, errors of 1e-16 cond(X_M)^2 enter.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparseopt.designs import ROOM, Csc, Dense, RowBlocks, take_columns, window
from sparseopt.losses import Squares
from sparseopt.problem import Problem

__all__ = ["Columns", "Span"]

Array = NDArray[np.float64]


class Columns:
    """The columns of some features. `problem` has them as its design, `extra` says for how many more there is room."""

    def __init__(self, problem: Problem) -> None:
        self.whole = self.problem = problem
        self.features = np.empty(0, dtype=np.int64)
        self.held: Dense | Csc | None = None

    def extra(self, wanted: int) -> int:
        """How many features may be held beside those that are, and the `wanted` ones."""
        n = self.whole.design.shape[0]
        return max(ROOM // (n * _design(self.whole).dtype.itemsize) - len(self.features) - wanted, 0)

    def forget(self, features: NDArray[np.int64]) -> None:
        """Hold some features no longer."""
        assert self.held is not None
        kept = np.flatnonzero(~np.isin(self.features, features))
        self.held, self.features = take_columns(self.held, kept), self.features[kept]  # type: ignore[assignment]

    def add(self, features: NDArray[np.int64]) -> None:
        """Hold some more, in one pass."""
        new = _design(self.whole).gather(features)
        self.held = new if self.held is None else _beside(self.held, new)
        self.features = np.concatenate([self.features, features])
        design: Any = window(self.held, self.features, self.whole.groups.n_features)
        self.problem = Problem(design, self.whole.loss, self.whole.penalty, self.whole.intercept)


class Span:
    """X seen from the span of some columns; `problem` is without intercept, which `intercept` gives.

    Parameters
    ----------
    problem : Problem
        Least squares on row blocks. Two numbers per feature come from one pass.
    """

    def __init__(self, problem: Problem) -> None:
        self.whole = self.problem = problem
        loss, p = problem.loss, problem.design.shape[1]
        y = loss.y if loss.offset is None else loss.y - loss.offset
        total = loss.s.sum()
        self.y_mean = loss.s @ y / total if problem.intercept else np.zeros(loss.n_outputs)
        y = y - self.y_mean
        sy = loss.s[:, None] * y
        first = problem.design.rmatvec(np.column_stack([sy, loss.s]))
        self.product = first[:, :-1]  # Xc'S yc
        self.x_mean = first[:, -1] / total if problem.intercept else np.zeros(p)
        self.moment = y.T @ sy
        self.features = np.empty(0, dtype=np.int64)
        self.largest = 1e-300  # entry of the diagonal of Xc'S Xc so far
        self.P, self.t = np.empty((p, 0)), np.empty((0, loss.n_outputs))

    def extra(self, wanted: int) -> int:
        """How many features may be held beside those that are, and the `wanted` ones."""
        return max(ROOM // (16 * len(self.P)) - len(self.features) - wanted, 0)

    def forget(self, features: NDArray[np.int64]) -> None:
        """Nothing: the others stand on them."""

    def add(self, features: NDArray[np.int64]) -> None:
        """Hold some more, in one pass."""
        from scipy.linalg import solve_triangular
        from scipy.linalg.lapack import dpstrf

        means = self.x_mean if self.whole.intercept else None
        cross = _design(self.whole).total(_cross, self.whole.loss.s, features=features, means=means)
        gram = cross[features]
        gram = 0.5 * (gram + gram.T)
        self.largest = max(self.largest, float(gram.diagonal().max()))
        factor, pivots, rank, _ = dpstrf(gram - self.P[features] @ self.P[features].T, tol=1e-13 * self.largest)
        pivots = pivots - 1
        self.features, before = np.concatenate([self.features, features]), self.features
        if rank == 0:  # nothing but combinations of what is held
            self.problem = self._seen()
            return
        R, chosen = np.triu(factor)[:rank], features[pivots[:rank]]
        cross = cross[:, pivots[:rank]] - self.P @ self.P[chosen].T
        new = solve_triangular(R[:, :rank], cross.T, trans="T").T
        new[before] = 0.0  # they lie in the span as it was
        new[features[pivots]] = R.T
        target = solve_triangular(R[:, :rank], self.product[chosen] - self.P[chosen] @ self.t, trans="T")
        self.P, self.t = np.hstack([self.P, new]), np.vstack([self.t, target])
        self.problem = self._seen()

    def _seen(self) -> Problem:
        e, U = np.linalg.eigh(self.moment - self.t.T @ self.t)
        root = np.sqrt(np.maximum(e, 0.0))
        left = (self.product - self.P @ self.t) @ U
        left[self.features] = 0.0
        last = np.divide(left, root, out=np.zeros_like(left), where=root > 0.0)
        targets = np.vstack([self.t, root[:, None] * U.T])
        design = Dense(np.hstack([self.P, last]))
        return Problem(design, Squares(targets, np.ones(len(targets))), self.whole.penalty)

    def intercept(self, features: NDArray[np.int64], values: Array) -> Array:
        """The best intercept for nonzero coefficients (k, K) of some features."""
        return self.y_mean - self.x_mean[features] @ values


def _cross(block: Any, s: Array, *, features: NDArray[np.int64], means: Array | None) -> Array:
    """Xc'S Xc_M of some rows. For a sparse X only Xc_M is centred, which is the same for the sum over all rows."""
    sparse = hasattr(block, "toarray")
    part = block[:, features]
    part = np.asarray(part.toarray() if sparse else part, np.float64)
    part = s[:, None] * (part if means is None else part - means[features])
    block = block.astype(np.float64, copy=False)
    return np.asarray((block if sparse or means is None else block - means).T @ part)


def _design(problem: Problem) -> RowBlocks:
    assert isinstance(problem.design, RowBlocks)
    return problem.design


def _beside(a: Dense | Csc, b: Dense | Csc) -> Dense | Csc:
    """[A, B]."""
    if isinstance(a, Dense) and isinstance(b, Dense):
        return Dense(np.concatenate([a.columns, b.columns]))
    assert isinstance(a, Csc)
    assert isinstance(b, Csc)
    indptr = np.concatenate([a.indptr.astype(np.int64), a.indptr[-1] + b.indptr[1:].astype(np.int64)])
    index = np.int32 if indptr[-1] < 2**31 else np.int64
    indices = np.concatenate([a.indices, b.indices])
    return Csc(np.concatenate([a.data, b.data]), indices.astype(index, copy=False), indptr.astype(index), a.n_samples)
