"""Designs: products of blocks and curvatures against their definitions, and every matrix that may or may not enter."""

from __future__ import annotations

import gc
import subprocess
import sys
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import joblib
import numba
import numpy as np
import pandas as pd
import polars as pl
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sparseopt.designs import Csc, Dense, Design, as_design, block_curvature, block_grams, writeable_design
from sparseopt.designs.convert import writeable
from sparseopt.designs.products import accumulate, some_dots
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


# -- laws ------------------------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("K", [1, 3, 4, 5, 9])
@designs
def test_products(build: Callable[[np.ndarray], Design], dtype: type, K: int) -> None:
    X = matrix(dtype)
    rng = np.random.default_rng(1)
    W, R = rng.standard_normal((P, K)), rng.standard_normal((N, K))
    for used in (P, 7, 2, 0):  # with few rows that are not zero, matvec leaves the other columns alone
        W[used:] = 0.0
        check_whole(build(X), X, W, R)
    check_whole(build(X), X, np.asfortranarray(W), np.asfortranarray(R))
    check_all_blocks(build(X), X, K)


@designs
def test_other_number_types_of_the_factor(build: Callable[[np.ndarray], Design], dtype: type) -> None:
    X = matrix(dtype)
    W, R = np.arange(P)[:, None] - 5, np.arange(N)[:, None] % 7
    check_whole(build(X), X, W, R)
    check_whole(build(X), X, W.astype(np.float32), R.astype(np.float32))


small = st.integers(1, 6)
integers = st.integers(-3, 3).map(float)


@settings(max_examples=60)
@given(st.data(), small, small, small)
def test_products_of_any_shape(data: st.DataObject, n: int, p: int, K: int) -> None:
    """Sums of small integers are exact, so that dense and sparse agree to the last bit."""
    X = data.draw(hnp.arrays(np.float64, (n, p), elements=integers, fill=st.just(0.0)))
    W = data.draw(hnp.arrays(np.float64, (p, K), elements=integers))
    R = data.draw(hnp.arrays(np.float64, (n, K), elements=integers))
    order = np.array(data.draw(st.permutations(range(p))))
    lo = data.draw(st.integers(0, p - 1))
    hi = data.draw(st.integers(lo + 1, p))
    c = data.draw(hnp.arrays(np.float64, st.sampled_from([1, n]), elements=st.integers(0, 3).map(float)))
    for design in (as_design(X), as_design(sp.csr_array(X))):
        np.testing.assert_array_equal(design.matvec(W), X @ W)
        np.testing.assert_array_equal(design.rmatvec(R), X.T @ R)
        check_blocks(design, X, order, lo, hi, c, np.ascontiguousarray(R.T), in_a_kernel)


class ForgetsCurvature(Dense):
    def block_add(self, features, lo, hi, delta, c, rows):
        super().block_add(features, lo, hi, delta, np.ones(1), rows)


class CurvatureOfTheFirstSample(Dense):
    def block_add(self, features, lo, hi, delta, c, rows):
        super().block_add(features, lo, hi, delta, c[:1], rows)


class DropsTheRemainder(Dense):
    def block_dot(self, features, lo, hi, rows, out):
        out[:] = 0.0
        super().block_dot(features, lo, hi - (hi - lo) % 4, rows, out)


class IgnoresTheOffset(Dense):
    def block_dot(self, features, lo, hi, rows, out):
        super().block_dot(features, 0, hi - lo, rows, out)


class SinglePrecision(Dense):
    def block_dot(self, features, lo, hi, rows, out):
        out[:] = self.columns[features[lo:hi]].astype(np.float32) @ rows.T.astype(np.float32)


class LowerTriangle(Dense):
    def block_gram(self, features, lo, hi, c, scratch, out):
        super().block_gram(features, lo, hi, c, scratch, out)
        out[:] = np.tril(out)


class TrustsTheScratch(Csc):
    def block_gram(self, features, lo, hi, c, scratch, out):
        full = sp.csc_array((self.data, self.indices, self.indptr), shape=self.shape).toarray()
        block, used = full[:, features[lo:hi]], full[:, features[lo:hi]] != 0
        out[:] = (np.where(used, block, scratch[:, None]).T * c) @ block


