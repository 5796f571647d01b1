"""Designs that are not in memory: their products, the solvers on them, what they read and hold, and a real cluster."""

from __future__ import annotations

import os
import pickle
import re
import signal
import subprocess
import sys
import threading
import tracemalloc
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from sparseopt import Problem, Status, bcd, cross_validate, fista, lam_max, path, select, solve
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
from sparseopt.laws import check_solver
from sparseopt.laws.problems import solver_problems
from sparseopt.solution import ConvergenceWarning
from sparseopt.solvers import StreamedDescent, descent, held, streamed

N, P = 61, 23


def matrix(dtype: Any = np.float64, n: int = N, p: int = P, density: float = 0.6, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    X = (4.0 * rng.standard_normal((n, p)) + 1.0) * (rng.random((n, p)) < density)
    return X.astype(dtype)


def mapped(X: np.ndarray, folder: Path, order: str = "C") -> np.ndarray:
    np.save(folder / "X.npy", np.asarray(X, order=order))
    return np.load(folder / "X.npy", mmap_mode="r")


def chunked(X: np.ndarray, sizes: Any, convert: Callable = np.asarray) -> da.Array:
    return da.from_array(X, chunks=(sizes, X.shape[1])).map_blocks(convert, dtype=X.dtype, meta=np.empty((0, 0), X.dtype))


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
    exact = [np.linalg.eigvalsh(((X[:, g].T * c) @ X[:, g]).astype(float))[-1] for g in map(groups.__getitem__, range(3))]
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
        return sum(rows_of(self.source, slice(i, i + 1)).total(work, *(r[:1] for r in rows), **shared) for i in range(N))


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
    for L in (block_curvature(design, groups, c), gradient_and_curvature(design, groups, np.ones((40, 1)), np.ones(40))[1]):
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
    "infinity in a sparse block": (lambda _: chunked(spoiled(np.inf), 6, sp.csc_array), ValueError, f"X contains inf {IMPUTE}"),
    "NaN in a map": (lambda folder: mapped(spoiled(np.nan, np.float32), folder), ValueError, f"X contains nan {IMPUTE}"),
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
    with pytest.raises(TypeError, match="^X is read in blocks of rows, and as_cvxpy needs it in memory: build"):
        as_cvxpy(problem)
    report = bcd(problem, tol=1e-9).certify(kinds=["duality_gap", "zero_groups"])
    assert [certificate.verdict.name for certificate in report] == ["PROVED", "PROVED"]
    with pytest.raises(TypeError, match="a saved certificate needs it in memory"):
        report.save(tmp_path / "report.json")
    with pytest.raises(TypeError, match=r"^X is a design of row blocks, and this method reads single columns of it: use"):
        some_dots(problem.design, np.ones((1, N)), 0, 4, np.ones((4, 1)))


# -- solvers -----------------------------------------------------------------------------------------------------------

PROBLEMS = solver_problems()


def blocks_of(problem: Problem) -> Problem:
    return replace(problem, design=RowBlocks(np.ascontiguousarray(problem.design.matvec(np.eye(problem.design.shape[1])))))


def streaming(problem: Problem, method: Callable = bcd) -> Any:
    """The solution on row blocks, as one of the problem in memory."""
    found = method(blocks_of(problem), tol=1e-9)
    assert isinstance(found.problem.design, RowBlocks)
    return replace(found, problem=replace(problem, penalty=found.problem.penalty))


def sparing(monkeypatch: pytest.MonkeyPatch, room: int = 2**30, first: int = 1) -> None:
    """Fetch as few columns as there are reasons for, so that small problems take several fetches."""
    monkeypatch.setattr(streamed, "AT_LEAST", 1)
    monkeypatch.setattr(streamed, "FIRST_GUESS", 1)
    monkeypatch.setattr(descent, "FIRST_GUESS", first)
    monkeypatch.setattr(held, "ROOM", room)


@pytest.mark.parametrize(("room", "first"), [(2**30, 1), (0, 1), (2**30, 20)], ids=["one by one", "no room", "many"])
@pytest.mark.parametrize("layout", ["dense", "sparse"])
def test_the_law_of_solvers(
    layout: str, room: int, first: int, monkeypatch: pytest.MonkeyPatch, small_pieces: None
) -> None:
    sparing(monkeypatch, room, first)
    check_solver(streaming, {name: problem for name, problem in PROBLEMS.items() if layout in name})


def test_fista_works_unchanged() -> None:
    some = {name: problem for name, problem in PROBLEMS.items() if re.search("(squares|poisson), dense, (l2|mcp)", name)}
    assert len(some) > 3
    check_solver(lambda problem: streaming(problem, fista), some)


class ForgetsWhatIsOutside(StreamedDescent):
    """Groups that were never fetched are not looked at."""

    def _check_all(self, chosen: Any) -> Any:
        if hasattr(self.gradients, "only_held"):
            self.gradients.only_held = True
            self._tol = np.inf
            return super(StreamedDescent, self)._check(chosen)
        accuracy, violators = super()._check_all(chosen)
        return 0.0, violators[:0]


class ReadsHalf(StreamedDescent):
    """The columns that are fetched lack the second half of the samples."""

    def __init__(self, problem: Problem, start: Any = None) -> None:
        X = problem.design.source
        super().__init__(problem, start) if start is not None else super().__init__(
            replace(problem, design=RowBlocks(np.where(np.arange(len(X))[:, None] < len(X) // 2, X, 0.0)))
        )
        self.whole = problem


class ForgetsTheIntercept(StreamedDescent):
    def intercept_of(self, features: Any, values: Any) -> Any:
        return 0.0 * super().intercept_of(features, values)


@pytest.mark.parametrize("wrong", [ForgetsWhatIsOutside, ReadsHalf, ForgetsTheIntercept])
@pytest.mark.parametrize("name", ["squares, dense, l2", "logistic, dense, l2"])
def test_wrong_solvers_are_rejected(wrong: type[StreamedDescent], name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sparing(monkeypatch)
    some = {each: problem for each, problem in PROBLEMS.items() if each.startswith(name) and problem.intercept}
    assert some
    check_solver(streaming, some)
    monkeypatch.setattr(streamed, "StreamedDescent", wrong)
    with pytest.raises(AssertionError):
        check_solver(streaming, some)


def tall(n: int = 300, p: int = 120, seed: int = 0) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, p)) + 1.0
    signal = X[:, :9] @ rng.standard_normal(9)
    signal = (signal - signal.mean()) / signal.std()
    noise = rng.standard_normal(n)
    return X, {
        "squares": signal + noise,
        "responses": np.column_stack([signal, -signal]) + rng.standard_normal((n, 2)),
        "logistic": (signal + noise > 0.0).astype(float),
        "poisson": rng.poisson(np.exp(0.5 * signal)).astype(float),
    }


KINDS: dict[str, dict[str, Any]] = {
    "group lasso": {},
    "no intercept": {"intercept": False},
    "sparse group lasso": {"l1_ratio": 0.3},
    "lasso": {"l1_ratio": 1.0},
    "ridge": {"ridge": 0.1},
    "a free group": {"weights": {"1": 0.0}},
    "weights and offset": {"sample_weight": np.arange(300.0) / 3e4, "offset": np.linspace(-0.1, 0.1, 300)},
    "log": {"penalty": "log"},
    "composite": {"penalty": "log", "composite": True},
}


@pytest.mark.parametrize("options", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("name", tall()[1])
def test_paths_are_those_in_memory(name: str, options: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    sparing(monkeypatch)
    X, targets = tall()
    loss = {"loss": "squares" if name == "responses" else name}
    usual = Problem.build(X, targets[name], 3, **loss, **options)
    blocks = replace(usual, design=RowBlocks(X))
    here, there = (path(problem, n_lams=12, ratio=0.02, tol=1e-8) for problem in (usual, blocks))
    assert set(there.statuses) == {Status.CONVERGED}
    assert there.problem is blocks
    np.testing.assert_allclose(there.lams, here.lams, rtol=1e-9, atol=1e-12)
    assert lam_max(blocks) == pytest.approx(lam_max(usual), rel=1e-9, abs=1e-12)
    for k in range(0, 12, 4):
        found = replace(there[k], problem=usual.at(there.lams[k]))
        assert there[k].objective == pytest.approx(found.objective, rel=1e-11)
        assert there.objective[k] == pytest.approx(found.objective, rel=1e-9)
        if usual.is_convex:
            assert found.gap <= 1.01e-8
            assert found.gap == pytest.approx(there[k].gap, abs=1e-10)
            assert found.objective == pytest.approx(here.objective[k], rel=1e-8)
        elif k > 0:  # at lam_max itself a group is at its jump
            assert found.stationarity <= 1.01e-8


@pytest.mark.parametrize("penalty", ["l2", "log", "mcp", "l0", "lambertw"])
@pytest.mark.parametrize("name", ["squares", "logistic"])
def test_lam_max(name: str, penalty: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where groups differ in scale, another one wakes first than the one of the largest gradient."""
    sparing(monkeypatch)
    X, targets = tall()
    X *= np.repeat(10.0 ** np.linspace(-1.0, 1.0, 40), 3)
    usual = Problem.build(X, targets[name], 3, loss=name, penalty=penalty)
    assert lam_max(replace(usual, design=RowBlocks(X))) == pytest.approx(lam_max(usual), rel=1e-12)


@pytest.mark.parametrize("name", ["squares", "logistic"])
def test_a_start_is_used(name: str) -> None:
    X, targets = tall()
    problem = Problem.build(RowBlocks(X), targets[name], 3, loss=name, lam=0.02)
    first = solve(problem, tol=1e-9)
    again = solve(problem, first, tol=1e-8)
    assert again.epochs < first.epochs
    assert again.objective == pytest.approx(first.objective, rel=1e-8)


def test_no_penalty_at_all() -> None:
    X, targets = tall(n=200, p=12)
    for problem in (Problem.build(RowBlocks(X), targets["squares"], 3, lam=0.0), Problem.build(X, targets["squares"], 3, lam=0.0)):
        w = solve(problem, tol=1e-10).w
        exact = np.linalg.lstsq(np.column_stack([X, np.ones(200)]), targets["squares"])[0]
        np.testing.assert_allclose(w, exact[:-1], atol=1e-5)


def test_columns_that_depend_on_each_other() -> None:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((200, 6)) @ rng.standard_normal((6, 30))
    X = np.hstack([X, np.zeros((200, 3)), X[:, :3]])
    y = X[:, 0] + 0.1 * rng.standard_normal(200)
    usual = Problem.build(X, y, 3)
    here, there = (path(problem, n_lams=10, tol=1e-7) for problem in (usual, replace(usual, design=RowBlocks(X))))
    np.testing.assert_allclose(there.objective, here.objective, rtol=1e-7)
    for k in (3, 9):
        assert replace(there[k], problem=usual.at(there.lams[k])).gap <= 1.01e-7


def test_y_that_x_explains_wholly() -> None:
    X, _ = tall()
    problem = Problem.build(RowBlocks(X), X @ np.arange(120.0), 3)
    solution = path(problem, n_lams=8, ratio=1e-3)[-1]
    assert solution.gap <= 1.01e-6


def test_limits_are_reported() -> None:
    X, targets = tall()
    for name in ("squares", "logistic"):
        problem = Problem.build(RowBlocks(X), targets[name], 3, loss=name, lam=0.001)
        with pytest.warns(ConvergenceWarning):
            solution = solve(problem, tol=1e-10, max_epochs=2)
        assert solution.status is Status.MAX_EPOCHS
        assert solution.history[-1][2] == pytest.approx(solution.gap, rel=1e-3)


def test_selection_and_validation() -> None:
    X, targets = tall(n=120, p=24)
    usual = Problem.build(X, targets["squares"][:120], 3, lam=0.1)
    blocks = replace(usual, design=RowBlocks(X))
    for method in ("splicing", "omp", "iht", "exact"):
        np.testing.assert_array_equal(select(blocks, 2, method).support, select(usual, 2, method).support)
    here, there = (cross_validate(problem, cv=3, n_lams=8, tol=1e-8) for problem in (usual, blocks))
    np.testing.assert_allclose(there.fold_losses, here.fold_losses, rtol=1e-5)


# -- passes ------------------------------------------------------------------------------------------------------------


def wide(loss: str, n: int, p: int = 600) -> Problem:
    rng = np.random.default_rng(3)
    X = rng.standard_normal((n, p))
    X[:, 1:] += 0.5 * X[:, :-1]
    signal = X[:, rng.choice(p, 20, replace=False)] @ rng.standard_normal(20)
    signal /= signal.std()
    y = signal + 0.5 * rng.standard_normal(n)
    return Problem.build(RowBlocks(X), y if loss == "squares" else y > 0.0, 3, loss=loss)


PASSES = {  # in all, over 40 lams
    "squares, n > p": (wide("squares", 900), {}, 8),
    "squares, n > p, mcp": (wide("squares", 900), {"penalty": "mcp"}, 9),
    "squares, n < p": (wide("squares", 300), {}, 60),
    "logistic": (wide("logistic", 900), {}, 60),
    "logistic, composite": (wide("logistic", 900), {"penalty": "log", "composite": True}, 80),
}


@pytest.mark.parametrize(("problem", "options", "most"), PASSES.values(), ids=PASSES)
def test_passes_of_a_path(problem: Problem, options: dict, most: int) -> None:
    if options:
        problem = Problem.build(problem.design, problem.loss.y[:, 0], 3, loss=problem.loss.name, **options)
    problem.design.passes = 0
    found = path(problem, n_lams=40, ratio=0.05, tol=1e-8)
    assert all(status.ok for status in found.statuses)
    assert found.n_active[-1] > 5
    assert problem.design.passes <= most


class ReadsForEveryCheck(StreamedDescent):
    def _check(self, chosen: Any) -> Any:
        self._follow()
        self.gradients.complete = False
        return self._check_all(chosen)


class FetchesOneByOne(StreamedDescent):
    def __init__(self, problem: Problem, start: Any = None) -> None:
        super().__init__(problem, start)
        self.store.extra = lambda wanted: 0  # type: ignore[method-assign]


@pytest.mark.parametrize(
    ("wrong", "name"), [(ReadsForEveryCheck, "logistic"), (FetchesOneByOne, "squares, n > p")]
)
def test_wasted_passes_are_noticed(wrong: type, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streamed, "StreamedDescent", wrong)
    monkeypatch.setattr("sparseopt.paths.StreamedDescent", wrong)
    with pytest.raises(AssertionError, match="passes"):
        test_passes_of_a_path(*PASSES[name])


# -- memory ------------------------------------------------------------------------------------------------------------


def in_a_process(*arguments: object) -> subprocess.CompletedProcess[str]:
    script = Path(__file__).with_name("row_blocks_process.py")
    one = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, str(script), *map(str, arguments)], capture_output=True, text=True, env=os.environ | one
    )


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """200 MB by rows."""
    file = tmp_path_factory.mktemp("large") / "X.npy"
    X = np.lib.format.open_memmap(file, "w+", np.float32, (100_000, 500))
    rng = np.random.default_rng(0)
    for at in range(0, len(X), 10_000):
        X[at : at + 10_000] = rng.standard_normal((10_000, 500), np.float32)
    X.flush()
    return file


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_DATA counts private mappings on Linux only")
@pytest.mark.parametrize(("loss", "megabytes"), [("squares", 120), ("logistic", 170)])
def test_a_large_map_needs_little_memory(loss: str, megabytes: int, large: Path) -> None:
    done = in_a_process(large, loss, megabytes)
    assert done.stdout == "True True\n", done.stderr
    copied = in_a_process(large, loss, megabytes, "copy")
    assert "MemoryError" in copied.stderr
    assert copied.stdout == ""


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


# -- a cluster ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    from distributed import Client, LocalCluster

    with LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as two:
        with Client(two) as client:
            yield client


def dies_once(block: np.ndarray, armed: str) -> np.ndarray:
    """A block whose reader is killed, if a file says so; the file is gone then."""
    try:
        os.unlink(armed)
    except FileNotFoundError:
        return block
    os.kill(os.getpid(), signal.SIGKILL)
    return block


@pytest.mark.parametrize("loss", ["squares", "logistic"])
def test_two_workers(cluster: Any, loss: str) -> None:
    X, targets = tall()
    usual = Problem.build(X, targets[loss], 3, loss=loss)
    for convert in (np.asarray, sp.csr_array):
        there = path(replace(usual, design=as_design(chunked(X, 50, convert))), n_lams=10, tol=1e-8)
        here = path(replace(usual, design=RowBlocks(X)), n_lams=10, tol=1e-8)
        np.testing.assert_allclose(there.objective, here.objective, rtol=1e-10)
        assert there[9].gap <= 1.01e-8
    assert len(cluster.scheduler_info()["workers"]) == 2


def test_a_killed_worker_is_made_up_for(cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sparing(monkeypatch)
    X, targets = tall()
    armed = tmp_path / "armed"
    source = da.from_array(X, chunks=(50, 120)).map_blocks(dies_once, armed=str(armed), meta=np.empty((0, 0)))
    design = as_design(source)
    before = {worker["id"] for worker in cluster.scheduler_info()["workers"].values()}
    pids = set(cluster.run(os.getpid).values())
    problem = Problem.build(design, targets["logistic"], 3, loss="logistic")
    usual = path(replace(problem, design=RowBlocks(X)), n_lams=10, tol=1e-8)
    monkeypatch.setattr(design, "rmatvec", arming(design.rmatvec, armed, 4))
    found = path(problem, n_lams=10, tol=1e-8)
    assert not armed.exists()
    assert len(before) == 2
    cluster.wait_for_workers(2)
    assert set(cluster.run(os.getpid).values()) != pids, "nobody was killed"
    np.testing.assert_allclose(found.objective, usual.objective, rtol=1e-10)


def arming(product: Callable, file: Path, when: int) -> Callable:
    """The product, before whose call number `when` the file is made."""
    calls = iter(range(1, 10**6))

    def armed(R: Any) -> Any:
        if next(calls) == when:
            file.touch()
        return product(R)

    return armed


def test_large_rows_do_not_warn(cluster: Any) -> None:
    """A cluster warns of graphs beyond 10 MB, and warnings are errors here."""
    n = 1_000_000
    X = da.ones((n, 2), chunks=(n // 2, 2))
    np.testing.assert_allclose(as_design(X).rmatvec(np.ones((n, 2))), n)
