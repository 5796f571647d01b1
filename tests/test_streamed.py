"""Solvers on designs that are not in memory: laws, paths, what they read and hold, and a real cluster."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import scipy.sparse as sp
from row_block_cases import chunked, tall

from sparseopt import Problem, Status, bcd, cross_validate, fista, lam_max, path, select, solve
from sparseopt.designs import RowBlocks, as_design, rows
from sparseopt.laws import check_solver
from sparseopt.laws.problems import solver_problems
from sparseopt.solution import ConvergenceWarning
from sparseopt.solvers import StreamedDescent, descent, held, streamed


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several pieces per block, as a large X has."""
    monkeypatch.setattr(rows, "PIECE", 100)
    monkeypatch.setattr(rows, "FEWEST", 1)


PROBLEMS = solver_problems()


def blocks_of(problem: Problem) -> Problem:
    return replace(
        problem, design=RowBlocks(np.ascontiguousarray(problem.design.matvec(np.eye(problem.design.shape[1]))))
    )


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
    some = {
        name: problem for name, problem in PROBLEMS.items() if re.search("(squares|poisson), dense, (l2|mcp)", name)
    }
    assert len(some) > 3
    check_solver(lambda problem: streaming(problem, fista), some)


class ForgetsWhatIsOutside(StreamedDescent):
    """Groups that were never fetched are not looked at."""

    def _check_all(self, chosen: Any) -> Any:
        if hasattr(self.gradients, "only_held"):
            self.gradients.only_held = True
            self._tol = np.inf
            return super(StreamedDescent, self)._check(chosen)
        return 0.0, super()._check_all(chosen)[1][:0]


class ReadsHalf(StreamedDescent):
    """The columns that are fetched lack the second half of the samples."""

    def __init__(self, problem: Problem, start: Any = None, n_lams: int = 1) -> None:
        X = problem.design.source
        half = RowBlocks(np.where(np.arange(len(X))[:, None] < len(X) // 2, X, 0.0))
        super().__init__(replace(problem, design=half) if start is None else problem, start, n_lams)
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


@pytest.mark.parametrize("name", ["squares", "poisson"])
def test_no_penalty_at_all(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sparing(monkeypatch)
    X, targets = tall(n=300, p=30)
    usual = Problem.build(X, targets[name], 3, loss=name, lam=0.0)
    found = solve(replace(usual, design=RowBlocks(X)), tol=1e-9)
    np.testing.assert_allclose(found.w, solve(usual, tol=1e-9).w, atol=1e-3)
    assert replace(found, problem=usual).gap <= 1.01e-9


def test_columns_that_depend_on_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    sparing(monkeypatch)
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


def test_limits_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last accuracy is that of the whole problem, though groups that nobody fetched were not looked at before."""
    sparing(monkeypatch)
    X, targets = tall()
    for name, limit in (("squares", 2), ("logistic", 20)):
        problem = Problem.build(RowBlocks(X), targets[name], 3, loss=name, lam=0.001)
        with pytest.warns(ConvergenceWarning):
            solution = solve(problem, tol=1e-10, max_epochs=limit)
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


def test_criteria_read_twice() -> None:
    problem = wide("logistic", 400)
    found = path(problem, n_lams=15, ratio=0.05)
    problem.design.passes = 0
    usual = replace(found, problem=replace(problem, design=as_design(problem.design.source)))
    np.testing.assert_allclose(found.criterion("bic"), usual.criterion("bic"), rtol=1e-10)
    assert problem.design.passes == 2


class ReadsForEveryCheck(StreamedDescent):
    def _check(self, chosen: Any) -> Any:
        self._follow()
        self.gradients.complete = False
        return self._check_all(chosen)


class FetchesOneByOne(StreamedDescent):
    def __init__(self, problem: Problem, start: Any = None, n_lams: int = 1) -> None:
        super().__init__(problem, start, n_lams)
        self.store.extra = lambda wanted: 0  # type: ignore[method-assign]


@pytest.mark.parametrize(("wrong", "name"), [(ReadsForEveryCheck, "logistic"), (FetchesOneByOne, "squares, n > p")])
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
@pytest.mark.parametrize(
    ("loss", "megabytes"), [("squares", 120), pytest.param("logistic", 170, marks=pytest.mark.slow)]
)
def test_a_large_map_needs_little_memory(loss: str, megabytes: int, large: Path) -> None:
    done = in_a_process(large, loss, megabytes)
    assert done.stdout == "True True\n", done.stderr
    copied = in_a_process(large, loss, megabytes, "copy")
    assert "MemoryError" in copied.stderr
    assert copied.stdout == ""


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
