"""Some columns of a design: as a design of their own, or as a dense array for factorisations."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sparseopt.designs.convert import Design
from sparseopt.designs.csc import Csc
from sparseopt.designs.dense import Dense
from sparseopt.designs.rows import RowBlocks
from sparseopt.designs.window import Window
from sparseopt.jit import lean_kernel

__all__ = ["dense_columns", "in_memory", "take_columns"]


def take_columns(design: Design, features: ArrayLike) -> Design:
    """The columns `features` of X, in this order, as a design.

    A copy, except that all columns in their own order give the design itself.

    Parameters
    ----------
    design : Dense, Csc or RowBlocks
        X, (n, p). Columns of row blocks are gathered into memory, in one pass.
    features : (m,) integers
        Numbers of columns.

    Examples
    --------
    >>> from sparseopt.designs import as_design
    >>> take_columns(as_design([[1.0, 2.0, 3.0]]), [2, 0]).columns
    array([[3.],
           [1.]])
    """
    features = np.asarray(features, np.int64)
    if np.array_equal(features, np.arange(design.shape[1])):
        return design
    return _taken(design, features)


def _taken(design: Design | Window, features: NDArray[np.int64]) -> Dense | Csc:
    if isinstance(design, RowBlocks):
        return design.gather(features)
    if isinstance(design, Window):
        return _taken(design.held, design.where(features))
    if isinstance(design, Dense):
        return Dense(design.columns[features])
    indptr = np.concatenate([[0], np.cumsum(np.diff(design.indptr)[features], dtype=np.int64)])
    data, indices = np.empty(indptr[-1], design.data.dtype), np.empty(indptr[-1], design.indices.dtype)
    _copy_columns(design, features, data, indices)
    return Csc(data, indices, indptr.astype(design.indptr.dtype if indptr[-1] < 2**31 else np.int64), design.n_samples)


def dense_columns(design: Design, features: ArrayLike) -> NDArray[np.float64]:
    """The columns `features` of X as a dense (n, m) float64 array in Fortran order.

    Examples
    --------
    >>> from scipy.sparse import csc_array
    >>> from sparseopt.designs import as_design
    >>> dense_columns(as_design(csc_array([[1.0, 0.0], [0.0, 4.0]])), [1])
    array([[0.],
           [4.]])
    """
    features = np.asarray(features, np.int64)
    if isinstance(design, Csc):
        out = np.zeros((len(features), design.n_samples))
        _spread_columns(design, features, out)
        return out.T
    part = _taken(design, features)
    if isinstance(part, Csc):
        return dense_columns(part, np.arange(len(features)))
    return part.columns.astype(np.float64, copy=False).T


def in_memory(design: Design, who: str) -> Dense | Csc:
    """The design, if it is held in memory; TypeError for row blocks, which `who` cannot work on.

    Examples
    --------
    >>> from sparseopt.designs import as_design
    >>> in_memory(as_design([[1.0, 2.0]]), "as_cvxpy").shape
    (1, 2)
    """
    if isinstance(design, RowBlocks):
        raise TypeError(f"X is read in blocks of rows, and {who} needs it in memory: build the problem with an array.")
    return design


# Loops, because the same by index arrays would need several times the memory of the columns.
@lean_kernel
def _copy_columns(design, features, data, indices):
    at = 0
    for j in features:
        for e in range(design.indptr[j], design.indptr[j + 1]):
            data[at] = design.data[e]
            indices[at] = design.indices[e]
            at += 1


@lean_kernel
def _spread_columns(design, features, out):
    for k in range(len(features)):
        for e in range(design.indptr[features[k]], design.indptr[features[k] + 1]):
            out[k, design.indices[e]] = design.data[e]