class LastRowOnly(Csc):
    def block_dot(self, features, lo, hi, rows, out):
        out[:] = 0.0
        super().block_dot(features, lo, hi, rows[-1:], out[:, -1:])


@pytest.mark.parametrize(
    "wrong", [ForgetsCurvature, CurvatureOfTheFirstSample, DropsTheRemainder, IgnoresTheOffset, SinglePrecision,
              LowerTriangle, TrustsTheScratch, LastRowOnly],
)  # fmt: skip
def test_wrong_blocks_are_rejected(wrong: Any) -> None:
    X = matrix(np.float64)
    right = csc(X) if issubclass(wrong, Csc) else dense(X)
    check_all_blocks(right, X, 3, in_a_kernel.py_func)
    with pytest.raises(AssertionError):
        check_all_blocks(wrong(*right), X, 3, in_a_kernel.py_func)


class RoundsW(Dense):
    def matvec(self, W):
        return super().matvec(W.astype(np.float32))


class KeepsSingle(Dense):
    def rmatvec(self, R):
        return super().rmatvec(R).astype(np.float32)


class SkipsTheLast(Dense):
    def matvec(self, W):
        return Dense(self.columns[:-1]).matvec(W[:-1])


@pytest.mark.parametrize("wrong", [RoundsW, KeepsSingle, SkipsTheLast])
def test_wrong_products_are_rejected(wrong: Any) -> None:
    X = matrix(np.float32)
    rng = np.random.default_rng(2)
    W, R = rng.standard_normal((P, 2)), rng.standard_normal((N, 2))
    check_whole(dense(X), X, W, R)
    with pytest.raises(AssertionError):
        check_whole(wrong(dense(X).columns), X, W, R)


# -- curvature of blocks ---------------------------------------------------------------------------------------------


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


SIZES = [1, 2, 16, 17, 1, 40, 512, 513]


def mixed(dtype: type) -> tuple[np.ndarray, Groups]:
    """Blocks on both sides of every threshold, their columns scattered."""
    X = matrix(dtype, n=60, p=sum(SIZES), density=0.3, seed=3)
    order = np.random.default_rng(4).permutation(sum(SIZES))
    return X, Groups(order, np.concatenate([[0], np.cumsum(SIZES)]))


@designs
def test_curvature(build: Callable[[np.ndarray], Design], dtype: type) -> None:
    X, groups = mixed(dtype)
    design = build(X)
    for c in (np.array([0.25]), np.random.default_rng(5).random(len(X)), np.zeros(len(X))):
        check_curvature(block_curvature, design, X, groups, c)
    c = np.ones(1)
    L = block_curvature(design, groups, c)
    np.testing.assert_allclose(block_curvature(design, groups, c, np.array([7, 5, 0, 2])), L[[7, 5, 0, 2]], rtol=1e-13)
    assert block_curvature(design, groups, c, []).shape == (0,)


@designs
def test_grams(build: Callable[[np.ndarray], Design], dtype: type) -> None:
    X, groups = mixed(dtype)
    c = np.random.default_rng(6).random(len(X))
    ids = [5, 0, 3, 1, 0]
    grams = block_grams(build(X), groups, ids, c)
    assert len(grams) == len(ids)
    for g, H in zip(ids, grams, strict=True):
        block = X[:, groups[g]].astype(np.longdouble)
        assert_rounded(H, (block.T * c) @ block, np.abs(block).T @ (c[:, None] * np.abs(block)), len(X))


def one_hot(n: int, levels: int) -> np.ndarray:
    return np.eye(levels)[np.arange(n) % levels]


