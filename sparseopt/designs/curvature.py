"""Curvatures of blocks: how much the gradient of one block can change when that block moves.

    H_g = X_g' diag(c) X_g                     the Hessian of z -> sum_i c_i z_i^2 / 2 in the coefficients of block g
    L_g = largest eigenvalue of H_g            ||grad(w + d) - grad(w)|| <= L_g ||d|| for a step d of block g

Up to d = 512 features H_g is formed and its eigenvalues computed. Beyond, n d^2 operations are too many, and Lanczos
iterates with products v -> X_g' (c o (X_g v)) of 2 n d operations each. Its estimate theta approaches L_g from below.
It stops at a residual of 1e-4 theta, where theta lies within 1e-4 theta of an eigenvalue; 1.01 theta is an upper bound
unless the start is nearly orthogonal to the leading eigenvector. So the start is random, with a fixed seed: regular
starts fail on regular blocks, as X_g 1 = 0 shows for the centred indicators of one categorical variable.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sparseopt.designs.columns import dense_columns, take_columns
from sparseopt.designs.convert import Design
from sparseopt.designs.dense import Dense
from sparseopt.designs.rows import RowBlocks, by_columns
from sparseopt.designs.window import Window
from sparseopt.jit import lean_kernel

__all__ = ["block_curvature", "block_grams", "gradient_and_curvature"]

_LARGE = 512  # features; beyond, Lanczos is faster than the eigenvalues of H_g
_BATCH = 10**7  # entries of the Gram matrices that are held at a time


def block_grams(design: Design, groups: Any, ids: ArrayLike, c: NDArray[np.float64]) -> list[NDArray[Any]]:
    """H_g = X_g' diag(c) X_g, the curvature matrix of a block, for the groups `ids`.

    Parameters
    ----------
    design : Dense, Csc or RowBlocks
        X, (n, p). Row blocks are read once for all groups.
    groups : Groups
        A partition of the p features.
    ids : (m,) integers
        Numbers of groups.
    c : (n,) or (1,) float64
        Curvature of every sample, or of all of them.

    Returns
    -------
    list of m symmetric (d, d) float64 arrays, d the size of the group.

    Examples
    --------
    >>> from sparseopt.designs import as_design
    >>> from sparseopt.groups import Groups
    >>> block_grams(as_design([[1.0, 2.0], [3.0, 4.0]]), Groups.equal(2, 2), [0], np.ones(1))[0]
    array([[10., 14.],
           [14., 20.]])
    """
    ids = np.asarray(ids, np.int64)
    sizes = groups.sizes[ids]
    if isinstance(design, RowBlocks):
        if not len(ids):
            return []
        return _apart(design.total(_flat_grams, np.broadcast_to(c, design.shape[:1]), groups=groups, ids=ids), sizes)
    grams: list[Any] = [None] * len(ids)
    scratch = np.empty(design.shape[0])
    for d in np.unique(sizes):
        chosen = np.flatnonzero(sizes == d)
        if d > 16 and isinstance(design.held if isinstance(design, Window) else design, Dense):
            for k in chosen:
                block = dense_columns(design, groups[int(ids[k])]).T
                grams[k] = (block * c) @ block.T
        else:
            out = np.empty((len(chosen), d, d))
            _grams(design, groups.indices, groups.indptr, ids[chosen], c, scratch, out)
            for k, gram in zip(chosen, out, strict=True):
                grams[k] = gram
    return grams


def block_curvature(
    design: Design, groups: Any, c: NDArray[np.float64], ids: ArrayLike | None = None
) -> NDArray[np.float64]:
    """L_g, an upper bound of the largest eigenvalue of X_g' diag(c) X_g.

    Parameters
    ----------
    design : Dense, Csc or RowBlocks
        X, (n, p).
    groups : Groups
        A partition of the p features.
    c : (n,) or (1,) float64, nonnegative
        Curvature of every sample, or of all of them.
    ids : (m,) integers, default: all groups
        Numbers of groups.

    Returns
    -------
    (m,) float64, >= 0: the eigenvalue itself, to rounding, for groups of up to 512 features; beyond, a Lanczos estimate
    raised by 1 %, which is a bound with overwhelming probability, not with certainty.

    Examples
    --------
    >>> from sparseopt.designs import as_design
    >>> from sparseopt.groups import Groups
    >>> block_curvature(as_design([[1.0, 0.0, 2.0], [1.0, 3.0, 0.0]]), Groups.from_sizes([1, 2]), np.ones(1))
    array([2., 9.])
    """
    ids = np.arange(len(groups)) if ids is None else np.asarray(ids, np.int64)
    sizes = groups.sizes[ids]
    L = np.empty(len(ids))
    for k in np.flatnonzero(sizes > _LARGE):
        L[k] = 1.01 * _largest(design, groups[int(ids[k])], c)
    small = np.flatnonzero(sizes <= _LARGE)
    batch = np.cumsum(sizes[small] ** 2) // _BATCH
    for number in np.unique(batch):
        some = small[batch == number]
        L[some] = _tops(block_grams(design, groups, ids[some], c), sizes[some])
    return np.maximum(L, 0.0)


def first_curvature(design: Any, groups: Any, c: NDArray[np.float64]) -> NDArray[np.float64]:
    """A lower bound of `block_curvature`, (n_groups,), at a small part of its price: x'diag(c)x for the first column.

    Examples
    --------
    >>> from sparseopt.designs import as_design
    >>> from sparseopt.groups import Groups
    >>> first_curvature(as_design([[1.0, 0.0, 2.0], [1.0, 3.0, 0.0]]), Groups.from_sizes([1, 2]), np.ones(1))
    array([2., 9.])
    """
    out = np.empty(len(groups))
    _firsts(design, groups.indices, groups.indptr, c, np.empty(design.shape[0]), np.empty((1, 1)), out)
    return out


def gradient_and_curvature(
    design: RowBlocks, groups: Any, A: NDArray[np.float64], c: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """X'A (p, K) and `block_curvature` of all groups, in one pass over row blocks unless blocks are large.

    Parameters
    ----------
    design : RowBlocks
        X, (n, p).
    groups : Groups
        A partition of the p features.
    A : (n, K) float64
        See `rmatvec`.
    c : (n,) float64, nonnegative
        Curvature of every sample.
    """
    sizes = groups.sizes
    if sizes.max() > _LARGE or (sizes**2).sum() > _BATCH:
        return design.rmatvec(A), block_curvature(design, groups, c)
    split = A.shape[1] * design.shape[1]
    flat = design.total(_flat_products, A, c, groups=groups)
    return flat[:split].reshape(-1, A.shape[1]), np.maximum(_tops(_apart(flat[split:], sizes), sizes), 0.0)


def _tops(grams: list[NDArray[Any]], sizes: NDArray[np.int64]) -> NDArray[np.float64]:
    """The largest eigenvalues."""
    out = np.empty(len(sizes))
    for d in np.unique(sizes):
        same = np.flatnonzero(sizes == d)
        H = np.array([grams[k] for k in same])
        out[same] = H[:, 0, 0] if d == 1 else np.linalg.eigvalsh(H)[:, -1]
    return out


def _apart(flat: NDArray[np.float64], sizes: NDArray[np.int64]) -> list[NDArray[Any]]:
    """Matrices that lie one after the other."""
    return [H.reshape(d, d) for H, d in zip(np.split(flat, np.cumsum(sizes**2)[:-1]), sizes, strict=True)]


def _flat_products(block: Any, A: NDArray[np.float64], c: NDArray[np.float64], *, groups: Any) -> NDArray[np.float64]:
    """X'A of some rows, then the Gram matrices of all groups."""
    part = by_columns(block)
    grams = block_grams(part, groups, np.arange(len(groups)), np.ascontiguousarray(c))
    return np.concatenate([part.rmatvec(A).ravel(), *(H.ravel() for H in grams)])


