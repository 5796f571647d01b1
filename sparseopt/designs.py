"""Designs: the matrix X, dense or sparse, behind the few products that a solver needs.

    block_dot   G_k = X_g' r_k        the gradient of one block from the residual-like rows r_k, k = 1..K
    block_add   r_k += c o (X_g d_k)  after block g moved by d; c are the samples' curvatures
    block_gram  H = X_g' diag(c) X_g  the curvature of one block
    matvec, rmatvec                   z = X W and X' R, whole

A kernel calls the first three without knowing which design it has, so there is one text of every algorithm. Rows r_k
lie contiguous as (K, n) arrays: K = 1 for one response, the number of outputs otherwise. X is float32 or float64;
everything computed from it is float64.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Union

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sparseopt.jit import kernel, vectorized_kernel
from sparseopt.structs import compiled

__all__ = ["Csc", "Dense", "Design", "as_design", "block_curvature", "block_norms", "check_matrix"]


@vectorized_kernel
def _dot(a, r):
    total = 0.0
    for i in range(r.shape[0]):
        total += a[i] * r[i]
    return total


@vectorized_kernel
def _dot4(a, b, c, d, r):
    """Four products that read r once."""
    s0 = s1 = s2 = s3 = 0.0
    for i in range(r.shape[0]):
        x = r[i]
        s0 += a[i] * x
        s1 += b[i] * x
        s2 += c[i] * x
        s3 += d[i] * x
    return s0, s1, s2, s3


@vectorized_kernel
def _add(x, a, c, r):
    if c.shape[0] == 1:
        a = a * c[0]
        for i in range(r.shape[0]):
            r[i] += a * x[i]
    else:
        for i in range(r.shape[0]):
            r[i] += c[i] * (a * x[i])


@vectorized_kernel
def _add4(x0, x1, x2, x3, a0, a1, a2, a3, c, r):
    """Four columns added while r is written once."""
    if c.shape[0] == 1:
        a0, a1, a2, a3 = a0 * c[0], a1 * c[0], a2 * c[0], a3 * c[0]
        for i in range(r.shape[0]):
            r[i] += a0 * x0[i] + a1 * x1[i] + a2 * x2[i] + a3 * x3[i]
    else:
        for i in range(r.shape[0]):
            r[i] += c[i] * (a0 * x0[i] + a1 * x1[i] + a2 * x2[i] + a3 * x3[i])


@compiled
class Dense(NamedTuple):
    """A dense design, stored by columns.

    Parameters
    ----------
    columns : (p, n) ndarray, C-contiguous, float32 or float64
        X transposed: column j of X is the contiguous row `columns[j]`. For a Fortran-ordered X this is a view.

    Examples
    --------
    >>> design = as_design([[1.0, 2.0], [3.0, 4.0]])
    >>> design.matvec(np.array([[1.0], [1.0]])).ravel()
    array([3., 7.])
    """

    columns: NDArray[Any]

    @property
    def shape(self) -> tuple[int, int]:
        """(n_samples, n_features)."""
        return self.columns.shape[1], self.columns.shape[0]

    @property
    def nbytes(self) -> int:
        """Bytes held by the matrix."""
        return self.columns.nbytes

    def matvec(self, W):
        """X W for W of shape (p, K); the result (n, K) is Fortran-ordered."""
        used = np.flatnonzero(W.any(axis=1))
        if 4 * len(used) < len(W) or self.columns.dtype != W.dtype:
            out = np.zeros((W.shape[1], self.columns.shape[1]))
            _accumulate(self, used, np.ascontiguousarray(W.T), out)
            return out.T
        return (W.T @ self.columns).T

    def rmatvec(self, R):
        """X' R for R of shape (n, K); the result is (p, K)."""
        if self.columns.dtype == R.dtype:
            return self.columns @ R
        out = np.empty((self.columns.shape[0], R.shape[1]))
        _all_dots(self, np.ascontiguousarray(R.T), out)
        return out

    def block_dot(self, features, lo, hi, rows, out):
        n_rows = rows.shape[0]
        k = lo
        while k + 4 <= hi:
            a, b = self.columns[features[k]], self.columns[features[k + 1]]
            c, d = self.columns[features[k + 2]], self.columns[features[k + 3]]
            for row in range(n_rows):
                out[k - lo, row], out[k - lo + 1, row], out[k - lo + 2, row], out[k - lo + 3, row] = _dot4(
                    a, b, c, d, rows[row]
                )
            k += 4
        while k < hi:
            a = self.columns[features[k]]
            row = 0
            while row + 4 <= n_rows:
                out[k - lo, row], out[k - lo, row + 1], out[k - lo, row + 2], out[k - lo, row + 3] = _dot4(
                    rows[row], rows[row + 1], rows[row + 2], rows[row + 3], a
                )
                row += 4
            while row < n_rows:
                out[k - lo, row] = _dot(a, rows[row])
                row += 1
            k += 1

    def block_add(self, features, lo, hi, delta, c, rows):
        for row in range(rows.shape[0]):
            k = lo
            while k + 4 <= hi:
                j = k - lo
                _add4(
                    self.columns[features[k]],
                    self.columns[features[k + 1]],
                    self.columns[features[k + 2]],
                    self.columns[features[k + 3]],
                    delta[j, row],
                    delta[j + 1, row],
                    delta[j + 2, row],
                    delta[j + 3, row],
                    c,
                    rows[row],
                )
                k += 4
            while k < hi:
                _add(self.columns[features[k]], delta[k - lo, row], c, rows[row])
                k += 1

    def block_gram(self, features, lo, hi, c, scratch, out):
        for k in range(lo, hi):
            a = self.columns[features[k]]
            for i in range(scratch.shape[0]):
                scratch[i] = c[i] * a[i]
            for j in range(lo, k + 1):
                value = _dot(self.columns[features[j]], scratch)
                out[k - lo, j - lo] = value
                out[j - lo, k - lo] = value


