"""The gradient of every group, most of them only as well as needed.

X'A costs a pass over all of X, and a path would need one or two per lam. But X'A is linear in A: with earlier products
V_i = X'A_i at hand and A = sum_i a_i A_i + E (least squares for a),

    || X_g'A - sum_i a_i V_i,g ||  <=  ||X_g - 1 m_g'|| ||E|| + ||m_g|| ||1'E||,    m_g the column means,

a bound that decides most groups far from their threshold. The others are computed. Along a path A moves smoothly, so
that E is small; when too many groups are undecided, a full product is made and remembered. The spectral norm is bounded
by the Gram matrix H of the centred block: ||H||_inf and ||H||_F^(1/2) for small blocks, its trace for large ones. A
sparse block is not centred, its means being small, and || |X_g|' |X_g| ||_inf takes two looks at each value only.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sparseopt.designs import Csc, Design
from sparseopt.groups import Groups
from sparseopt.jit import kernel, lean_kernel
from sparseopt.vectors import add, dot

__all__ = ["Gradients", "semidefinite_solve"]

Array = NDArray[np.float64]
MEMORY = 4  # products that are remembered
PATIENCE = 12  # products before bounds are made, whose price is that of some products
SMALL = 32  # features of the blocks whose Gram matrix is looked at
WORTH = 0.1  # share of undecided features above which a full product, remembered, is cheaper than single groups
ROUNDING = 1e-14  # difference of rows, over the largest, that changes products by as much as their own rounding
MOST = 0.7  # share of features asked for at which it is cheaper in any case


class Gradients:
    """X'A for the A last given to `at`: `V` (p, K), in error by at most `slack` (G,) per group.

    `patience`: how many products to make before bounds.
    """

    def __init__(self, design: Design, groups: Groups, patience: int = PATIENCE) -> None:
        self.design, self.groups, self.patience = design, groups, patience
        self.spread: Array | None = None  # bound of ||X_g - 1 m_g'||
        self.level = np.empty(0)  # ||m_g||
        self._norms, self._mu = np.empty(len(groups)), -1.0
        self._largest = int(groups.sizes.max())
        self.known = 0  # products made so far
        self.rows: Array = np.empty((0, 0))  # that it was last asked about
        self.past_A = self.past_V = np.empty((0, 0, 0))  # the last of them
        self.past_gram = np.zeros((MEMORY, MEMORY))  # of past_A

    def learn(self, rows: Array, V: Array) -> None:
        """Remember V = X'A for A' = rows, (K, n)."""
        if not self.known:
            self.past_A, self.past_V = np.zeros((MEMORY, *rows.shape)), np.zeros((MEMORY, *V.shape))
        at = self.known % MEMORY
        self.past_A[at], self.past_V[at] = rows, V
        flat = self.past_A.reshape(MEMORY, -1)
        self.past_gram[at] = self.past_gram[:, at] = flat @ flat[at]
        self.known += 1

    def at(self, rows: Array) -> None:
        """Take a new A' = rows, (K, n) and contiguous; it must stay as it is while it is asked about."""
        self.rows = rows
        if self.known < self.patience:
            if not self._knows(rows):
                self._complete()
            return
        if self.spread is None:
            self.spread, self.level = np.empty(len(self.groups)), np.zeros(len(self.groups))
            bounds = _sparse_bounds if isinstance(self.design, Csc) else _block_bounds
            bounds(self.design, self.groups.indices, self.groups.indptr, self.spread, self.level)
        self.V, self.slack = np.empty(self.past_V.shape[1:]), np.empty(len(self.groups))
        _recall(
            self.past_A, self.past_V, self.past_gram, min(self.known, MEMORY), rows, self.spread, self.level,
            self.V, self.slack,
        )  # fmt: skip
        self._mu = -1.0

    def norms(self, mu: float) -> Array:
        """Upper bounds of ||soft(X_g'A, mu)||, exact where slack is 0. Do not write into them."""
        if mu != self._mu:
            self._above(np.full(len(self.groups), np.inf), mu)
        return self._norms

    def above(self, threshold: Array, mu: float) -> NDArray[np.bool_]:
        """The groups whose ||soft(X_g'A, mu)|| exceeds the threshold, (G,); they are exact then.

        A group with a negative threshold is made exact in any case, one with an infinite threshold in none.
        """
        decided, above = self._above(threshold, mu)
        if not decided:
            self._complete()
            _, above = self._above(threshold, mu)
        return above

    def ensure(self, among: NDArray[np.bool_]) -> bool:
        """Make the groups `among` exact; whether any was not."""
        if not (self.slack[among] > 0.0).any():
            return False
        self.above(np.where(among, -1.0, np.inf), max(self._mu, 0.0))
        return True

    def _above(self, threshold: Array, mu: float) -> tuple[bool, NDArray[np.bool_]]:
        above = np.empty(len(self.groups), dtype=np.bool_)
        scratch = np.empty((self._largest, len(self.rows)))
        decided = _decide(
            self.design, self.groups.indices, self.groups.indptr, self.rows, mu, mu != self._mu, threshold,
            WORTH * len(self.V), MOST * len(self.V), self.V, self.slack, self._norms, above, scratch,
        )  # fmt: skip
        self._mu = mu
        return decided, above

    def _knows(self, rows: Array) -> bool:
        """Whether these rows are those of the last product, up to rounding; V is that product then."""
        latest = (self.known - 1) % MEMORY
        if not self.known or np.abs(rows - self.past_A[latest]).max() > ROUNDING * np.abs(rows).max():
            return False
        self._take(self.past_V[latest].copy())
        return True

    def _complete(self) -> None:
        self._take(self.design.rmatvec(self.rows.T))
        self.learn(self.rows, self.V)

    def _take(self, V: Array) -> None:
        self.V, self.slack, self._mu = V, np.zeros(len(self.groups)), -1.0


