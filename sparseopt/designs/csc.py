"""The sparse design: X in compressed sparse columns.

Column j has the values v_e in the rows i_e, e = indptr[j], ..., indptr[j + 1] - 1:

    X_j' r = sum_e v_e r[i_e]            r += c o (a X_j):   r[i_e] += c[i_e] a v_e
    X_k' diag(c) X_j                     column k is spread into a row of zeros, which column j then reads

So a product costs the number of values of the block, never n. A row index may occur once per column only: the product
of two columns would otherwise lose the first of two values.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sparseopt.designs.products import all_dots, combine
from sparseopt.jit import vectorized_kernel
from sparseopt.structs import compiled

__all__ = ["Csc"]


# Unsigned numbers index memory as it is; signed ones may count from the end, which Numba would have to ask each time.
@vectorized_kernel
def _dot(data, indices, start, stop, r):
    total = 0.0
    for e in range(np.uint64(start), np.uint64(stop)):
        total += data[e] * r[np.uint64(indices[e])]
    return total


@vectorized_kernel
def _add(data, indices, start, stop, a, r):
    for e in range(np.uint64(start), np.uint64(stop)):
        r[np.uint64(indices[e])] += a * data[e]


@vectorized_kernel
def _add_weighted(data, indices, start, stop, a, c, r):
    for e in range(np.uint64(start), np.uint64(stop)):
        i = np.uint64(indices[e])
        r[i] += c[i] * (a * data[e])


@vectorized_kernel
def _clear(indices, start, stop, r):
    for e in range(np.uint64(start), np.uint64(stop)):
        r[np.uint64(indices[e])] = 0.0


@compiled
class Csc(NamedTuple):
    """A sparse design in compressed sparse columns, with sorted row indices and no duplicates.

    `as_design` makes one from any sparse matrix and checks it; the constructor does not check.

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

    Examples
    --------
    >>> from scipy.sparse import csc_array
    >>> from sparseopt.designs import as_design
    >>> design = as_design(csc_array([[1.0, 0.0], [0.0, 4.0]]))
    >>> design.data, design.shape
    (array([1., 4.]), (2, 2))
    >>> design.matvec(np.array([[1.0], [1.0]])).ravel()
    array([1., 4.])
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
    def dtype(self) -> np.dtype[Any]:
        """float32 or float64, of the values of X."""
        return self.data.dtype

    @property
    def nbytes(self) -> int:
        """Bytes held by the matrix."""
        return self.data.nbytes + self.indices.nbytes + self.indptr.nbytes

    def matvec(self, W):
        """X W for W of shape (p, K); the result (n, K) is float64 and Fortran-ordered."""
        return combine(self, np.asarray(W, np.float64)).T

    def rmatvec(self, R):
        """X' R for R of shape (n, K); the result (p, K) is float64."""
        out = np.empty((len(self.indptr) - 1, R.shape[1]))
        all_dots(self, np.ascontiguousarray(R.T, np.float64), out)
        return out

    def block_dot(self, features, lo, hi, rows, out):
        """out[j, k] = x_j' rows[k] for the columns x_j of the block; out is (d, K)."""
        for k in range(lo, hi):
            start, stop = self.indptr[features[k]], self.indptr[features[k] + 1]
            for row in range(rows.shape[0]):
                out[k - lo, row] = _dot(self.data, self.indices, start, stop, rows[row])

    def block_add(self, features, lo, hi, delta, c, rows):
        """rows[k] += c o (X_g delta[:, k]); delta is (d, K), rows is (K, n)."""
        uniform = c.shape[0] == 1
        for k in range(lo, hi):
            start, stop = self.indptr[features[k]], self.indptr[features[k] + 1]
            for row in range(rows.shape[0]):
                if uniform:
                    _add(self.data, self.indices, start, stop, c[0] * delta[k - lo, row], rows[row])
                else:
                    _add_weighted(self.data, self.indices, start, stop, delta[k - lo, row], c, rows[row])

    def block_gram(self, features, lo, hi, c, scratch, out):
        """out = X_g' diag(c) X_g, (d, d); scratch is (n,), of any content before and after."""
        for k in range(lo, hi):  # only the rows that this block reads: zeroing all n would cost more than the product
            _clear(self.indices, self.indptr[features[k]], self.indptr[features[k] + 1], scratch)
        for k in range(lo, hi):
            start, stop = self.indptr[features[k]], self.indptr[features[k] + 1]
            if c.shape[0] == 1:
                _add(self.data, self.indices, start, stop, c[0], scratch)
            else:
                _add_weighted(self.data, self.indices, start, stop, 1.0, c, scratch)
            for j in range(lo, k + 1):
                first, last = self.indptr[features[j]], self.indptr[features[j] + 1]
                total = _dot(self.data, self.indices, first, last, scratch)
                out[k - lo, j - lo] = total
                out[j - lo, k - lo] = total
            _clear(self.indices, start, stop, scratch)