BLOCKS = {  # of more than 512 features, where Lanczos could go astray
    "zero": np.zeros((20, 600)),
    "rank one": np.outer(np.arange(1.0, 21.0), np.arange(600.0) - 300.0),
    "orthonormal": np.eye(600),
    "indicators": one_hot(700, 600),
    "centred indicators": one_hot(1200, 600) - one_hot(1200, 600).mean(axis=1, keepdims=True),
    "opposite columns": np.kron(np.round(3 * matrix(np.float64, 30, 300, seed=7)), [1.0, -1.0]),
    "equal columns": np.ones((30, 600)),
    "one column matters": np.hstack([matrix(np.float64, 30, 599, seed=8), np.full((30, 1), 1e3)]),
    "one sample": np.arange(1.0, 601.0)[None],
    "tiny": 1e-100 * matrix(np.float64, 30, 600, seed=9),
    "huge": 1e100 * matrix(np.float64, 30, 600, seed=9),
}


@pytest.mark.parametrize("X", BLOCKS.values(), ids=BLOCKS)
def test_curvature_of_a_large_block(X: np.ndarray) -> None:
    check_curvature(block_curvature, as_design(X), X, Groups.equal(600, 600), np.ones(1))
    check_curvature(block_curvature, as_design(sp.csr_array(X)), X, Groups.equal(600, 600), np.ones(len(X)))


@settings(max_examples=40)
@given(hnp.arrays(np.float64, st.tuples(small, small), elements=st.floats(-1e3, 1e3)), st.integers(0, 2**32 - 1))
def test_curvature_bounds_every_direction(X: np.ndarray, seed: int) -> None:
    """d' H d <= L ||d||^2, up to the rounding of both sides."""
    rng = np.random.default_rng(seed)
    c, d = rng.random(len(X)), rng.standard_normal(X.shape[1])
    (L,) = block_curvature(as_design(X), Groups.equal(X.shape[1], X.shape[1]), c)
    assert (c * (X @ d) ** 2).sum() <= L * (d @ d) * (1 + 1e-12)


def from_ones(design: Design, groups: Groups, c: np.ndarray) -> np.ndarray:
    """A power method that starts at the vector of ones, for a single group of all features."""
    v, L = np.ones((groups.n_features, 1)), 0.0
    for _ in range(200):
        v = design.rmatvec(c[:, None] * design.matvec(v))
        L = float(np.linalg.norm(v))
        if L == 0.0:
            break
        v /= L
    return np.array([1.01 * L])


WRONG_CURVATURES: dict[str, Any] = {
    "forgets c": lambda design, groups, c: block_curvature(design, groups, np.ones(1)),
    "below": lambda design, groups, c: block_curvature(design, groups, c) / 1.011,
    "sloppy": lambda design, groups, c: block_curvature(design, groups, c) * 1.02,
    "trace": lambda design, groups, c: np.array([np.trace(H) for H in block_grams(design, groups, range(8), c)]),
}


@pytest.mark.parametrize("wrong", WRONG_CURVATURES.values(), ids=WRONG_CURVATURES)
def test_wrong_curvatures_are_rejected(wrong: Any) -> None:
    X, groups = mixed(np.float64)
    with pytest.raises(AssertionError):
        check_curvature(wrong, as_design(X), X, groups, np.full(1, 0.5))


def test_a_regular_start_is_rejected() -> None:
    groups = Groups.equal(600, 600)
    X = BLOCKS["equal columns"]
    check_curvature(from_ones, as_design(X), X, groups, np.ones(1))
    X = BLOCKS["opposite columns"]
    with pytest.raises(AssertionError):
        check_curvature(from_ones, as_design(X), X, groups, np.ones(1))


# -- what is refused -------------------------------------------------------------------------------------------------


def with_entry(value: Any, dtype: Any = np.float64) -> np.ndarray:
    X = np.ones((3, 4), dtype)
    X[2, 1] = value
    return X


DIMENSIONS = "dimensions: pass a matrix, one row per sample and one column per feature."
IMPUTE = "in row 2, column 1: impute or drop missing and infinite values."
SOME = "pass at least one sample and one feature."
REAL = "pass real numbers."
ENCODE = "in row 2, column 1, which is no real number: encode categories and dates first."

