"""The quadratic model of the loss, and the eigendecompositions of the blocks that are in use.

    L(z + dz) <= or ~ L(z) + <r, dz> + sum_i c_i |dz_i|^2 / 2

Blocks are decomposed when they are first used and kept. For squares c never changes. For other losses it does, and the
decompositions of an earlier, slightly raised curvature serve as long as kappa c_then >= c_now with kappa near one: then
kappa H_then majorises H_now, so a step stays a descent step. The intercept is profiled out, H = X'cX - (sum c) m m'
with the weighted means m; that too is monotone in c, being a minimum over shifts.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparseopt.designs import block_curvature, block_grams
from sparseopt.jit import brief_kernel, kernel, lean_kernel
from sparseopt.problem import Problem
from sparseopt.solvers.blocks import Blocks
from sparseopt.solvers.steps import Model

__all__ = ["Curvature"]

Array = NDArray[np.float64]
BY_LOOPS = 32  # features; the Gram matrix of a larger block is computed by BLAS
LARGEST_BASIS = 256  # features; larger blocks are majorised by their largest eigenvalue
RAISE = 0.05  # of the mean curvature, added before blocks are decomposed: small c_i may then grow
KAPPA = 1.25  # growth of the curvature at which blocks are decomposed again


class Curvature:
    """Model and blocks of a problem; `at(c)` sets the curvature, `include(ids)` makes blocks usable."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.n, self.p = problem.design.shape
        self.means = np.zeros(self.p if problem.intercept else 0)
        self._mean_known = np.zeros(len(problem.groups), dtype=np.bool_)
        sizes = problem.groups.sizes
        has_values, has_basis = sizes <= LARGEST_BASIS, (sizes > 1) & (sizes <= LARGEST_BASIS)
        self._by_loops = sizes <= BY_LOOPS
        self._room = np.where(has_values, sizes, 1), np.where(has_basis, sizes**2, 0)  # for values, for vectors
        self.reference: Array = np.zeros(0)
        self._forget_blocks()

    def at(self, c: Array, reuse: bool = True) -> None:
        """Set the curvature c, (n,); `reuse` allows blocks of an earlier, raised one that majorises it."""
        self.full, self.inverse = np.empty_like(c), np.empty_like(c)
        known = reuse and bool(self.reference.size)
        total, self.least, self.largest, kappa, above = _measure(
            c, self.reference if known else c, self.full, self.inverse
        )
        self.total = total if self.problem.intercept else 0.0
        self.c = self.full[:1].copy() if self.least == self.largest else self.full
        self._mean_known[:] = False
        if self.problem.loss.is_quadratic:
            self.reference, self.kappa = self.full, 1.0
            return
        if known and kappa <= KAPPA and above * kappa <= 1.5 * total:
            self.kappa = kappa
            return
        self._forget_blocks()
        s = self.problem.loss.s
        self.reference = self.full + RAISE * (total / s.sum()) * s if reuse else self.full

    def include(self, ids: NDArray[np.int64]) -> None:
        """Make the groups `ids` usable by sweeps."""
        self._find_means(ids)
        new = ids[self.slot[ids] < 0]
        if not new.size:
            return
        groups, design = self.problem.groups, self.problem.design
        self._make_room(new)
        c = self.reference
        total = float(c.sum()) if self.problem.intercept else 0.0
        means = self._reference_means(new)
        by_loops = self._by_loops[new]
        some = new[by_loops]
        if some.size:
            uniform = self.c if c is self.full else c[:1] if c.min() == c.max() else c
            _decompose(
                design, groups.indices, groups.indptr, some, uniform, np.empty(len(c)), means, total,
                self.slot, self.val_at, self.vec_at, self.vals, self.vecs,
            )  # fmt: skip
        for g in new[~by_loops]:
            at, vec_at = self.val_at[self.slot[g]], self.vec_at[self.slot[g]]
            if vec_at < 0:
                self.vals[at] = block_curvature(design, groups, c, [g])[0]
                continue
            H = block_grams(design, groups, [g], c)[0]
            if total > 0.0:
                m = means[groups[int(g)]]
                H -= total * np.outer(m, m)
            e, V = np.linalg.eigh(H)
            self.vals[at : at + len(e)] = np.maximum(e, 0.0)
            self.vecs[vec_at : vec_at + V.size] = V.ravel()

    @property
    def model(self) -> Model:
        """The model for kernels."""
        return Model(self.c, self.total, self.means, self.full, self.inverse)

    @property
    def blocks(self) -> Blocks:
        """The blocks for kernels."""
        vals = self.vals if self.kappa == 1.0 else self.kappa * self.vals
        return Blocks(self.slot, self.val_at, self.vec_at, vals, self.vecs)

    def _forget_blocks(self) -> None:
        self.slot = np.full(len(self.problem.groups), -1, dtype=np.int64)
        self.val_at = np.zeros(0, dtype=np.int64)
        self.vec_at = np.zeros(0, dtype=np.int64)
        self.vals = np.zeros(0)
        self.vecs = np.zeros(0)
        self.n_blocks = self.n_vals = self.n_vecs = 0  # what of these arrays is in use
        self.reference = np.zeros(0)
        self.kappa = 1.0

    def _make_room(self, new: NDArray[np.int64]) -> None:
        """Slots for the groups `new`; the arrays grow by half at least, so that a path copies them a few times only."""
        n_vals, n_vecs = self._room[0][new], self._room[1][new]
        self.slot[new] = self.n_blocks + np.arange(len(new))
        stop = self.n_blocks + len(new)
        self.val_at, self.vec_at = _longer(self.val_at, stop), _longer(self.vec_at, stop)
        self.val_at[self.n_blocks : stop] = self.n_vals + np.cumsum(n_vals) - n_vals
        self.vec_at[self.n_blocks : stop] = np.where(n_vecs > 0, self.n_vecs + np.cumsum(n_vecs) - n_vecs, -1)
        self.n_blocks, self.n_vals, self.n_vecs = stop, self.n_vals + int(n_vals.sum()), self.n_vecs + int(n_vecs.sum())
        self.vals, self.vecs = _longer(self.vals, self.n_vals), _longer(self.vecs, self.n_vecs)

    def _find_means(self, ids: NDArray[np.int64]) -> None:
        if not self.problem.intercept:
            return
        new = ids[~self._mean_known[ids]]
        if new.size:
            features = self.problem.groups.features(new)
            self.means[features] = _products(self.problem, features, self.full) / max(self.total, 1e-300)
            self._mean_known[new] = True

    def _reference_means(self, ids: NDArray[np.int64]) -> Array:
        """Means m weighted by the reference curvature, (p,), filled for the features of `ids`."""
        if not self.problem.intercept or self.problem.loss.is_quadratic:  # squares: the reference is the curvature
            return self.means
        means = np.zeros(self.p)
        features = self.problem.groups.features(ids)
        means[features] = _products(self.problem, features, self.reference) / self.reference.sum()
        return means


