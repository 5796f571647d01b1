"""Residual and gradient of least squares in one reading of a dense X, where X'(S(Xw - t)) takes two.

    r = Xw - t,   V = X'S r,   and X's if asked for

Samples are taken some hundreds at a time: their part of X stays in the cache between the two products. That reads X
once if a few hundred samples fit there, so it is for designs with few features.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparseopt.designs.dense import add4, dot4
from sparseopt.jit import lean_kernel
from sparseopt.threads import in_parts
from sparseopt.vectors import add, dot

__all__ = ["fits", "residual"]

Array = NDArray[np.float64]
CACHE = 2**21  # bytes of X that stay near from one product to the next
FEWEST = 256  # samples that are worth a loop of their own
PARTS = 4  # sums over samples, whatever the number of threads, so that it does not change the rounding


def fits(columns: NDArray[Any]) -> bool:
    """Whether `residual` reads X once, for X transposed: (p, n)."""
    return len(columns) * FEWEST * columns.itemsize <= CACHE


def residual(columns: NDArray[Any], s: Array, w: Array, t: Array, sums: bool = False) -> tuple[Array, Array, Array]:
    """r = Xw - t, V = X'(s r), and X's, which is empty unless `sums`.

    Parameters
    ----------
    columns : (p, n) ndarray, C-contiguous, float32 or float64
        X transposed.
    s, t : (n,) arrays
        Weights and targets.
    w : (p,) array
        Coefficients.

    Examples
    --------
    >>> residual(np.array([[1.0, 2.0], [3.0, 4.0]]), np.ones(2), np.array([1.0, 0.0]), np.zeros(2), sums=True)
    (array([1., 2.]), array([ 5., 11.]), array([3., 7.]))
    """
    p, n = columns.shape
    chunk = max(FEWEST, CACHE // (p * columns.itemsize))
    r, V, totals = np.empty(n), np.zeros((PARTS, p)), np.zeros((PARTS, p if sums else 0))

    def part(lo: int, hi: int) -> None:
        for k in range(lo, hi):
            _fold(columns, s, w, t, n * k // PARTS, n * (k + 1) // PARTS, np.empty(chunk), r, V[k], totals[k])

    in_parts(part, PARTS, columns.nbytes)
    return r, V.sum(axis=0), totals.sum(axis=0)


@lean_kernel
def _fold(columns, s, w, t, lo, hi, scratch, r, V, totals):
    """The samples `lo`, ..., `hi` - 1: fill their r, add to V, and to `totals` if it is not empty."""
    for first in range(lo, hi, len(scratch)):
        stop = min(first + len(scratch), hi)
        mine, weighted, weights = r[first:stop], scratch[: stop - first], s[first:stop]
        for i in range(len(mine)):
            mine[i] = -t[first + i]
        j = 0
        while j + 4 <= len(w):
            a, b, c, d = columns[j], columns[j + 1], columns[j + 2], columns[j + 3]
            add4(a[first:stop], b[first:stop], c[first:stop], d[first:stop], w[j], w[j + 1], w[j + 2], w[j + 3], mine)
            j += 4
        while j < len(w):
            add(columns[j][first:stop], w[j], mine)
            j += 1
        for i in range(len(mine)):
            weighted[i] = weights[i] * mine[i]
        _gather(columns, first, stop, weighted, V)
        if len(totals) > 0:
            _gather(columns, first, stop, weights, totals)


@lean_kernel
def _gather(columns, first, stop, row, out):
    """Add the products of some samples with all columns to `out`."""
    j = 0
    while j + 4 <= len(out):
        a, b, c, d = columns[j], columns[j + 1], columns[j + 2], columns[j + 3]
        s0, s1, s2, s3 = dot4(a[first:stop], b[first:stop], c[first:stop], d[first:stop], row)
        out[j] += s0
        out[j + 1] += s1
        out[j + 2] += s2
        out[j + 3] += s3
        j += 4
    while j < len(out):
        out[j] += dot(columns[j][first:stop], row)
        j += 1