@compiled
class Csc(NamedTuple):
    """A sparse design in compressed sparse columns, with sorted row indices and no duplicates.

    Parameters
    ----------
    data : (nnz,) ndarray, float32 or float64
        Values, column after column.
    indices : (nnz,) ndarray of int32 or int64
        Row of each value.
    indptr : (p + 1,) ndarray of int32 or int64
        Column j holds the values `indptr[j]` to `indptr[j + 1]`.
    n_samples : int
        Number of rows.
    """

    data: NDArray[Any]
    indices: NDArray[Any]
    indptr: NDArray[Any]
    n_samples: int

    @property
    def shape(self) -> tuple[int, int]:
        """(n_samples, n_features)."""
        return self.n_samples, len(self.indptr) - 1

    @property
    def nbytes(self) -> int:
        """Bytes held by the matrix."""
        return self.data.nbytes + self.indices.nbytes + self.indptr.nbytes

    def matvec(self, W):
        """X W for W of shape (p, K); the result (n, K) is Fortran-ordered."""
        out = np.zeros((W.shape[1], self.n_samples))
        _accumulate(self, np.flatnonzero(W.any(axis=1)), np.ascontiguousarray(W.T), out)
        return out.T

    def rmatvec(self, R):
        """X' R for R of shape (n, K); the result is (p, K)."""
        out = np.empty((len(self.indptr) - 1, R.shape[1]))
        _all_dots(self, np.ascontiguousarray(R.T), out)
        return out

    def block_dot(self, features, lo, hi, rows, out):
        for k in range(lo, hi):
            start, stop = self.indptr[features[k]], self.indptr[features[k] + 1]
            for row in range(rows.shape[0]):
                total = 0.0
                for e in range(start, stop):
                    total += self.data[e] * rows[row, self.indices[e]]
                out[k - lo, row] = total

    def block_add(self, features, lo, hi, delta, c, rows):
        uniform = c.shape[0] == 1
        for k in range(lo, hi):
            start, stop = self.indptr[features[k]], self.indptr[features[k] + 1]
            for row in range(rows.shape[0]):
                a = delta[k - lo, row]
                for e in range(start, stop):
                    i = self.indices[e]
                    rows[row, i] += (c[0] if uniform else c[i]) * (a * self.data[e])

    def block_gram(self, features, lo, hi, c, scratch, out):
        scratch[:] = 0.0
        for k in range(lo, hi):
            start, stop = self.indptr[features[k]], self.indptr[features[k] + 1]
            for e in range(start, stop):
                i = self.indices[e]
                scratch[i] = c[i] * self.data[e]
            for j in range(lo, k + 1):
                total = 0.0
                for e in range(self.indptr[features[j]], self.indptr[features[j] + 1]):
                    total += self.data[e] * scratch[self.indices[e]]
                out[k - lo, j - lo] = total
                out[j - lo, k - lo] = total
            for e in range(start, stop):
                scratch[self.indices[e]] = 0.0


Design = Union[Dense, Csc]


@kernel
def _accumulate(design, used, WT, out):
    one = np.ones(1)
    features = np.empty(1, np.int64)
    delta = np.empty((1, WT.shape[0]))
    for j in used:
        features[0] = j
        for k in range(WT.shape[0]):
            delta[0, k] = WT[k, j]
        design.block_add(features, 0, 1, delta, one, out)


@kernel
def _all_dots(design, rows, out):
    features = np.arange(out.shape[0])
    for j in range(0, out.shape[0], 4):
        hi = min(j + 4, out.shape[0])
        design.block_dot(features, j, hi, rows, out[j:hi])