REFUSED: dict[str, tuple[Any, type[Exception], str]] = {
    "NaN": (with_entry(np.nan), ValueError, f"X contains nan {IMPUTE}"),
    "infinity": (with_entry(np.inf), ValueError, f"X contains inf {IMPUTE}"),
    "-infinity": (with_entry(-np.inf), ValueError, f"X contains -inf {IMPUTE}"),
    "float32": (with_entry(np.nan, np.float32), ValueError, f"X contains nan {IMPUTE}"),
    "float16": (with_entry(np.inf, np.float16), ValueError, f"X contains inf {IMPUTE}"),
    "Fortran": (np.asfortranarray(with_entry(np.nan)), ValueError, f"X contains nan {IMPUTE}"),
    "NaN in csr": (sp.csr_array(with_entry(np.nan) - 1), ValueError, f"X contains nan {IMPUTE}"),
    "inf in csc": (sp.csc_matrix(with_entry(np.inf)), ValueError, f"X contains inf {IMPUTE}"),
    "NaN among huge": (with_entry(np.nan) * 1e308, ValueError, f"X contains nan {IMPUTE}"),
    "NaN in a frame": (pd.DataFrame(with_entry(np.nan)), ValueError, f"X contains nan {IMPUTE}"),
    "NA": (pd.DataFrame(with_entry(np.nan)).convert_dtypes(), ValueError, f"X contains <NA> {IMPUTE}"),
    "None": (with_entry(None, object), ValueError, f"X contains None {IMPUTE}"),
    "NaT": (with_entry(pd.NaT, object), ValueError, f"X contains NaT {IMPUTE}"),
    "object NaN": (with_entry(np.nan, object), ValueError, f"X contains nan {IMPUTE}"),
    "null": (pl.DataFrame({"a": [1, 2], "b": [1, None]}), ValueError,
             "X contains nan in row 1, column 1: impute or drop missing and infinite values."),
    "mask": (np.ma.masked_equal(with_entry(7.0), 7.0), ValueError, f"X contains a masked value {IMPUTE}"),
    "huge integer": (with_entry(10**400, object), ValueError, "X contains a number beyond the range of float64 (int "
                     "too large to convert to float): rescale its column."),
    "0-d": (3.0, ValueError, f"X has 0 {DIMENSIONS}"),
    "word": ("X", ValueError, f"X has 0 {DIMENSIONS}"),
    "None for X": (None, ValueError, f"X has 0 {DIMENSIONS}"),
    "1-d": (np.ones(3), ValueError, f"X has 1 {DIMENSIONS}"),
    "3-d": (np.ones((2, 2, 2)), ValueError, f"X has 3 {DIMENSIONS}"),
    "series": (pd.Series([1.0, 2.0]), ValueError, f"X has 1 {DIMENSIONS}"),
    "1-d sparse": (sp.coo_array(np.ones(3)), ValueError, f"X has 1 {DIMENSIONS}"),
    "no samples": (np.ones((0, 3)), ValueError, f"X has the shape (0, 3): {SOME}"),
    "no features": (np.ones((3, 0)), ValueError, f"X has the shape (3, 0): {SOME}"),
    "empty csc": (sp.csc_array((0, 3)), ValueError, f"X has the shape (0, 3): {SOME}"),
    "empty csr": (sp.csr_array((3, 0)), ValueError, f"X has the shape (3, 0): {SOME}"),
    "complex": (np.ones((2, 2), complex), TypeError, f"X has dtype complex128: {REAL}"),
    "complex csc": (sp.csc_array(np.ones((2, 2), complex)), TypeError, f"X has dtype complex128: {REAL}"),
    "strings": (np.array([["a", "b"]]), TypeError, f"X has dtype <U1: {REAL}"),
    "dates": (np.zeros((2, 2), "datetime64[D]"), TypeError, f"X has dtype datetime64[D]: {REAL}"),
    "object string": (with_entry("red", object), TypeError, f"X contains 'red' {ENCODE}"),
    "object number in a string": (with_entry("1.5", object), TypeError, f"X contains '1.5' {ENCODE}"),
    "object complex": (with_entry(1j, object), TypeError, f"X contains 1j {ENCODE}"),
    "object list": (with_entry([1], object), TypeError, f"X contains [1] {ENCODE}"),
    "frame of categories": (pd.DataFrame({"a": [1, 2], "b": ["x", "y"]}), TypeError,
                            "X contains 'x' in row 0, column 1, which is no real number: encode categories and dates "
                            "first."),
}  # fmt: skip