def _products(problem: Problem, features: NDArray[np.int64], c: Array) -> Array:
    """X_j'c for some features."""
    out = np.empty((len(features), 1))
    _dots(problem.design, features, c.reshape(1, -1), out)
    return out[:, 0]


@brief_kernel
def _measure(c, reference, full, inverse):
    """Fill `full` and `inverse`: c, 0 where it is negligible, and 1 / c.

    Returns the sum of c, its least and largest value, the largest c / reference, and the sum of the reference.
    """
    largest = 0.0
    for i in range(len(c)):
        largest = max(largest, c[i])
    total, least, kappa, above = 0.0, np.inf, 0.0, 0.0
    for i in range(len(c)):
        full[i] = c[i] if c[i] > 1e-100 * largest else 0.0
        inverse[i] = 1.0 / full[i] if full[i] > 0.0 else 0.0
        total += full[i]
        least = min(least, full[i])
        if reference[i] > 0.0:
            kappa = max(kappa, full[i] / reference[i])
        above += reference[i]
    return total, least, largest, kappa, above


@lean_kernel
def _dots(design, features, rows, out):
    design.block_dot(features, 0, len(features), rows, out)


@kernel
def _decompose(design, indices, indptr, ids, c, scratch, means, total, slot, val_at, vec_at, vals, vecs):
    """Eigenvalues, and eigenvectors row by row, of the blocks `ids` in their slots."""
    for g in ids:
        lo, hi = indptr[g], indptr[g + 1]
        d = hi - lo
        H = np.empty((d, d))
        design.block_gram(indices, lo, hi, c, scratch, H)
        if total > 0.0:
            for i in range(d):
                for j in range(d):
                    H[i, j] -= total * means[indices[lo + i]] * means[indices[lo + j]]
        at, vec_from = val_at[slot[g]], vec_at[slot[g]]
        if d == 1:
            vals[at] = max(H[0, 0], 0.0)
            continue
        e, V = np.linalg.eigh(H)
        for i in range(d):
            vals[at + i] = max(e[i], 0.0)
            for j in range(d):
                vecs[vec_from + i * d + j] = V[i, j]


def _longer(array: NDArray[Any], size: int) -> NDArray[Any]:
    """The array, or a copy with room for `size` entries."""
    if size <= len(array):
        return array
    longer = np.zeros(max(size, len(array) * 3 // 2), dtype=array.dtype)
    longer[: len(array)] = array
    return longer
