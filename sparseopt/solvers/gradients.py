"""The gradient of every group, most of them only as well as needed.

X'A costs a pass over all of X, and a path would need one or two per lam. But X'A is linear in A: with earlier products
V_i = X'A_i at hand and A = sum_i a_i A_i + E (least squares for a),

    || X_g'A - sum_i a_i V_i,g ||  <=  ||X_g - 1 m_g'|| ||E|| + ||m_g|| ||1'E||,    m_g the column means,

a bound that decides most groups far from their threshold. The others are computed. Along a path A moves smoothly, so
that E is small; when too many groups are undecided, a full product is made and remembered. The spectral norm is bounded
by the Gram matrix H of the centred block: ||H||_inf and ||H||_F^(1/2) for small blocks, its trace for large ones.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sparseopt.designs import Design
from sparseopt.groups import Groups
from sparseopt.jit import kernel

__all__ = ["Gradients", "dual_norms"]

Array = NDArray[np.float64]
MEMORY = 4  # products that are remembered
PATIENCE = 3  # products before the bounds are worth their price, that of a few more
SMALL = 32  # features of the blocks whose Gram matrix is looked at
WORTH = 0.3  # share of the features above which a full product is cheaper than single groups


class Gradients:
    """X'A for the A last given to `at`: `V` (p, K), in error by at most `slack` (G,) per group."""

    def __init__(self, design: Design, groups: Groups) -> None:
        self.design, self.groups = design, groups
        self.spread: Array | None = None  # bound of ||X_g - 1 m_g'||
        self.level = np.empty(0)  # ||m_g||
        self._norms, self._mu = np.empty(0), -1.0
        self.known = 0  # products made so far
        self.past_A = self.past_V = np.empty(0)  # the last of them, one per row

    def at(self, A: Array) -> None:
        """Take a new A, (n, K)."""
        self.A = A
        if self.known < PATIENCE:
            self._complete()
            return
        if self.spread is None:
            self.spread, self.level = np.empty(len(self.groups)), np.empty(len(self.groups))
            ones = np.ones((1, self.design.shape[0]))
            _block_bounds(self.design, self.groups.indices, self.groups.indptr, ones, self.spread, self.level)
        past = self.past_A[: self.known]  # at most MEMORY rows
        flat = A.T.ravel()
        gram = past @ past.T
        gram[np.diag_indices(len(gram))] *= 1.0 + 1e-12
        a = np.linalg.lstsq(gram, past @ flat, rcond=1e-12)[0]
        error = flat - a @ past
        tilt = float(np.linalg.norm(error.reshape(A.T.shape).sum(axis=1)))
        self.V = (a @ self.past_V[: self.known]).reshape(-1, A.shape[1])
        # Rounding of the sum itself: a few units of the largest term.
        rounding = 1e-15 * float(np.abs(a) @ np.sqrt(gram.diagonal()))
        self.slack = self.spread * (float(np.linalg.norm(error)) + rounding) + self.level * (tilt + rounding)
        self._mu = -1.0

    def norms(self, mu: float) -> Array:
        """Upper bounds of ||soft(X_g'A, mu)||, exact where slack is 0. Do not write into them."""
        if mu != self._mu:
            self._norms, self._mu = np.empty(len(self.groups)), mu
            self._update(np.arange(len(self.groups)))
        return self._norms

    def ensure(self, ids: NDArray[np.int64]) -> bool:
        """Make the groups `ids` exact; whether any was not."""
        ids = ids[self.slack[ids] > 0.0]
        if not ids.size:
            return False
        groups = self.groups
        if groups.sizes[ids].sum() > WORTH * groups.n_features:
            self._complete()
            return True
        rows = np.ascontiguousarray(self.A.T)
        scratch = np.empty((int(groups.sizes[ids].max()), len(rows)))
        _some(self.design, groups.indices, groups.indptr, ids, rows, scratch, self.V)
        self.slack[ids] = 0.0
        self._update(ids)
        return True

    def _update(self, ids: NDArray[np.int64]) -> None:
        if self._mu >= 0.0:
            dual_norms(self.V, self.groups.indices, self.groups.indptr, self._mu, ids, self._norms)
            self._norms[ids] += self.slack[ids]

    def _complete(self) -> None:
        self.V = self.design.rmatvec(self.A)
        self.slack = np.zeros(len(self.groups))
        self._mu = -1.0
        if not self.known:
            self.past_A, self.past_V = np.zeros((MEMORY, self.A.size)), np.zeros((MEMORY, self.V.size))
        row = self.known % MEMORY
        self.past_A[row], self.past_V[row] = self.A.T.ravel(), self.V.ravel()
        self.known += 1


@kernel
def dual_norms(V, indices, indptr, mu, ids, out):
    """out[g] = ||soft(V_g, mu)|| for the groups `ids`."""
    for g in ids:
        total = 0.0
        for j in range(indptr[g], indptr[g + 1]):
            for k in range(V.shape[1]):
                v = max(abs(V[indices[j], k]) - mu, 0.0)
                total += v * v
        out[g] = np.sqrt(total)


@kernel
def _some(design, indices, indptr, ids, rows, scratch, V):
    for g in ids:
        lo, hi = indptr[g], indptr[g + 1]
        design.block_dot(indices, lo, hi, rows, scratch)
        for j in range(lo, hi):
            for k in range(V.shape[1]):
                V[indices[j], k] = scratch[j - lo, k]


@kernel
def _block_bounds(design, indices, indptr, ones, spread, level):
    n = ones.shape[1]
    scratch = np.zeros(n)
    one = np.ones(1)
    H, sums = np.empty((SMALL, SMALL)), np.empty((SMALL, 1))
    for g in range(len(spread)):
        lo, hi = indptr[g], indptr[g + 1]
        step = hi - lo if hi - lo <= SMALL else 1
        trace = 0.0
        squares = 0.0
        largest = 0.0
        means = 0.0
        for at in range(lo, hi, step):
            design.block_gram(indices, at, at + step, one, scratch, H)
            design.block_dot(indices, at, at + step, ones, sums)
            for i in range(step):
                row = 0.0
                for j in range(step):
                    centred = H[i, j] - sums[i, 0] * sums[j, 0] / n
                    row += abs(centred)
                    squares += centred * centred
                trace += max(H[i, i] - sums[i, 0] ** 2 / n, 0.0) + 1e-13 * H[i, i]
                largest = max(largest, row + 1e-13 * step * H[i, i])
                means += (sums[i, 0] / n) ** 2
        bound = min(trace, largest, np.sqrt(squares) + 1e-13 * trace) if step == hi - lo else trace
        spread[g] = np.sqrt(bound)
        level[g] = np.sqrt(means)