@pytest.mark.parametrize(("X", "kind", "sentence"), REFUSED.values(), ids=REFUSED)
def test_refused(X: Any, kind: type[Exception], sentence: str) -> None:
    with pytest.raises(kind) as caught:
        as_design(X)
    assert str(caught.value) == sentence


def test_rows_of_different_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^X is no matrix \(.*\): pass rows of one length\.$"):
        as_design([[1.0, 2.0], [3.0]])


@pytest.mark.parametrize("bad", [-1, 3, 10**6])
def test_row_indices_outside_the_matrix_are_refused(bad: int) -> None:
    X = sp.csc_array(np.ones((3, 2)))
    X.indices[4] = bad
    with pytest.raises(ValueError, match=f"^X has the row index {bad} in a sparse matrix of 3 rows: build"):
        as_design(X)


def test_a_falling_indptr_is_refused() -> None:
    X = sp.csc_array(np.ones((3, 3)))
    X.indptr[1] = 8
    with pytest.raises(ValueError, match=r"^X has an indptr that decreases at column 1: build"):
        as_design(X)


# -- what is accepted ------------------------------------------------------------------------------------------------

VALUES = np.array([[1.0, 0.0, 3.0], [0.0, 0.0, 2.0]])
ACCEPTED: dict[str, tuple[Any, type]] = {
    "list": (VALUES.tolist(), np.float64),
    "float64": (VALUES, np.float64),
    "float32": (VALUES.astype(np.float32), np.float32),
    "float16": (VALUES.astype(np.float16), np.float64),
    "long double": (VALUES.astype(np.longdouble), np.float64),
    "foreign byte order": (VALUES.astype(VALUES.dtype.newbyteorder()), np.float64),
    "int8": (VALUES.astype(np.int8), np.float64),
    "uint64": (VALUES.astype(np.uint64), np.float64),
    "objects": (np.array([[1, False, 3.0], [Decimal(0), Fraction(0), np.int8(2)]], object), np.float64),
    "strided": (np.repeat(np.repeat(VALUES, 2, axis=0), 2, axis=1)[::2, ::2], np.float64),
    "reversed": (VALUES[::-1, ::-1].copy()[::-1, ::-1], np.float64),
    "masked array without a mask": (np.ma.masked_array(VALUES), np.float64),
    "pandas": (pd.DataFrame(VALUES, columns=list("abc")), np.float64),
    "pandas, mixed": (pd.DataFrame({"a": [True, False], "b": [0, 0], "c": VALUES[:, 2]}), np.float64),
    "pandas, nullable": (pd.DataFrame(VALUES).convert_dtypes(), np.float64),
    "pandas, sparse": (pd.DataFrame(VALUES).astype(pd.SparseDtype(float, 0.0)), np.float64),
    "polars": (pl.DataFrame({"a": [1, 0], "b": [0, 0], "c": [3, 2]}), np.float64),
}


@pytest.mark.parametrize(("X", "dtype"), ACCEPTED.values(), ids=ACCEPTED)
def test_accepted(X: Any, dtype: type) -> None:
    design = as_design(X)
    assert isinstance(design, Dense)
    assert design.columns.dtype == dtype
    assert design.columns.dtype.isnative
    assert design.columns.flags.c_contiguous
    assert design.shape == (2, 3)
    assert design.nbytes == 6 * np.dtype(dtype).itemsize
    np.testing.assert_array_equal(design.columns, VALUES.T)


def test_booleans_are_zeros_and_ones() -> None:
    design = as_design(VALUES > 0)
    np.testing.assert_array_equal(design.columns, (VALUES > 0).T.astype(float))
    np.testing.assert_array_equal(as_design(sp.csr_array(VALUES > 0)).data, np.ones(3))


