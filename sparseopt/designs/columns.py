"""Some columns of a design: as a design of their own, or as a dense array for factorisations."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sparseopt.designs.convert import Design
from sparseopt.designs.csc import Csc
from sparseopt.designs.dense import Dense

__all__ = ["dense_columns", "take_columns"]


def take_columns(design: Design, features: ArrayLike) -> Design:
    """The columns `features` of X, in this order, as a design.

    A copy, except that all columns in their own order give the design itself.

    Parameters
    ----------
    design : Dense or Csc
        X, (n, p).
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
    if isinstance(design, Dense):
        return Dense(design.columns[features])
    starts, stops = design.indptr[features], design.indptr[features + 1]
    lengths = stops - starts
    indptr = np.concatenate([[0], np.cumsum(lengths)]).astype(design.indptr.dtype)
    entries = np.arange(indptr[-1]) - np.repeat(indptr[:-1], lengths) + np.repeat(starts, lengths)
    return Csc(design.data[entries], design.indices[entries], indptr, design.n_samples)


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
    part = take_columns(design, features)
    if isinstance(part, Dense):
        return part.columns.astype(np.float64).T
    out = np.zeros((len(part.indptr) - 1, part.n_samples))
    out[np.repeat(np.arange(len(out)), np.diff(part.indptr)), part.indices] = part.data
    return out.T