@kernel
def _recall(past_A, past_V, gram, known, rows, spread, level, V, slack):
    """V = sum_i a_i V_i and the slack of every group, for the a that fits A best."""
    a = np.empty(known)
    for i in range(known):
        a[i] = 0.0
        for k in range(rows.shape[0]):
            a[i] += dot(past_A[i, k], rows[k])
    semidefinite_solve(gram, known, a)
    squares = 0.0
    tilts = 0.0
    error = np.empty(rows.shape[1])
    for k in range(rows.shape[0]):
        for i in range(len(error)):
            error[i] = rows[k, i]
        for i in range(known):
            add(past_A[i, k], -a[i], error)
        squares += dot(error, error)
        tilt = 0.0
        for i in range(len(error)):
            tilt += error[i]
        tilts += tilt * tilt
    # Rounding of the sum itself: a few units of the largest term.
    rounding = 0.0
    for i in range(known):
        rounding += 1e-15 * abs(a[i]) * np.sqrt(gram[i, i])
    far = np.sqrt(squares) + rounding
    tilted = np.sqrt(tilts) + rounding
    for g in range(len(slack)):
        slack[g] = spread[g] * far + level[g] * tilted
    flat = V.ravel()  # loops, because an expression would make a temporary of this size
    for j in range(len(flat)):
        flat[j] = 0.0
    for i in range(known):
        add(past_V[i].ravel(), a[i], flat)


@kernel
def semidefinite_solve(gram, known, a):
    """a <- gram^-1 a, for a symmetric matrix that may be singular: directions already spanned get nothing."""
    L = np.zeros((known, known))
    for i in range(known):
        for j in range(i + 1):
            value = gram[i, j]
            for k in range(j):
                value -= L[i, k] * L[j, k]
            if i == j:
                L[i, i] = np.sqrt(value) if value > 1e-12 * gram[i, i] else 0.0
            else:
                L[i, j] = value / L[j, j] if L[j, j] > 0.0 else 0.0
        for k in range(i):
            a[i] -= L[i, k] * a[k]
        a[i] = a[i] / L[i, i] if L[i, i] > 0.0 else 0.0
    for i in range(known - 1, -1, -1):
        for k in range(i + 1, known):
            a[i] -= L[k, i] * a[k]
        a[i] = a[i] / L[i, i] if L[i, i] > 0.0 else 0.0


@lean_kernel
def _decide(design, indices, indptr, rows, mu, anew, threshold, worth, most, V, slack, norms, above, scratch):
    """Which norms exceed the threshold: undecided groups are computed. False, and none is, if they are too many.

    Too many: more than `worth` features that the threshold asks for, or more than `most` in all. `anew`: the norms are
    of another V or mu.
    """
    asked = 0
    undecided = 0
    for g in range(len(slack)):
        if anew:
            norms[g] = _norm(V, indices, indptr, mu, g) + slack[g]
        above[g] = norms[g] > threshold[g]
        if above[g] and slack[g] > 0.0:
            d = indptr[g + 1] - indptr[g]
            asked += d
            undecided += d if threshold[g] >= 0.0 else 0
    if undecided > worth or asked > most:
        return False
    for g in range(len(slack)):
        if above[g] and slack[g] > 0.0:
            lo, hi = indptr[g], indptr[g + 1]
            design.block_dot(indices, lo, hi, rows, scratch)
            for j in range(lo, hi):
                for k in range(V.shape[1]):
                    V[indices[j], k] = scratch[j - lo, k]
            slack[g] = 0.0
            norms[g] = _norm(V, indices, indptr, mu, g)
            above[g] = norms[g] > threshold[g]
    return True


@lean_kernel
def _norm(V, indices, indptr, mu, g):
    """||soft(V_g, mu)||."""
    total = 0.0
    for j in range(indptr[g], indptr[g + 1]):
        for k in range(V.shape[1]):
            v = max(abs(V[indices[j], k]) - mu, 0.0)
            total += v * v
    return np.sqrt(total)


@kernel
def _sparse_bounds(design, indices, indptr, spread, level):
    """Bounds of ||X_g||, and 0 because no column is centred."""
    sums = np.zeros(design.n_samples)  # of |X_g| by row
    for g in range(len(spread)):
        trace = 0.0
        for j in indices[indptr[g] : indptr[g + 1]]:
            for e in range(np.uint64(design.indptr[j]), np.uint64(design.indptr[j + 1])):
                value = np.float64(design.data[e])
                sums[np.uint64(design.indices[e])] += abs(value)
                trace += value * value
        largest = 0.0
        for j in indices[indptr[g] : indptr[g + 1]]:
            total = 0.0
            for e in range(np.uint64(design.indptr[j]), np.uint64(design.indptr[j + 1])):
                total += abs(np.float64(design.data[e])) * sums[np.uint64(design.indices[e])]
            largest = max(largest, total)
        for j in indices[indptr[g] : indptr[g + 1]]:
            for e in range(np.uint64(design.indptr[j]), np.uint64(design.indptr[j + 1])):
                sums[np.uint64(design.indices[e])] = 0.0
        spread[g] = np.sqrt(min(trace, largest) * (1.0 + 1e-13))
        level[g] = 0.0


@kernel
def _block_bounds(design, indices, indptr, spread, level):
    """Bounds of ||X_g - 1 m_g'||, and ||m_g||."""
    n = design.columns.shape[1]
    ones, scratch = np.ones((1, n)), np.zeros(n)
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
