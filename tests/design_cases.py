"""Designs of every kind, and the laws of their products and curvatures. Imported by tests of designs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import strategies as st

from sparseopt.designs import Csc, Dense, Design
from sparseopt.groups import Groups
from sparseopt.jit import kernel

N, P = 37, 12  # rows that fill no whole vector register; columns for a block of nine at an offset


def dense(X: np.ndarray) -> Dense:
    return Dense(np.ascontiguousarray(X.T))


def csc(X: np.ndarray, index: type = np.int32) -> Csc:
    matrix = sp.csc_array(X)
    return Csc(matrix.data, matrix.indices.astype(index), matrix.indptr.astype(index), X.shape[0])


DESIGNS: dict[str, tuple[Callable[[np.ndarray], Design], type]] = {
    "dense 64": (dense, np.float64),
    "dense 32": (dense, np.float32),
    "csc 64, int32": (csc, np.float64),
    "csc 32, int32": (csc, np.float32),
    "csc 64, int64": (lambda X: csc(X, np.int64), np.float64),
    "csc 32, int64": (lambda X: csc(X, np.int64), np.float32),
}
designs = pytest.mark.parametrize(("build", "dtype"), DESIGNS.values(), ids=DESIGNS)


def matrix(dtype: type, n: int = N, p: int = P, density: float = 0.6, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.standard_normal((n, p)) * (rng.random((n, p)) < density)).astype(dtype)


def assert_rounded(found: np.ndarray, exact: np.ndarray, magnitude: np.ndarray, terms: int) -> None:
    """A float64 sum of `terms` products, in any order, errs by less than (terms + 4) u times the sum of magnitudes.

    u = 2^-53. Twice that, because `exact` is a float64 sum as well where long doubles are no longer than doubles.
    """
    assert found.dtype == np.float64
    assert found.shape == exact.shape
    error = np.abs(found - exact)
    assert (error <= 2 * (terms + 4) * 2.0**-53 * magnitude).all(), error.max()


def check_whole(design: Design, X: np.ndarray, W: np.ndarray, R: np.ndarray) -> None:
    """matvec is X W and rmatvec is X' R."""
    exact, size = X.astype(np.longdouble), np.abs(X).astype(np.float64)
    assert design.shape == X.shape
    assert_rounded(design.matvec(W), exact @ W, size @ np.abs(W), W.shape[0])
    assert_rounded(design.rmatvec(R), exact.T @ R, size.T @ np.abs(R), R.shape[0])


@kernel
def in_a_kernel(design, features, lo, hi, c, scratch, delta, rows, dots, gram):
    design.block_dot(features, lo, hi, rows, dots)
    design.block_gram(features, lo, hi, c, scratch, gram)
    design.block_add(features, lo, hi, delta, c, rows)


def check_blocks(
    design: Design, X: np.ndarray, features: np.ndarray, lo: int, hi: int, c: np.ndarray, rows: np.ndarray, call: Any
) -> None:
    """block_dot is X_g' r_k, block_gram is X_g' diag(c) X_g, and block_add adds c o (X_g d_k) to r_k."""
    n, d, K = len(X), hi - lo, len(rows)
    delta = np.random.default_rng(d).integers(-3, 4, (d, K)) / 2.0
    moved, dots, gram = rows.copy(), np.full((d, K), np.nan), np.full((d, d), np.nan)
    call(design, features, lo, hi, c, np.full(n, np.nan), delta, moved, dots, gram)

    block = X[:, features[lo:hi]].astype(np.longdouble)
    size, full = np.abs(block).astype(np.float64), np.broadcast_to(c, n)
    assert_rounded(dots, block.T @ rows.T, size.T @ np.abs(rows.T), n)
    assert_rounded(gram, (block.T * full) @ block, (size.T * full) @ size, n)
    np.testing.assert_array_equal(gram, gram.T)
    step = full * (block @ delta).T
    assert_rounded(moved, rows + step, np.abs(rows) + full * (size @ np.abs(delta)).T, d)


def check_all_blocks(design: Design, X: np.ndarray, K: int, call: Any = in_a_kernel) -> None:
    """Every size from one to nine: two rounds of four columns, none, and every remainder."""
    rng = np.random.default_rng(K)
    rows, features = rng.standard_normal((K, len(X))), rng.permutation(X.shape[1])
    for c in (np.array([0.7]), rng.random(len(X))):
        for d in range(1, 10):
            check_blocks(design, X, features, 2, 2 + d, c, rows, call)


small = st.integers(1, 6)  # numbers of rows, columns and outputs that Hypothesis draws


def check_curvature(curvature: Any, design: Design, X: np.ndarray, groups: Groups, c: np.ndarray) -> None:
    """L_g is the largest eigenvalue of X_g' diag(c) X_g up to 512 features, and at most 2 % above it beyond."""
    X = X.astype(np.float64)
    L = curvature(design, groups, c)
    assert L.shape == (len(groups),)
    assert L.dtype == np.float64
    for g in range(len(groups)):
        block = X[:, groups[g]] * np.sqrt(np.broadcast_to(c, len(X)))[:, None]
        wide = block.shape[1] > block.shape[0]
        exact = max(np.linalg.eigvalsh(block @ block.T if wide else block.T @ block)[-1], 0.0)  # same, but smaller
        if block.shape[1] <= 512:
            np.testing.assert_allclose(L[g], exact, rtol=1e-10, atol=0)
        else:
            assert exact <= L[g] <= 1.02 * exact