FORMATS = ("bsr", "coo", "csc", "csr", "dia", "dok", "lil")


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int64])
@pytest.mark.parametrize("kind", ["array", "matrix"])
@pytest.mark.parametrize("form", FORMATS)
def test_sparse_formats(form: str, kind: str, dtype: type) -> None:
    X = matrix(np.float64, 6, 4)
    X = np.round(X, 1).astype(np.float32).astype(np.float64) if dtype != np.int64 else np.round(3 * X)
    given_matrix = getattr(sp, f"{form}_{kind}")(X.astype(dtype))
    design = as_design(given_matrix)
    assert isinstance(design, Csc)
    assert design.data.dtype == (np.float32 if dtype == np.float32 else np.float64)
    assert design.indices.dtype == design.indptr.dtype == np.int32
    assert design.shape == (6, 4)
    assert design.nbytes == design.data.nbytes + design.indices.nbytes + design.indptr.nbytes
    assert sp.csc_array((design.data, design.indices, design.indptr), shape=X.shape).has_canonical_format
    np.testing.assert_array_equal(design.matvec(np.eye(4)), X)
    np.testing.assert_array_equal(design.rmatvec(np.eye(6)), X.T)


@pytest.mark.parametrize("kind", [sp.csc_array, sp.csc_matrix])
@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize(
    ("indices", "indptr"), [([2, 0, 1], [0, 2, 3]), ([0, 0, 1], [0, 2, 3]), ([2, 2, 0, 1, 1, 0], [0, 3, 6])]
)
def test_csc_that_is_not_canonical(kind: Any, frozen: bool, indices: list[int], indptr: list[int]) -> None:
    data = np.arange(1.0, len(indices) + 1)
    X = kind((data, np.array(indices, np.int32), np.array(indptr, np.int32)), shape=(3, 2))
    for array in (X.data, X.indices, X.indptr):
        array.flags.writeable = not frozen
    before = X.data.copy(), X.indices.copy(), X.indptr.copy()
    expected = X.toarray()
    design = as_design(X)
    assert isinstance(design, Csc)
    check_curvature(block_curvature, design, expected, Groups.equal(2, 2), np.ones(1))
    np.testing.assert_array_equal(design.matvec(np.eye(2)), expected)
    for now, then in zip((X.data, X.indices, X.indptr), before, strict=True):
        np.testing.assert_array_equal(now, then)
        assert now.flags.writeable is not frozen
    assert not X.has_canonical_format
    assert all(np.all(np.diff(design.indices[a:b]) > 0) for a, b in zip(design.indptr, design.indptr[1:], strict=False))


@pytest.mark.parametrize("form", FORMATS)
def test_a_sparse_matrix_is_not_changed(form: str) -> None:
    X = getattr(sp, f"{form}_array")(matrix(np.float64, 6, 4))
    copy = X.copy()
    as_design(X)
    assert type(X) is type(copy)
    assert X.nnz == copy.nnz
    np.testing.assert_array_equal(X.toarray(), copy.toarray())


def test_duplicates_of_a_coo_matrix_stay() -> None:
    X = sp.coo_array((np.ones(4), ([0, 0, 1, 0], [0, 0, 1, 0])), shape=(2, 2))
    np.testing.assert_array_equal(as_design(X).matvec(np.eye(2)), [[3.0, 0.0], [0.0, 1.0]])
    assert X.nnz == 4


def test_explicit_zeros() -> None:
    X = sp.csc_array((np.array([0.0, 2.0, 0.0]), np.array([0, 2, 1]), np.array([0, 2, 3])), shape=(3, 2))
    design = as_design(X)
    check_blocks(design, X.toarray(), np.arange(2), 0, 2, np.ones(1), np.ones((1, 3)), in_a_kernel)
    assert X.nnz == 3


@pytest.mark.parametrize("X", [np.zeros((4, 12)), sp.csc_array((4, 12)), sp.csc_array(np.zeros((4, 12)))])
def test_a_matrix_of_zeros(X: Any) -> None:
    zero = np.zeros((4, 12))
    check_whole(as_design(X), zero, np.ones((12, 2)), np.ones((4, 2)))
    check_all_blocks(as_design(X), zero, 1)
    np.testing.assert_array_equal(block_curvature(as_design(X), Groups.equal(12, 3), np.ones(4)), np.zeros(4))


