"""Paths by two threads are those by one, up to their tolerance, and the same whenever they are computed again."""

from __future__ import annotations

import threading
from typing import Any

import numba
import numpy as np
import pytest
import scipy.sparse as sp

from sparseopt import Problem, path
from sparseopt.optimality import duality_gap
from sparseopt.solution import ConvergenceWarning
from sparseopt.solvers import BlockDescent, stretches

TOL = 1e-7


@pytest.fixture
def two_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numba.config, "NUMBA_NUM_THREADS", 2)
    monkeypatch.setattr(stretches, "LARGE", 0)


def problem(kind: str = "squares", **how: Any) -> Problem:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 90)) * (rng.random((60, 90)) < 0.5)
    y = X[:, :6].sum(axis=1) + 0.5 * rng.normal(size=60)
    if kind == "logistic":
        return Problem.build(X, (y > 0.0).astype(float), groups=3, loss="logistic", **how)
    if kind == "outputs":
        return Problem.build(X, np.column_stack([y, rng.normal(size=60)]), groups=3, **how)
    return Problem.build(sp.csc_array(X) if kind == "sparse" else X, y, groups=3, **how)


CASES: dict[str, Problem] = {
    **{kind: problem(kind) for kind in ("squares", "sparse", "logistic", "outputs")},
    "no intercept": problem(intercept=False),
    "l1 and ridge": problem(l1_ratio=0.3, ridge=0.1),
    "a free group": problem(weights={"1": 0.0}),
}


def threads_of(monkeypatch: pytest.MonkeyPatch) -> set[int]:
    """Threads that advance, of all paths from now on."""
    seen: set[int] = set()
    advance = BlockDescent.advance

    def watched(self: BlockDescent, *args: Any) -> Any:
        seen.add(threading.get_ident())
        return advance(self, *args)

    monkeypatch.setattr(BlockDescent, "advance", watched)
    return seen


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("name", CASES)
def test_two_threads_find_what_one_finds(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = threads_of(monkeypatch)
    by_two = path(CASES[name], n_lams=25, ratio=0.05, tol=TOL)
    assert len(seen) == 2
    monkeypatch.setattr(stretches, "LONG", 1000)
    by_one = path(CASES[name], n_lams=25, ratio=0.05, tol=TOL)
    np.testing.assert_array_equal(by_two.lams, by_one.lams)
    np.testing.assert_allclose(by_two.objective, by_one.objective, rtol=2.0 * TOL)
    for solution in by_two:
        assert duality_gap(solution.problem, solution.w, solution.intercept).relative <= 1.1 * TOL


@pytest.mark.usefixtures("two_threads")
def test_the_same_path_every_time() -> None:
    first, second = (path(CASES["squares"], n_lams=25, tol=1e-3) for _ in range(2))
    np.testing.assert_array_equal(first.coefs, second.coefs)
    np.testing.assert_array_equal(first.epochs, second.epochs)


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize(
    ("how", "n_lams"), [({"penalty": "mcp"}, 25), ({"penalty": "log", "composite": True}, 25), ({}, 19)]
)
def test_what_depends_on_its_start_and_what_is_short_stays_in_one_piece(
    how: dict[str, Any], n_lams: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = threads_of(monkeypatch)
    path(problem(**how), n_lams=n_lams, ratio=0.3, tol=1e-3)
    assert seen == {threading.get_ident()}


@pytest.mark.usefixtures("two_threads")
def test_both_stretches_count_towards_the_warning() -> None:
    with pytest.warns(ConvergenceWarning, match="of 25 solutions"):
        found = path(CASES["squares"], n_lams=25, ratio=0.05, tol=1e-12, max_epochs=1)
    assert not found.statuses[-1].ok
    assert len(found.statuses) == 25


@pytest.mark.usefixtures("two_threads")
def test_a_stretch_out_of_place_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    at_once = stretches.at_once
    monkeypatch.setattr(stretches, "at_once", lambda *works: at_once(*works)[::-1])
    with pytest.raises(AssertionError):
        test_two_threads_find_what_one_finds("squares", monkeypatch)