def _flat_grams(block: Any, c: NDArray[np.float64], *, groups: Any, ids: NDArray[np.int64]) -> NDArray[np.float64]:
    """`block_grams` of some rows, one matrix after the other."""
    return np.concatenate([H.ravel() for H in block_grams(by_columns(block), groups, ids, np.ascontiguousarray(c))])


@lean_kernel
def _grams(design, indices, indptr, ids, c, scratch, out):
    for k in range(len(ids)):
        design.block_gram(indices, indptr[ids[k]], indptr[ids[k] + 1], c, scratch, out[k])


@lean_kernel
def _firsts(design, indices, indptr, c, scratch, gram, out):
    for g in range(len(out)):
        design.block_gram(indices, indptr[g], indptr[g] + 1, c, scratch, gram)
        out[g] = gram[0, 0]


@lean_kernel
def _weighted_normal(design, features, c, v, scratch, out):
    """out = X_g' diag(c) X_g v."""
    for i in range(scratch.shape[1]):
        scratch[0, i] = 0.0
    design.block_add(features, 0, len(features), v, c, scratch)
    design.block_dot(features, 0, len(features), scratch, out)


def _largest(design: Design, features: NDArray[np.int64], c: NDArray[np.float64]) -> float:
    from scipy.sparse.linalg import LinearOperator, eigsh

    d = len(features)
    if isinstance(design, RowBlocks):
        design, features = take_columns(design, features), np.arange(d)
    scratch, out = np.empty((1, design.shape[0])), np.empty((d, 1))

    def normal(v: Any) -> Any:
        _weighted_normal(design, features, c, np.ascontiguousarray(v, np.float64).reshape(d, 1), scratch, out)
        return out[:, 0].copy()

    start = np.random.default_rng(0).standard_normal(d)
    if not normal(start).any():
        return 0.0
    operator = LinearOperator((d, d), matvec=normal, dtype=np.float64)
    return float(eigsh(operator, k=1, tol=1e-4, v0=start, return_eigenvectors=False)[0])
