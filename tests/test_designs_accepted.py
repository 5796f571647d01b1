"""Designs: every matrix that may enter means what it says, and every other one is refused in a sentence."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
import scipy.sparse as sp
from design_cases import check_all_blocks, check_blocks, check_curvature, check_whole, in_a_kernel, matrix

from sparseopt.designs import Csc, Dense, as_design, block_curvature
from sparseopt.groups import Groups

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
