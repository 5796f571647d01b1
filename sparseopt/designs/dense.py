"""The dense design: X by columns, and loops that a compiler turns into vector instructions.

One column x of length n takes part in a product with 2n operations on 2n numbers, so time is what memory takes. Four
columns that share a row r,

    (s_0, ..., s_3) = (x_0'r, ..., x_3'r)          r is read once, not four times
    r += c o (a_0 x_0 + ... + a_3 x_3)             r is read and written once, not four times

need 5/8 and 1/2 of it. The last columns of a block, fewer than four, go one by one; with several rows, four rows share
such a column instead. Sums may be taken in any order: a product differs from the exact one by at most
n eps sum_i |x_i r_i|, eps = 2^-53, in either order.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sparseopt.designs.products import all_dots, combine, multiply
from sparseopt.jit import vectorized_kernel
from sparseopt.structs import compiled
from sparseopt.vectors import add, dot

__all__ = ["Dense", "add4", "dot4"]


@vectorized_kernel
def dot4(a, b, c, d, r):
    """Four products that read r once."""
    s0 = s1 = s2 = s3 = 0.0
    for i in range(r.shape[0]):
        x = np.float64(r[i])
        s0 += a[i] * x
        s1 += b[i] * x
        s2 += c[i] * x
        s3 += d[i] * x
    return s0, s1, s2, s3


# One small function per case: the compiler inlines them, which saves more than a short column costs.
@vectorized_kernel
def add4(x0, x1, x2, x3, a0, a1, a2, a3, r):
    """Four columns added while r is written once."""
    for i in range(r.shape[0]):
        r[i] += a0 * x0[i] + a1 * x1[i] + a2 * x2[i] + a3 * x3[i]


@vectorized_kernel
def _add_weighted(x, a, c, r):
    for i in range(r.shape[0]):
        r[i] += c[i] * (a * x[i])


@vectorized_kernel
def _add4_weighted(x0, x1, x2, x3, a0, a1, a2, a3, c, r):
    for i in range(r.shape[0]):
        r[i] += c[i] * (a0 * x0[i] + a1 * x1[i] + a2 * x2[i] + a3 * x3[i])


@compiled
class Dense(NamedTuple):
    """A dense design, stored by columns.

    `as_design` makes one from any array and checks it; the constructor does not check.

    Parameters
    ----------
    columns : (p, n) ndarray, C-contiguous, float32 or float64
        X transposed: column j of X is the contiguous row `columns[j]`. For a Fortran-ordered X this is a view.

    Examples
    --------
    >>> from sparseopt.designs import as_design
    >>> design = as_design([[1.0, 2.0], [3.0, 4.0]])
    >>> design.shape
    (2, 2)
    >>> design.matvec(np.array([[1.0], [1.0]])).ravel()
    array([3., 7.])
    >>> design.rmatvec(np.array([[1.0], [0.0]])).ravel()
    array([1., 2.])
    """

    columns: NDArray[Any]

    @property
    def shape(self) -> tuple[int, int]:
        """(n_samples, n_features)."""
        return self.columns.shape[1], self.columns.shape[0]

    @property
    def dtype(self) -> np.dtype[Any]:
        """float32 or float64, of the values of X."""
        return self.columns.dtype

    @property
    def nbytes(self) -> int:
        """Bytes held by the matrix."""
        return self.columns.nbytes

    def matvec(self, W):
        """X W for W of shape (p, K); the result (n, K) is float64 and Fortran-ordered."""
        W = np.asarray(W, np.float64)
        if self.columns.dtype == np.float64 and np.count_nonzero(W.any(axis=1)) >= 0.8 * len(W):
            return (W.T @ self.columns).T
        return combine(self, W).T

    def rmatvec(self, R):
        """X' R for R of shape (n, K); the result (p, K) is float64."""
        R = np.asarray(R, np.float64)
        out = np.empty((self.columns.shape[0], R.shape[1]))
        if self.columns.dtype == np.float64:
            if R.shape[1] == 1:
                multiply(self.columns, np.ascontiguousarray(R[:, 0]), out[:, 0])
            else:
                multiply(self.columns, np.asfortranarray(R), out)
            return out
        all_dots(self, np.ascontiguousarray(R.T), out)
        return out

    def block_dot(self, features, lo, hi, rows, out):
        """out[j, k] = x_j' rows[k] for the columns x_j of the block; out is (d, K)."""
        n_rows = rows.shape[0]
        k = lo
        while k + 4 <= hi:
            a, b = self.columns[features[k]], self.columns[features[k + 1]]
            c, d = self.columns[features[k + 2]], self.columns[features[k + 3]]
            for row in range(n_rows):
                out[k - lo, row], out[k - lo + 1, row], out[k - lo + 2, row], out[k - lo + 3, row] = dot4(
                    a, b, c, d, rows[row]
                )
            k += 4
        while k < hi:
            a = self.columns[features[k]]
            row = 0
            while row + 4 <= n_rows:
                out[k - lo, row], out[k - lo, row + 1], out[k - lo, row + 2], out[k - lo, row + 3] = dot4(
                    rows[row], rows[row + 1], rows[row + 2], rows[row + 3], a
                )
                row += 4
            while row < n_rows:
                out[k - lo, row] = dot(a, rows[row])
                row += 1
            k += 1

    def block_add(self, features, lo, hi, delta, c, rows):
        """rows[k] += c o (X_g delta[:, k]); delta is (d, K), rows is (K, n)."""
        uniform = c.shape[0] == 1
        for row in range(rows.shape[0]):
            r = rows[row]
            k = lo
            while k + 4 <= hi:
                j = k - lo
                x0, x1 = self.columns[features[k]], self.columns[features[k + 1]]
                x2, x3 = self.columns[features[k + 2]], self.columns[features[k + 3]]
                a0, a1, a2, a3 = delta[j, row], delta[j + 1, row], delta[j + 2, row], delta[j + 3, row]
                if uniform:
                    add4(x0, x1, x2, x3, c[0] * a0, c[0] * a1, c[0] * a2, c[0] * a3, r)
                else:
                    _add4_weighted(x0, x1, x2, x3, a0, a1, a2, a3, c, r)
                k += 4
            while k < hi:
                if uniform:
                    add(self.columns[features[k]], c[0] * delta[k - lo, row], r)
                else:
                    _add_weighted(self.columns[features[k]], delta[k - lo, row], c, r)
                k += 1

    def block_gram(self, features, lo, hi, c, scratch, out):
        """out = X_g' diag(c) X_g, (d, d); scratch is (n,), of any content before and after."""
        uniform = c.shape[0] == 1
        for k in range(lo, hi):
            a = self.columns[features[k]]
            if not uniform:
                for i in range(scratch.shape[0]):
                    scratch[i] = c[i] * a[i]
            j = lo
            while j + 3 <= k:
                x0, x1 = self.columns[features[j]], self.columns[features[j + 1]]
                x2, x3 = self.columns[features[j + 2]], self.columns[features[j + 3]]
                if uniform:  # two calls, because a may be float32
                    s0, s1, s2, s3 = dot4(x0, x1, x2, x3, a)
                else:
                    s0, s1, s2, s3 = dot4(x0, x1, x2, x3, scratch)
                out[k - lo, j - lo], out[k - lo, j - lo + 1] = s0, s1
                out[k - lo, j - lo + 2], out[k - lo, j - lo + 3] = s2, s3
                j += 4
            while j <= k:
                x = self.columns[features[j]]
                out[k - lo, j - lo] = dot(x, a) if uniform else dot(x, scratch)
                j += 1
            for j in range(k - lo + 1):
                value = out[k - lo, j] * c[0] if uniform else out[k - lo, j]
                out[k - lo, j] = value
                out[j, k - lo] = value
