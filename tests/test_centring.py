"""Columns far from zero: with an intercept, every solver and selector answers as if they lay at zero."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

from sparseopt import GroupSubsetRegressor, Path, Problem, Status, bcd, fista, lam_max, path, select, select_path
from sparseopt import centring as module
from sparseopt.centring import Centred, centred
from sparseopt.selection import METHODS

RNG = np.random.default_rng(0)
X = RNG.normal(size=(120, 20))
Y = X[:, :6] @ RNG.normal(size=6) + 0.3 * RNG.normal(size=120)
DISTANCES = np.where(np.arange(20) % 3, [-1e8], [3e7])
DISTANCES[[4, 9]] = 0.0


def beside(problem: Problem) -> tuple[np.ndarray, np.ndarray]:
    """A point that is no solution and better than zero, and the same one wherever columns lie."""
    w = np.zeros((20, problem.n_outputs))
    w[:6] = 0.01 * np.sign((X - X.mean(axis=0)).T @ Y)[:6, None]
    b = problem.loss.null_intercept() - problem.design.matvec(w)[0]
    return (w, b) if problem.n_outputs > 1 else (w[:, 0], b[0])


SOLVERS: dict[str, Callable[[Problem], Any]] = {
    "bcd": lambda problem: bcd(problem, tol=1e-9),
    "bcd from a point": lambda problem: bcd(problem, beside(problem), tol=1e-9),
    "fista": lambda problem: fista(problem, tol=1e-9),
    "path": lambda problem: path(problem, [0.2, 0.05], tol=1e-9)[-1],
}
PROBLEMS: dict[str, dict[str, Any]] = {
    "squares": {},
    "mcp": {"penalty": "mcp"},
    "ridge and a free group": {"ridge": 0.1, "weights": {"2": 0.0}},
    "logistic": {"loss": "logistic"},
    "several responses": {"outputs": 2},
    "few samples": {"samples": 15},
    "sparse": {"matrix": sp.csc_array},
}


def build(distances: Any, matrix: Any = np.asarray, outputs: int = 1, samples: int = 120, **options: Any) -> Problem:
    y = Y > 0.0 if options.get("loss") == "logistic" else Y
    y = np.column_stack([y, y[::-1]]) if outputs > 1 else y
    return Problem.build(matrix((X + distances)[:samples]), y[:samples], groups=2, lam=0.05, **options)


def check(solve: Callable[[Problem], Any], **options: Any) -> None:
    """The same coefficients as at zero, and the intercept that goes with them."""
    here, there = solve(build(0.0, **options)), solve(build(DISTANCES, **options))
    assert here.status.ok
    assert there.status.ok
    np.testing.assert_allclose(there.w, here.w, atol=1e-6)
    b = here.intercept - DISTANCES @ here.w
    np.testing.assert_allclose(there.intercept, b, rtol=1e-6, atol=1e-6 * np.abs(DISTANCES).max())
    assert there.objective == pytest.approx(here.objective, rel=1e-6)
    assert there.problem.design.matvec(np.eye(20))[0, 0] == pytest.approx(X[0, 0] + DISTANCES[0])


@pytest.mark.parametrize("options", PROBLEMS.values(), ids=PROBLEMS)
@pytest.mark.parametrize("name", SOLVERS)
def test_solvers(name: str, options: dict[str, Any]) -> None:
    check(SOLVERS[name], **options)


def choice(method: str) -> Callable[[Problem], Any]:
    return lambda problem: select(problem, 3, method)


@pytest.mark.parametrize("method", [method for method in METHODS if method != "exact"])
def test_selectors(method: str) -> None:
    check(choice(method))
    check(lambda problem: select_path(problem, [1, 3], method)[-1])


def test_exact_choices_are_the_same_and_say_what_could_not_be_proved() -> None:
    """Their bounds are of the data as they are given, so that others can check them."""
    here, there = choice("exact")(build(0.0)), choice("exact")(build(DISTANCES))
    np.testing.assert_array_equal(here.support, there.support)
    assert here.status is Status.OPTIMAL
    assert there.gap < 0.05
    assert there.status in (Status.OPTIMAL, Status.STALLED)


@pytest.mark.parametrize("solve", [SOLVERS["bcd"], SOLVERS["fista"], choice("splicing")])
def test_without_centring_the_law_fails(solve: Callable[[Problem], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FAR", np.inf)
    with pytest.raises((AssertionError, Warning)):
        check(solve)


def test_an_intercept_that_stays_behind_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Centred, "solution", lambda self, found: found)
    with pytest.raises(AssertionError):
        check(SOLVERS["bcd"])


def test_lam_max_and_default_paths() -> None:
    here, there = build(0.0), build(DISTANCES)
    assert lam_max(there) == pytest.approx(lam_max(here), rel=1e-7)
    paths: list[Path] = [path(problem, n_lams=5, tol=1e-8) for problem in (here, there)]
    np.testing.assert_allclose(paths[1].lams, paths[0].lams, rtol=1e-7)
    np.testing.assert_allclose(paths[1].coefs, paths[0].coefs, atol=1e-5)
    np.testing.assert_allclose(paths[1].deviance, paths[0].deviance, rtol=1e-5)


def test_single_precision() -> None:
    """What is left of X in float32 is solved exactly: 3e6 + x is rounded to a quarter."""
    problem = build(0.1 * DISTANCES, lambda x: x.astype(np.float32))
    seen = problem.design.columns.T.astype(np.float64) - 0.1 * DISTANCES
    exact = bcd(Problem.build(seen, Y, groups=2, lam=0.05), tol=1e-9)
    np.testing.assert_allclose(bcd(problem, tol=1e-9).w, exact.w, atol=1e-6)


def test_estimators_predict_the_same() -> None:
    fitted = [GroupSubsetRegressor(2, k=3).fit(X + distances, Y) for distances in (0.0, DISTANCES)]
    np.testing.assert_allclose(fitted[1].predict(X + DISTANCES), fitted[0].predict(X), atol=1e-5)


@pytest.mark.parametrize(
    "problem",
    [
        build(0.0),
        build(1e3),
        build(DISTANCES, intercept=False),
        Problem.build(np.hstack([X, np.full((120, 2), 1e9)]), Y, groups=2),
        Problem.build(sp.csc_array(1e7 + np.where(np.arange(120) == 7, -1e7, X.T).T), Y, groups=2),
        Problem.build(np.ones((1, 4)), [1.0]),
    ],
    ids=["at zero", "a thousand", "no intercept", "constants", "sparse", "one sample"],
)
def test_x_is_not_copied_without_need(problem: Problem) -> None:
    assert centred(problem).problem is problem


def test_a_column_whose_ends_agree_by_chance_stays() -> None:
    x = RNG.normal(size=(50, 1))
    x[:8] = x[-8:] = 1.0
    problem = Problem.build(x, RNG.normal(size=50))
    assert centred(problem).problem is problem


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_are_found_behind_far_columns(value: float) -> None:
    bad = X + DISTANCES
    bad[5, 0] = value
    with pytest.raises(ValueError, match="in row 5, column 0"):
        Problem.build(bad, Y, groups=2)
