"""The quadratic model of the loss, and the eigendecompositions of the blocks that are in use.

    L(z + dz) <= or ~ L(z) + <r, dz> + sum_i c_i |dz_i|^2 / 2

Blocks are decomposed when they are first used and kept. For squares c never changes. For other losses it does, and the
decompositions of an earlier, slightly raised curvature serve as long as kappa c_then >= c_now with kappa near one: then
kappa H_then majorises H_now, so a step stays a descent step. The intercept is profiled out, H = X'cX - (sum c) m m'
with the weighted means m; that too is monotone in c, being a minimum over shifts.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sparseopt.designs import block_curvature, block_grams
from sparseopt.jit import kernel
from sparseopt.problem import Problem
from sparseopt.solvers.blocks import Blocks
from sparseopt.solvers.steps import Model

__all__ = ["Curvature"]

Array = NDArray[np.float64]
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
        self._forget_blocks()

    def at(self, c: Array, reuse: bool = True) -> None:
        """Set the curvature c, (n,); `reuse` allows blocks of an earlier, raised one that majorises it."""
        c = np.where(c > 1e-100 * c.max(initial=0.0), c, 0.0)
        self.total = float(c.sum()) if self.problem.intercept else 0.0
        self.full = c
        self.inverse = np.divide(1.0, c, out=np.zeros_like(c), where=c > 0.0)
        self.c = c[:1].copy() if c.min() == c.max() else c
        self._mean_known[:] = False
        if self.problem.loss.is_quadratic:
            self.reference, self.kappa = c, 1.0
            return
        if reuse and self.reference.size:
            seen = self.reference > 0.0
            self.kappa = float((c[seen] / self.reference[seen]).max(initial=0.0))
            if self.kappa <= KAPPA and self.reference.sum() * self.kappa <= 1.5 * c.sum():
                return
        self._forget_blocks()
        s = self.problem.loss.s
        self.reference = c + RAISE * (c.sum() / s.sum()) * s if reuse else c
        self.kappa = 1.0

    def include(self, ids: NDArray[np.int64]) -> None:
        """Make the groups `ids` usable by sweeps."""
        self._find_means(ids)
        new = ids[self.slot[ids] < 0]
        if not new.size:
            return
        groups, design = self.problem.groups, self.problem.design
        sizes = groups.sizes[new]
        small = sizes <= LARGEST_BASIS
        spectra: list[Array] = [np.empty(0)] * len(new)
        bases: list[Array] = [np.empty(0)] * len(new)
        grams = block_grams(design, groups, new[small], self.reference)
        if self.problem.intercept:
            shift = self._reference_means(new[small])
            total = self.reference.sum()
            grams = [H - total * np.outer(m, m) for H, m in zip(grams, shift, strict=True)]
        for d in np.unique(sizes[small]):
            chosen = np.flatnonzero(small & (sizes == d))
            within = np.flatnonzero(sizes[small] == d)
            vals, vecs = np.linalg.eigh(np.stack([grams[k] for k in within]))
            vals = np.maximum(vals, 0.0)
            for k, e, V in zip(chosen, vals, vecs, strict=True):
                spectra[k], bases[k] = e, (V.ravel() if d > 1 else np.empty(0))
        for k in np.flatnonzero(~small):
            spectra[k] = block_curvature(design, groups, self.reference, new[k : k + 1])
        self._append(new, spectra, bases)

    @property
    def model(self) -> Model:
        """The model for kernels."""
        return Model(self.c, self.total, self.means)

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
        self.reference = np.zeros(0)
        self.kappa = 1.0

    def _append(self, new: NDArray[np.int64], spectra: list[Array], bases: list[Array]) -> None:
        self.slot[new] = len(self.val_at) + np.arange(len(new))
        val_sizes = [len(e) for e in spectra]
        vec_sizes = np.array([len(V) for V in bases], dtype=np.int64)
        starts = len(self.vals) + np.cumsum([0, *val_sizes[:-1]])
        vec_starts = len(self.vecs) + np.cumsum([0, *vec_sizes[:-1]])
        self.val_at = np.concatenate([self.val_at, starts])
        self.vec_at = np.concatenate([self.vec_at, np.where(vec_sizes > 0, vec_starts, -1)])
        self.vals = np.concatenate([self.vals, *spectra])
        self.vecs = np.concatenate([self.vecs, *bases])

    def _find_means(self, ids: NDArray[np.int64]) -> None:
        if not self.problem.intercept:
            return
        new = ids[~self._mean_known[ids]]
        if new.size:
            features = self.problem.groups.features(new)
            self.means[features] = _products(self.problem, features, self.full) / max(self.total, 1e-300)
            self._mean_known[new] = True

    def _reference_means(self, ids: NDArray[np.int64]) -> list[Array]:
        if not ids.size:
            return []
        products = _products(self.problem, self.problem.groups.features(ids), self.reference)
        return np.split(products / self.reference.sum(), np.cumsum(self.problem.groups.sizes[ids])[:-1])


def _products(problem: Problem, features: NDArray[np.int64], c: Array) -> Array:
    """X_j'c for some features."""
    out = np.empty((len(features), 1))
    _dots(problem.design, features, c.reshape(1, -1), out)
    return out[:, 0]


@kernel
def _dots(design, features, rows, out):
    design.block_dot(features, 0, len(features), rows, out)
