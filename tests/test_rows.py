"""Designs that are not in memory: their products, what may enter, what is held of them and how often they are read."""

from __future__ import annotations

import pickle
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from row_block_cases import N, P, chunked, mapped, matrix

from sparseopt import Problem, bcd, path
from sparseopt.convex import as_cvxpy
from sparseopt.designs import (
    Csc,
    Dense,
    RowBlocks,
    as_design,
    block_curvature,
    block_grams,
    dense_columns,
    gradient_and_curvature,
    rows,
    take_columns,
    window,
)
from sparseopt.designs.products import some_dots
from sparseopt.groups import Groups

UNEVEN = (1, 30, 7, 0, 23)
SOURCES: dict[str, Callable[[Path], tuple[Any, np.ndarray]]] = {
    "map by rows, float64": lambda folder: (mapped(matrix(), folder), matrix()),
    "map by rows, float32": lambda folder: (mapped(matrix(np.float32), folder), matrix(np.float32)),
    "map by rows, int8": lambda folder: (mapped(matrix(np.int8), folder), matrix(np.int8)),
    "map by rows, foreign bytes": lambda folder: (mapped(matrix(">f8"), folder), matrix()),
    "map by columns, int16": lambda folder: (mapped(matrix(np.int16), folder, "F"), matrix(np.int16)),
    "part of a map": lambda folder: (mapped(matrix(), folder)[3:50:2, 4:9], matrix()[3:50:2, 4:9]),
    "dask, float64": lambda folder: (chunked(matrix(), 20), matrix()),
    "dask, float32": lambda folder: (chunked(matrix(np.float32), 20), matrix(np.float32)),
    "dask, integers": lambda folder: (chunked(matrix(np.int32), 20), matrix(np.int32)),
    "dask, uneven blocks": lambda folder: (chunked(matrix(), UNEVEN), matrix()),
    "dask, single rows": lambda folder: (chunked(matrix(np.float32), 1), matrix(np.float32)),
    "dask, one block": lambda folder: (chunked(matrix(), N), matrix()),
    "dask, csr": lambda folder: (chunked(matrix(), UNEVEN, sp.csr_array), matrix()),
    "dask, csc matrix": lambda folder: (chunked(matrix(np.float32), 20, sp.csc_matrix), matrix(np.float32)),
    "dask, coo of integers": lambda folder: (chunked(matrix(np.int64), 9, sp.coo_array), matrix(np.int64)),
}
sources = pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several pieces per block, as a large X has."""
    monkeypatch.setattr(rows, "PIECE", 5 * P)
    monkeypatch.setattr(rows, "FEWEST", 1)


# -- products ----------------------------------------------------------------------------------------------------------


def assert_close(found: np.ndarray, exact: np.ndarray, size: np.ndarray) -> None:
    """Within 1e-12 of the sum of magnitudes, as float64 sums are and float32 sums are not."""
    assert found.shape == exact.shape
    assert (np.abs(found - exact) <= 1e-12 * size).all()


def check_design(design: RowBlocks, X: np.ndarray) -> None:
    """All that a design offers, against its definition."""
    rng = np.random.default_rng(1)
    kept = X.dtype if X.dtype == np.float32 else np.dtype(np.float64)
    X = X.astype(np.longdouble)
    (n, p), size = X.shape, np.abs(X)
    assert design.shape == (n, p)
    W, R, c = rng.standard_normal((p, 2)), rng.standard_normal((n, 3)), rng.random(n)
    assert design.rmatvec(R).dtype == design.matvec(W).dtype == np.float64
    assert_close(design.rmatvec(R), X.T @ R, size.T @ np.abs(R))
    for used in (p, 2, 0):
        W[used:] = 0.0
        assert_close(design.matvec(W), X @ W, size @ np.abs(W))
    features = rng.permutation(p)[:4]
    part = take_columns(design, features)
    assert part.shape == (n, 4)
    assert (part.columns if isinstance(part, Dense) else part.data).dtype == kept
    np.testing.assert_array_equal(part.matvec(np.eye(4)), X[:, features])
    for some in (features, np.arange(p), features[:0]):
        np.testing.assert_array_equal(dense_columns(design, some), X[:, some])
    groups = Groups.from_labels(np.arange(p) % 3)
    for g, H in zip((1, 0), block_grams(design, groups, [1, 0], c), strict=True):
        block = X[:, groups[g]]
        assert_close(H, (block.T * c) @ block, (np.abs(block).T * c) @ np.abs(block))
    exact = [
        np.linalg.eigvalsh(((X[:, g].T * c) @ X[:, g]).astype(float))[-1] for g in map(groups.__getitem__, range(3))
    ]
    np.testing.assert_allclose(block_curvature(design, groups, c), exact, rtol=1e-11)
    V, L = gradient_and_curvature(design, groups, R, c)
    assert_close(V, X.T @ R, size.T @ np.abs(R))
    np.testing.assert_allclose(L, exact, rtol=1e-11)


@sources
def test_products(source: Callable, tmp_path: Path, small_pieces: None) -> None:
    X, expected = source(tmp_path)
    design = as_design(X)
    assert isinstance(design, RowBlocks)
    assert as_design(design) is design
    assert design.nbytes == X.nbytes
    check_design(design, expected)


class DropsTheLastBlock(RowBlocks):
    def total(self, work: Any, *rows: Any, **shared: Any) -> Any:
        return rows_of(self.source, -1).total(work, *(row[:-1] for row in rows), **shared)


class GivesAllTheFirstRows(RowBlocks):
    def total(self, work: Any, *rows: Any, **shared: Any) -> Any:
        return sum(
            rows_of(self.source, slice(i, i + 1)).total(work, *(r[:1] for r in rows), **shared) for i in range(N)
        )


class SumsInSingle(RowBlocks):
    def rmatvec(self, R: Any) -> Any:
        return super().rmatvec(R).astype(np.float32).astype(float)


class RoundsTheFactor(RowBlocks):
    def matvec(self, W: Any) -> Any:
        return super().matvec(W.astype(np.float32))


class SortsTheColumns(RowBlocks):
    def gather(self, features: Any) -> Any:
        return super().gather(np.sort(features))


class Widens(RowBlocks):
    def gather(self, features: Any) -> Any:
        return Dense(super().gather(features).columns.astype(np.float64))


def rows_of(X: np.ndarray, which: Any) -> RowBlocks:
    return RowBlocks(X[which] if isinstance(which, slice) else X[:which])


@pytest.mark.parametrize(
    "wrong", [DropsTheLastBlock, GivesAllTheFirstRows, SumsInSingle, RoundsTheFactor, SortsTheColumns, Widens]
)
def test_wrong_products_are_rejected(wrong: type[RowBlocks]) -> None:
    X = matrix(np.float32)
    check_design(RowBlocks(X), X)
    with pytest.raises(AssertionError):
        check_design(wrong(X), X)


def test_a_group_of_many_features(tmp_path: Path) -> None:
    X = matrix(n=40, p=600)
    groups, c = Groups.from_sizes([560, 40]), np.ones(1)
    expected = [np.linalg.svd(X[:, groups[g]], compute_uv=False)[0] ** 2 for g in (0, 1)]
    design = as_design(mapped(X, tmp_path))
    for L in (
        block_curvature(design, groups, c),
        gradient_and_curvature(design, groups, np.ones((40, 1)), np.ones(40))[1],
    ):
        assert (L >= 0.999999 * np.array(expected)).all()
        assert (L <= 1.02 * np.array(expected)).all()


def test_window() -> None:
    X = matrix(np.float32)
    for build in (as_design, lambda X: as_design(sp.csc_array(X))):
        some = window(build(X[:, [7, 2, 5]]), [7, 2, 5], P)
        assert some.shape == X.shape
        np.testing.assert_array_equal(dense_columns(some, [5, 7]), X[:, [5, 7]])
        np.testing.assert_array_equal(take_columns(some, [2]).matvec(np.eye(1)), X[:, [2]])
        W = np.zeros((P, 2))
        W[[2, 5]] = 1.0, 2.0
        np.testing.assert_allclose(some.matvec(W), X @ W, rtol=1e-6)
        with pytest.raises(ValueError, match=r"^column 3 of X is not among the 3 in memory\.$"):
            some.matvec(np.eye(P)[:, [3]])
        with pytest.raises(ValueError, match="column 0 of X"):
            take_columns(some, [5, 0])


# -- where it is kept --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_a_map_by_columns_is_used_in_place(dtype: Any, tmp_path: Path) -> None:
    X = mapped(matrix(dtype), tmp_path, "F")
    design = as_design(X)
    assert isinstance(design, Dense)
    assert design.columns.dtype == dtype
    assert np.shares_memory(design.columns, X)


def test_a_map_that_fits_can_be_read_into_memory(tmp_path: Path) -> None:
    assert isinstance(as_design(np.asarray(mapped(matrix(), tmp_path))), Dense)


def test_every_pass_is_counted(small_pieces: None) -> None:
    reads = []

    def read(block: np.ndarray) -> np.ndarray:
        reads.append(len(block))
        return block

    def check(kind: type[RowBlocks]) -> None:
        reads.clear()
        design = kind(da.from_array(matrix(), chunks=(20, P)).map_blocks(read, meta=np.empty((0, 0))))
        path(Problem.build(design, matrix()[:, 0]), n_lams=5)
        assert len(reads) == 4 * design.passes > 0

    class KeepsSilent(RowBlocks):
        def gather(self, features: Any) -> Any:
            found = super().gather(features)
            self.passes -= 1
            return found

        def total(self, *args: Any, **shared: Any) -> Any:
            found = super().total(*args, **shared)
            self.passes -= 1
            return found

    with dask.config.set(scheduler="synchronous"):
        check(RowBlocks)
        with pytest.raises(AssertionError):
            check(KeepsSilent)


@sources
def test_pickle(source: Callable, tmp_path: Path) -> None:
    X, expected = source(tmp_path)
    problem = Problem.build(X, expected[:, 0], groups=1, lam=0.5)
    copy = pickle.loads(pickle.dumps(pickle.loads(pickle.dumps(problem))))
    assert isinstance(copy.design, RowBlocks)
    check_design(copy.design, expected)
    assert bcd(copy).objective == bcd(problem).objective
    if isinstance(X, np.memmap):
        assert len(pickle.dumps(as_design(X))) < 1000


def test_what_cannot_be_pickled_says_so() -> None:
    with pytest.raises(TypeError, match="mapped without the name of a file, so it cannot be pickled: open it with"):
        pickle.dumps(RowBlocks(matrix()))


def test_dask_is_not_imported_for_others(tmp_path: Path) -> None:
    mapped(matrix(), tmp_path)
    code = (
        "import sys, numpy as np; from sparseopt import *; "
        f"X = np.load({str(tmp_path / 'X.npy')!r}, mmap_mode='r'); "
        "print(type(bcd(Problem.build(X, X[:, 0], lam=0.5)).problem.design).__name__, 'dask' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "RowBlocks False\n"


# -- what is refused ---------------------------------------------------------------------------------------------------


def spoiled(value: float, dtype: Any = np.float64) -> np.ndarray:
    X = matrix(dtype)
    X[47, 5] = value  # in block 7 of 6 rows each
    return X


def crooked(block: np.ndarray) -> sp.csr_array:
    X = sp.csr_array(block)
    X.indices[0] = 99
    return X


IMPUTE = "in row 47, column 5: impute or drop missing and infinite values."
frame = dd.from_pandas(pd.DataFrame({"a": [1.0, 2.0]}), npartitions=1)
REFUSED: dict[str, tuple[Callable[[Path], Any], type[Exception], str]] = {
    "NaN in block 7": (lambda _: chunked(spoiled(np.nan), 6), ValueError, f"X contains nan {IMPUTE}"),
    "infinity in a sparse block": (lambda _: chunked(spoiled(np.inf), 6, sp.csc_array), ValueError,
                                   f"X contains inf {IMPUTE}"),
    "NaN in a map": (lambda folder: mapped(spoiled(np.nan, np.float32), folder), ValueError,
                     f"X contains nan {IMPUTE}"),
    "unknown chunks": (lambda _: chunked(matrix(), 6)[da.from_array(np.arange(N), chunks=6) > 3], ValueError,
                       "X has chunks of unknown size: call X.compute_chunk_sizes() first."),
    "chunks of columns": (lambda _: da.from_array(matrix(), chunks=(20, 6)), ValueError,
                          "X has its columns in 4 chunks: pass blocks of whole rows, X.rechunk({0: 'auto', 1: -1})."),
    "1-d": (lambda _: da.ones(5), ValueError,
            "X has 1 dimensions: pass a matrix, one row per sample and one column per feature."),
    "1-d map": (lambda folder: mapped(np.ones(5), folder), ValueError,
                "X has 1 dimensions: pass a matrix, one row per sample and one column per feature."),
    "no rows": (lambda _: da.ones((0, 3)), ValueError,
                "X has the shape (0, 3): pass at least one sample and one feature."),
    "complex": (lambda _: da.ones((4, 3), dtype=complex), TypeError, "X has dtype complex128: pass real numbers."),
    "complex map": (lambda folder: mapped(matrix(complex), folder), TypeError,
                    "X has dtype complex128: pass real numbers."),
    "blocks of another type": (lambda _: chunked(matrix(), 6, lambda block: block.astype(complex)), TypeError,
                               "X has a block of dtype complex128: pass real numbers."),
    "narrow blocks": (lambda _: chunked(matrix(), 30, lambda block: block[:, :4]), ValueError,
                      "X has a block of 4 columns at row 0, not of 23: correct it."),
    "short blocks": (lambda _: chunked(matrix(), 30, lambda block: block[:-1]), ValueError,
                     "X has blocks of 58 rows, but says it has 61: call X.compute_chunk_sizes()."),
    "indices outside": (lambda _: chunked(matrix(), 30, crooked), ValueError,
                        "X has a sparse block with indices beyond its 23 columns: build it again."),
    "data frame": (lambda _: frame, TypeError,
                   "X is a Dask DataFrame: pass an array, such as X.to_dask_array(lengths=True)."),
}  # fmt: skip


@pytest.mark.parametrize(("build", "kind", "sentence"), REFUSED.values(), ids=REFUSED)
def test_refused(build: Callable, kind: type[Exception], sentence: str, tmp_path: Path) -> None:
    with pytest.raises(kind) as caught:
        as_design(build(tmp_path))
    assert str(caught.value) == sentence


def test_huge_values_are_accepted_though_their_sum_overflows() -> None:
    as_design(chunked(np.full((6, 2), np.finfo(float).max), 2))


def test_what_needs_x_in_memory_says_so(tmp_path: Path) -> None:
    problem = Problem.build(mapped(matrix(), tmp_path), matrix()[:, 0], lam=0.5)
    with pytest.raises(TypeError, match=r"^X is read in blocks of rows, and as_cvxpy needs it in memory: build"):
        as_cvxpy(problem)
    report = bcd(problem, tol=1e-9).certify(kinds=["duality_gap", "zero_groups"])
    assert [certificate.verdict.name for certificate in report] == ["PROVED", "PROVED"]
    with pytest.raises(TypeError, match="a saved certificate needs it in memory"):
        report.save(tmp_path / "report.json")
    with pytest.raises(
        TypeError, match=r"^X is a design of row blocks, and this method reads single columns of it: use"
    ):
        some_dots(problem.design, np.arange(4), np.ones((1, N)), 0, 4, np.ones((4, 1)))


# -- columns of sparse designs -----------------------------------------------------------------------------------------


def peak(work: Callable[[], Any]) -> int:
    """Bytes that `work` allocates at most, beside what was there."""
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    kept = work()
    most = tracemalloc.get_traced_memory()[1] - before
    tracemalloc.stop()
    del kept
    return most


@pytest.mark.parametrize("index", [np.int32, np.int64])
def test_columns_of_a_sparse_design_are_copied_once(index: type) -> None:
    X = sp.random_array((20_000, 400), density=0.05, format="csc", dtype=np.float32, rng=np.random.default_rng(0))
    X.indices, X.indptr = X.indices.astype(index), X.indptr.astype(index)
    design = as_design(X)
    features = np.arange(399)
    part = take_columns(design, features)  # compiles
    np.testing.assert_array_equal(part.matvec(np.eye(399)[:, :5]), X[:, :5].toarray())

    def by_index() -> Csc:
        starts, lengths = design.indptr[features], np.diff(design.indptr)[features]
        indptr = np.concatenate([[0], np.cumsum(lengths)])
        entries = np.arange(indptr[-1]) - np.repeat(indptr[:-1], lengths) + np.repeat(starts, lengths)
        return Csc(design.data[entries], design.indices[entries], indptr, design.n_samples)

    assert peak(lambda: take_columns(design, features)) < 1.05 * part.nbytes
    assert peak(by_index) > 1.5 * part.nbytes
    assert peak(lambda: as_design(X)) < (0.05 if index is np.int32 else 0.6) * X.data.nbytes * 2
    repeated = np.array([3, 3, 0, 3])
    np.testing.assert_array_equal(take_columns(design, repeated).matvec(np.eye(4)), X.toarray()[:, repeated])
    np.testing.assert_array_equal(dense_columns(design, repeated), X.toarray()[:, repeated])
