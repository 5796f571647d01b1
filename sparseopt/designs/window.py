"""Some columns of a larger design, in memory and under their own numbers.

Column j of X is column at[j] of what is held; at[j] = -1 says that it is not here. A solver that moves over the
features held can so keep its coefficients, groups and penalties for all p features.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sparseopt.designs.csc import Csc
from sparseopt.designs.dense import Dense
from sparseopt.designs.rows import RowBlocks
from sparseopt.jit import lean_kernel
from sparseopt.structs import compiled

__all__ = ["ROOM", "Window", "nearby", "window"]

ROOM = 2**30  # bytes up to which more is held in memory than has to be


@compiled
class Window(NamedTuple):
    """Columns of a design that are in memory. Kernels may ask for those only, and are not checked; methods are.

    Parameters
    ----------
    held : Dense or Csc
        The columns, in any order.
    slots : (p,) int64
        Where column j of X stands in `held`, or -1.
    scratch : (n_held,) int64
        Slots of the block that is being worked on: kernels of one thread at a time.

    Examples
    --------
    >>> from sparseopt.designs import as_design
    >>> some = window(as_design([[1.0, 3.0], [2.0, 4.0]]), [5, 2], n_features=6)
    >>> some.shape, some.matvec(np.eye(6)[:, [2]]).ravel()
    ((2, 6), array([3., 4.]))
    """

    held: Dense | Csc
    slots: NDArray[np.int64]
    scratch: NDArray[np.int64]

    @property
    def shape(self) -> tuple[int, int]:
        """(n_samples, n_features), counting the features that are not held."""
        return self.held.shape[0], len(self.slots)

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return self.held.nbytes

    def matvec(self, W):
        """X W for W (p, K), zero where columns are not held; the result (n, K) is float64 and Fortran-ordered."""
        W = np.asarray(W, np.float64)
        used = np.flatnonzero(W.any(axis=1))
        inside = np.zeros((self.held.shape[1], W.shape[1]))
        inside[self.where(used)] = W[used]
        return self.held.matvec(inside)

    def where(self, features):
        """The columns of `held` that are the columns `features` of X; ValueError if one is not held."""
        at = self.slots[features]
        if np.any(at < 0):
            raise ValueError(f"column {features[np.argmin(at)]} of X is not among the {self.held.shape[1]} in memory.")
        return at

    def block_dot(self, features, lo, hi, rows, out):
        """As `Dense.block_dot`."""
        _find(self.slots, features, lo, hi, self.scratch)
        self.held.block_dot(self.scratch, 0, hi - lo, rows, out)

    def block_add(self, features, lo, hi, delta, c, rows):
        """As `Dense.block_add`."""
        _find(self.slots, features, lo, hi, self.scratch)
        self.held.block_add(self.scratch, 0, hi - lo, delta, c, rows)

    def block_gram(self, features, lo, hi, c, scratch, out):
        """As `Dense.block_gram`."""
        _find(self.slots, features, lo, hi, self.scratch)
        self.held.block_gram(self.scratch, 0, hi - lo, c, scratch, out)


@lean_kernel
def _find(slots, features, lo, hi, out):
    for k in range(lo, hi):
        out[k - lo] = slots[features[k]]


def window(held: Dense | Csc, features: ArrayLike, n_features: int) -> Window:
    """A `Window` on a design of `n_features`, for columns that are its columns `features`."""
    at = np.full(n_features, -1, dtype=np.int64)
    at[np.asarray(features, np.int64)] = np.arange(held.shape[1])
    return Window(held, at, np.empty(held.shape[1], dtype=np.int64))


def nearby(design: Any, features: ArrayLike) -> Any:
    """What products with the columns `features` of a design are best done on: of row blocks these columns, in memory.

    Other designs, and row blocks whose columns would take more than a gigabyte, are returned as they are.
    """
    features = np.asarray(features, np.int64)
    if not isinstance(design, RowBlocks) or not len(features):
        return design
    if len(features) * design.shape[0] * design.dtype.itemsize > ROOM:
        return design
    return window(design.gather(features), features, design.shape[1])