@pytest.mark.parametrize("row", [0, 1500, 2999])
def test_large_matrices_are_looked_over_in_parts(row: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """By threads of their own, which must not warn of an overflow, and none of which may be forgotten."""
    monkeypatch.setattr("sparseopt.threads.available", lambda: 3)
    X = np.full((3000, 1000), 1e305)
    assert as_design(X).shape == X.shape
    X[row, 999 * row // 2999] = np.inf
    with pytest.raises(ValueError, match=f"X contains inf in row {row}, column {999 * row // 2999}: "):
        as_design(X)


@pytest.mark.parametrize("convert", [np.asarray, sp.csr_array])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_huge_values_are_accepted_though_their_sum_overflows(convert: Any, dtype: type) -> None:
    X = np.full((3, 4), np.finfo(dtype).max)
    X[1] = -X[1]
    np.testing.assert_array_equal(as_design(convert(X)).rmatvec(np.eye(3)), X.T.astype(np.float64))


# -- memory ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_columns_are_used_where_they_lie(dtype: type) -> None:
    X = np.asfortranarray(matrix(dtype))
    assert np.shares_memory(as_design(X).columns, X)
    assert not np.shares_memory(as_design(np.ascontiguousarray(X)).columns, X)
    design = as_design(X)
    assert as_design(design) is design


@pytest.mark.parametrize("kind", [sp.csc_array, sp.csc_matrix])
def test_canonical_csc_is_used_where_it_lies(kind: Any) -> None:
    X = kind(matrix(np.float64))
    design = as_design(X)
    for name in ("data", "indices", "indptr"):
        assert np.shares_memory(getattr(design, name), getattr(X, name))
    assert as_design(design) is design


def freeze(X: Any) -> Any:
    for array in [X] if isinstance(X, np.ndarray) else [X.data, X.indices, X.indptr]:
        array.flags.writeable = False
    return X


@pytest.mark.parametrize("convert", [np.asfortranarray, np.ascontiguousarray, sp.csc_array, sp.csr_array])
def test_read_only_is_no_type_of_its_own(convert: Any) -> None:
    X = matrix(np.float64)
    W, R = np.ones((P, 1)), np.ones((N, 1))
    usual, frozen = as_design(convert(X)), as_design(freeze(convert(X)))
    assert numba.typeof(frozen) == numba.typeof(usual)
    check_whole(usual, X, W, R)
    compiled = len(accumulate.signatures), len(some_dots.signatures)
    check_whole(frozen, X, W, R)
    assert (len(accumulate.signatures), len(some_dots.signatures)) == compiled


def test_read_only_arrays_would_have_another_type() -> None:
    X = np.asfortranarray(matrix(np.float64))
    assert numba.typeof(Dense(freeze(X.copy(order="F")).T)) != numba.typeof(Dense(X.T))


def test_an_alias_keeps_its_array_alive() -> None:
    alias = writeable(freeze(np.arange(10_000.0)))
    gc.collect()
    others = [np.full(10_000, -1.0) for _ in range(20)]  # would take the memory, were it free
    np.testing.assert_array_equal(alias, np.arange(10_000.0))
    assert len(others) == 20
    assert alias.flags.writeable
    array = np.arange(3.0)
    assert writeable(array) is array


@pytest.mark.parametrize("build", [dense, csc])
def test_a_design_from_a_memory_map(build: Callable[[np.ndarray], Design], tmp_path: Path) -> None:
    X = matrix(np.float64)
    joblib.dump(build(X), tmp_path / "design")
    mapped = joblib.load(tmp_path / "design", mmap_mode="r")
    assert not mapped[0].flags.writeable
    design = writeable_design(mapped)
    assert type(design) is type(mapped)
    assert design.shape == X.shape
    assert np.shares_memory(design[0], mapped[0])
    del mapped
    gc.collect()
    assert numba.typeof(design) == numba.typeof(build(X))
    check_all_blocks(design, X, 1)


def test_a_dense_design_needs_no_scipy() -> None:
    code = (
        "import sys, sparseopt.designs as d; print(d.as_design([[1.0]]).shape, 'scipy.sparse' in sys.modules, "
        "'pandas' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "(1, 1) False False\n"
