"""Starts of solvers: a bad one costs nothing where F is convex, and a good one is kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from sparseopt import Problem, bcd, fista
from sparseopt.solvers import descent, proximal_gradient
from sparseopt.solvers.starts import starting_point

RNG = np.random.default_rng(0)
X = RNG.normal(size=(120, 20))
Y = X[:, :6] @ RNG.normal(size=6) + 0.3 * RNG.normal(size=120)
LOSSES = ("squares", "huber", "logistic", "poisson")


def build(loss: str, **options: Any) -> Problem:
    y = {"logistic": Y > 0.0, "poisson": np.round(np.exp(0.3 * Y))}.get(loss, Y)
    return Problem.build(X, y, groups=2, lam=0.05, loss=loss, **options)


def check(solve: Callable[..., Any], loss: str, size: float) -> None:
    solution = solve(build(loss), (np.full(20, size), -size), tol=1e-9)
    assert solution.status.ok
    assert solution.gap <= 1.01e-9


@pytest.mark.parametrize("size", [1e2, 1e6, 1e10, 1e200])
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("solve", [bcd, fista])
def test_a_start_far_off_does_no_harm(solve: Callable[..., Any], loss: str, size: float) -> None:
    check(solve, loss, size)


def follow(problem: Problem, start: Any) -> tuple[np.ndarray, np.ndarray]:
    """A start as it is given."""
    if start is None:
        return starting_point(problem, start)
    return problem.matrix(start[0]).copy(), np.full(problem.n_outputs, start[1])


@pytest.mark.parametrize("loss", ["squares", "logistic"])
def test_a_solver_that_follows_it_is_rejected(loss: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(descent, "starting_point", follow)
    with pytest.raises((AssertionError, Warning)):
        check(bcd, loss, 1e6)


def test_a_solver_that_follows_it_is_rejected_by_fista_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proximal_gradient, "starting_point", follow)
    with pytest.raises((AssertionError, Warning)):
        check(fista, "logistic", 1e6)


@pytest.mark.parametrize("solve", [bcd, fista])
@pytest.mark.parametrize("loss", LOSSES)
def test_a_solution_is_a_start_that_is_kept(loss: str, solve: Callable[..., Any]) -> None:
    problem = build(loss)
    solution = solve(problem, tol=1e-10)
    W, b = starting_point(problem, solution)
    np.testing.assert_array_equal(W[:, 0], solution.w)
    assert b[0] == solution.intercept
    assert solve(problem, solution, tol=1e-9).epochs <= 0.5 * solution.epochs


def test_where_f_is_not_convex_every_start_is_kept() -> None:
    W, b = starting_point(build("squares", penalty="mcp"), (np.full(20, 1e6), 3.0))
    assert (W == 1e6).all()
    assert b == 3.0


def test_without_an_intercept_b_stays_zero() -> None:
    problem = build("squares", intercept=False)
    W, b = starting_point(problem, (0.01 * np.sign(X.T @ Y), 7.0))
    assert np.abs(W).max() == 0.01
    assert b == 0.0


@pytest.mark.parametrize("start", [(np.full(20, np.nan), 0.0), (np.zeros(20), np.inf)])
@pytest.mark.parametrize("solve", [bcd, fista])
def test_a_start_that_is_not_finite_is_refused(solve: Callable[..., Any], start: Any) -> None:
    with pytest.raises(ValueError, match="start has coefficients that are not finite"):
        solve(build("squares"), start)
