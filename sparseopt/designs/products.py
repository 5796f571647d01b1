"""Whole products as sums over blocks, for designs whose arithmetic BLAS does not do.

    X W  = sum_j X_j W_j'     one block_add per four columns; columns with W_j = 0 are left out
    X' R = (X_j' R)_j         one block_dot per four columns

Four columns at a time, because a dense block of four reads and writes a row of length n once, not four times. A sparse
or float32 X comes here: BLAS would need X as a whole in float64.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparseopt.jit import kernel, lean_kernel
from sparseopt.threads import in_parts

__all__ = ["all_dots", "combine", "multiply", "some_dots"]

PARTS = 4  # sums of columns, whatever the number of threads, so that it does not change the rounding
LEAST = 16  # times as many numbers as the sums hold must be read


def combine(design: Any, W: NDArray[np.float64]) -> NDArray[np.float64]:
    """(X W)', (K, n), for W of shape (p, K); by several threads where X is large."""
    used, WT = np.flatnonzero(W.any(axis=1)), np.ascontiguousarray(W.T)
    n, p = design.shape
    nbytes = design.nbytes * len(used) // max(p, 1)
    parts = PARTS if nbytes > 8 * LEAST * PARTS * n * len(WT) else 1
    sums, one = np.zeros((parts, len(WT), n)), np.ones(1)

    def add(lo: int, hi: int) -> None:
        for part in range(lo, hi):
            mine = used[len(used) * part // parts : len(used) * (part + 1) // parts]
            accumulate(design, mine, WT, one, np.empty((4, len(WT))), sums[part])

    in_parts(add, parts, nbytes)
    return sums[0] if parts == 1 else sums.sum(axis=0)


@lean_kernel
def accumulate(design, used, WT, one, delta, out):
    """out += (X_used W_used)', for WT = W' of shape (K, p) and out of shape (K, n); delta (4, K) is scratch."""
    for lo in range(0, used.shape[0], 4):
        hi = min(lo + 4, used.shape[0])
        for j in range(lo, hi):
            for k in range(WT.shape[0]):
                delta[j - lo, k] = WT[k, used[j]]
        design.block_add(used, lo, hi, delta, one, out)


def all_dots(design: Any, rows: NDArray[np.float64], out: NDArray[np.float64]) -> None:
    """out = X' rows', for rows of shape (K, n) and out of shape (p, K); by several threads where X is large."""
    p = len(out)  # in parts of whole fours, so that the number of threads does not change the rounding
    features = np.arange(p)
    in_parts(lambda lo, hi: some_dots(design, features, rows, 4 * lo, min(4 * hi, p), out), -(-p // 4), design.nbytes)


@lean_kernel
def some_dots(design, features, rows, first, stop, out):
    """The rows `first`, ..., `stop` - 1 of `all_dots`; `features` counts from 0."""
    for lo in range(first, stop, 4):
        hi = min(lo + 4, stop)
        design.block_dot(features, lo, hi, rows, out[lo:hi])


@kernel
def multiply(A, B, out):
    """out = A B by SciPy's BLAS, without the interpreter's lock; that of NumPy 1 does not know recent processors."""
    np.dot(A, B, out)
