"""Solvers against CVXPY, against each other, and against brute force over single coefficients."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from itertools import product
from typing import Any

import numpy as np
import pytest
from cvxpy_oracle import Optimum, optimum
from scipy.sparse import csc_array

from sparseopt import L0, MCP, REGULARIZERS, Groups, LogSum, Problem, Solution, Status, bcd, fista, solve
from sparseopt.optimality import duality_gap, stationarity
from sparseopt.solution import ConvergenceWarning
from sparseopt.solvers import BlockDescent

LOSSES = ("squares", "huber", "logistic", "poisson", "multinomial")
TERMS = {"l2": {}, "l1": {"l1_ratio": 0.4}, "ridge": {"ridge": 0.1}, "both": {"l1_ratio": 0.3, "ridge": 0.05}}
N = 40  # labels of fewer samples could be separated by 12 features, and bounded penalties would let F fall for ever
CONVEX = list(product(LOSSES, TERMS, (True, False)))
SOLVERS = {"bcd": bcd, "fista": fista}
GROUPS = Groups.from_lists([[0, 5], [1], [7, 2, 4], [3, 9], [6, 8, 11], [10]], 12)

each_solver = pytest.mark.parametrize("solver", SOLVERS.values(), ids=SOLVERS)
each_loss = pytest.mark.parametrize("loss", LOSSES)


@cache
def data(loss: str) -> tuple[np.ndarray, np.ndarray]:
    """X, half zeros, every other column with mean 1, float32 numbers; y from two of the groups."""
    rng = np.random.default_rng(LOSSES.index(loss))
    X = rng.standard_normal((N, 12))
    X[:, 1::2] += 1.0
    X[rng.random(X.shape) < 0.3] = 0.0
    X = X.astype(np.float32).astype(np.float64)
    signal = X[:, 2] + X[:, 4] - X[:, 1]
    y = {
        "squares": signal + 0.5 * rng.standard_normal(N),
        "huber": signal + rng.standard_t(2, N),
        "logistic": (signal + 2.0 * rng.standard_normal(N) > 0.0).astype(float),
        "poisson": rng.poisson(np.exp(0.5 * signal)).astype(float),
        "multinomial": rng.permutation(np.arange(N) % 3),
    }[loss]
    return X, y


def build(loss: str, layout: Callable = np.asarray, **settings: Any) -> Problem:
    X, y = data(loss)
    return Problem.build(layout(X), y, GROUPS, loss=loss, **({"lam": 0.05} | settings))


@cache
def reference(loss: str, terms: str, intercept: bool) -> Optimum:
    return optimum(build(loss, intercept=intercept, **TERMS[terms]))


def check_optimal(solution: Solution, best: float) -> None:
    """The objective is that of the reference to 1e-8, and all that the solution says of itself is true."""
    problem = solution.problem
    assert solution.status is Status.CONVERGED
    assert solution.objective == pytest.approx(best, rel=1e-8)
    assert solution.gap is not None
    assert solution.gap <= 1e-10
    assert solution.gap == duality_gap(problem, solution.w, solution.intercept).relative
    assert solution.history[-1][1] == pytest.approx(solution.objective, rel=1e-12)
    assert solution.history[-1][2] <= 1e-10
    np.testing.assert_array_equal(solution.support, np.flatnonzero(problem.groups.norms(solution.w)))


# -- convex problems ---------------------------------------------------------------------------------------------------


@each_solver
@pytest.mark.parametrize("layout", [np.asarray, csc_array], ids=["dense", "sparse"])
@pytest.mark.parametrize(("loss", "terms", "intercept"), CONVEX)
def test_cvxpy_agrees(loss: str, terms: str, intercept: bool, layout: Callable, solver: Callable) -> None:
    problem = build(loss, layout, intercept=intercept, **TERMS[terms])
    check_optimal(solver(problem, tol=1e-10), reference(loss, terms, intercept).value)


@each_solver
@pytest.mark.parametrize("layout", [np.asarray, csc_array], ids=["dense", "sparse"])
@pytest.mark.parametrize("loss", ["squares", "logistic"])
def test_float32_designs_lose_nothing(loss: str, layout: Callable, solver: Callable) -> None:
    problem = build(loss, lambda X: layout(X.astype(np.float32)), **TERMS["both"])
    check_optimal(solver(problem, tol=1e-10), reference(loss, "both", True).value)


@each_solver
@each_loss
def test_a_wrong_loss_is_noticed(loss: str, solver: Callable) -> None:
    """The reference at another lam must not pass."""
    solution = solver(build(loss, lam=0.051), tol=1e-10)
    with pytest.raises(AssertionError):
        check_optimal(solution, reference(loss, "l2", True).value)


@each_solver
@each_loss
def test_weights_offset_and_a_free_group(loss: str, solver: Callable) -> None:
    rng = np.random.default_rng(0)
    X, y = data(loss)
    s = rng.uniform(0.5, 1.5, N) / N
    s[4] = 0.0
    groups = Groups(GROUPS.indices, GROUPS.indptr, [1.0, 0.0, 2.0, 1.5, 1.0, 1.0])
    offset = 0.5 * rng.standard_normal((N, 3) if loss == "multinomial" else N)
    problem = Problem.build(X, y, groups, loss=loss, lam=0.03, l1_ratio=0.2, sample_weight=s, offset=offset)
    check_optimal(solver(problem, tol=1e-10), optimum(problem).value)


@each_solver
@pytest.mark.parametrize("terms", TERMS)
def test_several_responses(terms: str, solver: Callable) -> None:
    X, y = data("squares")
    Y = np.column_stack([y, y[::-1], np.roll(y, 3)])
    problem = Problem.build(X, Y, GROUPS, lam=0.1, **TERMS[terms])
    solution = solver(problem, tol=1e-10)
    assert solution.w.shape == (12, 3)
    assert solution.intercept.shape == (3,)
    check_optimal(solution, optimum(problem).value)


@each_solver
@pytest.mark.parametrize("loss", ["squares", "logistic", "poisson"])
def test_more_features_than_samples(loss: str, solver: Callable) -> None:
    rng = np.random.default_rng(5)
    X = rng.standard_normal((20, 60)) + 0.5
    y = (rng.random(20) < 0.5) * 1.0 if loss == "logistic" else rng.poisson(2.0, 20).astype(float)
    problem = Problem.build(X, y, groups=3, loss=loss, lam=0.04)
    solution = solver(problem, tol=1e-10)
    check_optimal(solution, optimum(problem).value)
    assert 0 < len(solution.support) < 20


@pytest.mark.parametrize(("loss", "terms", "intercept"), [row for row in CONVEX if row[1] in ("ridge", "both")])
def test_the_two_solvers_find_the_same_coefficients(loss: str, terms: str, intercept: bool) -> None:
    problem = build(loss, intercept=intercept, **TERMS[terms])
    one, other = bcd(problem, tol=1e-12), fista(problem, tol=1e-12)
    # F is ridge-strongly convex: ||w - w'||^2 <= 2 (gap + gap') / ridge.
    allowed = 2.0 * np.sqrt(1e-12 * one.objective / problem.penalty.ridge)
    np.testing.assert_allclose(one.w, other.w, rtol=0.0, atol=allowed)
    np.testing.assert_array_equal(one.support, other.support)


# -- nonconvex problems ------------------------------------------------------------------------------------------------

# `bcd` is compiled for every regularizer, ten seconds for each. So its tests on those that bring no new kind of q are
# slow. Those that stay: convex, steep or infinitely steep at zero, flat far out with and without a kink, with a jump,
# a prox by iteration; and in composites, where q^-1 matters, a logarithm, a root, ceilings that are reached and not.
COMPILED = ("l2", "log", "power", "mcp", "capped", "l0", "lambertw")
COMPILED_IN_COMPOSITES = ("log", "power", "mcp", "tl1")


def by_bcd(name: str, composite: bool = False) -> list[pytest.MarkDecorator]:
    """The marks of a test that compiles `bcd` for a regularizer."""
    return [] if name in (COMPILED_IN_COMPOSITES if composite else COMPILED) else [pytest.mark.slow]


@pytest.mark.parametrize("loss", ["squares", "logistic"])
@pytest.mark.parametrize(
    ("name", "solver"),
    [
        pytest.param(name, solver, marks=by_bcd(name) if solver is bcd else [], id=f"{name}-{solver.__name__}")
        for name, solver in product(REGULARIZERS, (bcd, fista))
    ],
)
def test_every_regularizer_comes_to_rest(name: str, loss: str, solver: Callable) -> None:
    for extra in ({}, {"l1_ratio": 0.3, "ridge": 0.05}):
        problem = build(loss, penalty=REGULARIZERS[name], **extra)
        solution = solver(problem, tol=1e-11 if name == "l2" else 1e-8)
        assert solution.status is Status.CONVERGED
        assert stationarity(problem, solution.w, solution.intercept) <= (1e-5 if name == "l2" else 1e-8)
        start = problem.value(np.zeros(12), problem.loss.null_intercept())
        assert solution.objective <= start
        objectives = [objective for _, objective, _ in solution.history]
        assert (np.diff(objectives) <= 1e-12 * start).all(), "F rose"


COMPOSITES = ["log", "power", "expm1", "tl1", "arctan", "laplace", "mcp", "scad"]


@pytest.mark.parametrize("loss", ["squares", "logistic"])
@pytest.mark.parametrize("name", [pytest.param(name, marks=by_bcd(name, True)) for name in COMPOSITES])
def test_composite_problems_come_to_rest(name: str, loss: str) -> None:
    problem = build(loss, penalty=REGULARIZERS[name], composite=True, lam=0.08)
    solution = bcd(problem, tol=1e-8)
    assert solution.status is Status.CONVERGED
    assert stationarity(problem, solution.w, solution.intercept) <= 1e-8
    assert np.isfinite(solution.objective)
    assert solution.objective <= problem.value(np.zeros(12), problem.loss.null_intercept()) * (1.0 + 1e-12)


def check_coordinates(problem: Problem, solution: Solution) -> None:
    """No change of a single coefficient, of any size, lowers F: brute force over a grid, refined around its best."""
    for j in range(len(solution.w)):

        def objective(v: float, j: int = j) -> float:
            w = solution.w.copy()
            w[j] = v
            return problem.value(w, solution.intercept)

        grid = np.concatenate([np.linspace(-3.0, 3.0, 241), solution.w[j] + np.linspace(-1e-3, 1e-3, 21), [0.0]])
        values = [objective(v) for v in grid]
        best = grid[int(np.argmin(values))]
        lowest = min(values + [objective(v) for v in best + np.linspace(-0.03, 0.03, 121)])
        assert solution.objective <= lowest * (1.0 + 1e-12), f"coefficient {j}: {solution.objective!r} > {lowest!r}"


@pytest.mark.parametrize(
    ("name", "composite"),
    [
        pytest.param(name, composite, marks=by_bcd(name, composite), id=f"{name}-{kind}")
        for name, (composite, kind) in product(COMPOSITES, ((False, "separable"), (True, "composite")))
        if name != "expm1"
    ],
)
def test_single_coefficients_are_optimal(name: str, composite: bool) -> None:
    X, y = data("squares")
    problem = Problem.build(X, y, penalty=REGULARIZERS[name], composite=composite, lam=0.1, l1_ratio=0.1)
    solution = bcd(problem, tol=1e-10)
    assert 0 < len(solution.support) < 12
    check_coordinates(problem, solution)


@pytest.mark.parametrize("name", ["l0", "capped", "lambertw"])
def test_single_coefficients_are_optimal_under_jumps(name: str) -> None:
    X, y = data("squares")
    problem = Problem.build(X, y, penalty=REGULARIZERS[name], lam=0.1, ridge=0.1)
    for solver in SOLVERS.values():
        check_coordinates(problem, solver(problem, tol=1e-10))


def test_a_poor_stationary_point_is_rejected() -> None:
    X, y = data("squares")
    problem = Problem.build(X, y, penalty="log", composite=True, lam=0.1)
    solution = bcd(problem, tol=1e-10)
    with pytest.raises(AssertionError, match="coefficient"):
        check_coordinates(problem, replace(solution, w=0.999 * solution.w))
    lasso = bcd(Problem.build(X, y, lam=0.1), tol=1e-10)
    with pytest.raises(AssertionError, match="coefficient"):
        check_coordinates(problem, replace(lasso, problem=problem))


# -- screening ---------------------------------------------------------------------------------------------------------


def screened_wrongly() -> tuple[Problem, float, float, int]:
    """A lasso, two values of lam, and a feature that the strong rule drops between them, though it becomes nonzero."""
    rng = np.random.default_rng(178)
    X = rng.standard_normal((6, 2)) @ rng.standard_normal((2, 8)) + 0.3 * rng.standard_normal((6, 8))
    y = rng.standard_normal(6)
    top = float(np.abs(X.T @ y / 6).max())
    return Problem.build(X, y, intercept=False), 0.3 * top, 0.2 * top, 0


def test_the_strong_rule_errs_and_the_answer_does_not() -> None:
    problem, high, low, feature = screened_wrongly()
    first, second = (fista(problem.at(lam), tol=1e-10) for lam in (high, low))
    pull = abs(problem.gradient(first.w)[0][feature])
    assert pull < 2.0 * low - high, "the rule keeps the feature: this is no counterexample"
    assert first.w[feature] == 0.0
    assert abs(second.w[feature]) > 1e-3, "the feature stays zero: this is no counterexample"
    descent = BlockDescent(problem)
    descent.solve(problem.at(high).penalty, 1e-10)
    solution = descent.solve(problem.at(low).penalty, 1e-10)
    assert solution.status.ok
    assert solution.objective == pytest.approx(second.objective, rel=1e-9)
    assert abs(solution.w[feature]) > 1e-3


def test_many_groups_enter_at_once() -> None:
    """More active groups than any first working set holds."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((150, 200))
    problem = Problem.build(X, X @ rng.standard_normal(200), groups=2, lam=1e-3, intercept=True)
    solution = bcd(problem, tol=1e-9)
    assert solution.gap is not None
    assert solution.gap <= 1e-9
    assert len(solution.support) > 60


# -- starts, limits, edges ---------------------------------------------------------------------------------------------


@each_solver
@each_loss
def test_warm_starts(loss: str, solver: Callable) -> None:
    problem = build(loss)
    cold = solver(problem, tol=1e-9)
    again = solver(problem, cold, tol=1e-9)
    assert again.epochs <= max(10, cold.epochs // 2)
    assert again.objective == pytest.approx(cold.objective, rel=1e-9)
    rng = np.random.default_rng(0)
    far = solver(problem, (rng.standard_normal(cold.w.shape), 1.0), tol=1e-9)
    assert far.gap is not None
    assert far.gap <= 1e-9
    assert far.objective == pytest.approx(cold.objective, rel=1e-8)


@each_solver
def test_a_start_is_not_changed(solver: Callable) -> None:
    problem = build("squares")
    w = np.ones(12)
    w.flags.writeable = False
    solver(problem, (w, 0.5))
    np.testing.assert_array_equal(w, 1.0)


@each_solver
def test_a_start_of_another_size_is_refused(solver: Callable) -> None:
    with pytest.raises(ValueError, match=r"w has the shape \(3,\): pass \(12,\)"):
        solver(build("squares"), (np.ones(3), 0.0))


@each_solver
def test_the_answer_is_reproducible(solver: Callable) -> None:
    problem = build("logistic", penalty=MCP())
    one, other = solver(problem), solver(problem)
    np.testing.assert_array_equal(one.w, other.w)
    assert one.intercept == other.intercept


@pytest.mark.parametrize(("solver", "limit"), [(bcd, "max_epochs"), (fista, "max_iter")])
@pytest.mark.parametrize("penalty", ["l2", LogSum()], ids=str)
def test_the_limit_is_told(solver: Callable, limit: str, penalty: Any) -> None:
    problem = build("squares", penalty=penalty, lam=0.01)
    with pytest.warns(ConvergenceWarning, match="limit"):
        solution = solver(problem, tol=1e-14, **{limit: 2})
    assert solution.status is Status.MAX_EPOCHS
    assert not solution.status.ok
    assert solution.epochs <= 2
    assert solution.objective <= problem.value(np.zeros(12), problem.loss.null_intercept())
    assert "limit" in str(solution)


@each_solver
def test_an_accuracy_that_rounding_forbids_is_told(solver: Callable) -> None:
    with pytest.warns(ConvergenceWarning):
        solution = solver(build("huber", lam=0.01), tol=1e-300)
    assert solution.status in (Status.STALLED, Status.MAX_EPOCHS)
    assert solution.gap is not None
    assert solution.gap <= 1e-11


@each_solver
@each_loss
def test_a_large_lam_leaves_the_intercept(loss: str, solver: Callable) -> None:
    solution = solver(build(loss, lam=1e3))
    assert not solution.w.any()
    assert solution.support.size == 0
    np.testing.assert_allclose(
        solution.problem.loss.derivative(solution.problem.predictor(solution.w, solution.intercept)).sum(axis=0),
        0.0,
        atol=1e-10,
    )


@each_solver
def test_no_penalty_is_least_squares(solver: Callable) -> None:
    X, y = data("squares")
    solution = solver(Problem.build(X, y, groups=3, lam=0.0), tol=1e-12)
    best = np.linalg.lstsq(np.column_stack([X, np.ones(N)]), y, rcond=None)[0]
    np.testing.assert_allclose(np.append(solution.w, solution.intercept), best, atol=1e-5)


@each_solver
@pytest.mark.parametrize("penalty", ["l2", "log"])
def test_degenerate_columns(penalty: str, solver: Callable) -> None:
    X, y = data("squares")
    X = X.copy()
    X[:, 0], X[:, 1], X[:, 2] = 0.0, 3.0, X[:, 4]
    solution = solver(Problem.build(X, y, groups=2, penalty=penalty, lam=0.05), tol=1e-8)
    assert solution.status.ok
    assert solution.w[0] == 0.0
    assert np.isfinite(solution.w).all()


@each_solver
@each_loss
def test_a_design_of_zeros(loss: str, solver: Callable) -> None:
    problem = Problem.build(np.zeros((N, 4)), data(loss)[1], groups=2, loss=loss)
    solution = solver(problem)
    assert solution.status.ok
    assert not solution.w.any()
    assert solution.objective == pytest.approx(
        problem.value(0.0 * solution.w, problem.loss.null_intercept()), rel=1e-12
    )


@each_solver
def test_one_feature_one_sample(solver: Callable) -> None:
    solution = solver(Problem.build([[2.0]], [3.0], lam=0.5, intercept=False), tol=1e-12)
    assert solution.w == pytest.approx([(6.0 - 0.5) / 4.0])
    assert solver(Problem.build([[2.0]], [3.0], lam=0.5), tol=1e-12).intercept == pytest.approx(3.0)


@each_solver
@pytest.mark.parametrize("loss", ["squares", "logistic"])
def test_columns_far_from_zero(loss: str, solver: Callable) -> None:
    """Means of 100 standard deviations; the intercept must not slow the rest."""
    X, y = data(loss)
    rng = np.random.default_rng(1)
    plain = Problem.build(X, y, GROUPS, loss=loss, lam=0.05)
    moved = Problem.build(X + 100.0 * rng.standard_normal(12), y, GROUPS, loss=loss, lam=0.05)
    one, other = solver(plain, tol=1e-10), solver(moved, tol=1e-10)
    assert other.status.ok
    assert other.objective == pytest.approx(one.objective, rel=1e-9)
    assert other.epochs <= 3 * one.epochs + 30


@each_solver
def test_columns_of_different_units(solver: Callable) -> None:
    """A free group of other units is no penalty's business: the optimum does not change."""
    X, y = data("squares")
    groups = Groups(GROUPS.indices, GROUPS.indptr, [0.0, 1.0, 1.0, 1.0, 1.0, 1.0])
    scaled = X.copy()
    scaled[:, GROUPS[0]] *= [30.0, 0.03]
    one, other = (solver(Problem.build(M, y, groups, lam=0.05), tol=1e-9) for M in (X, scaled))
    assert other.objective == pytest.approx(one.objective, rel=1e-8)


# -- dispatch ----------------------------------------------------------------------------------------------------------


def test_solve_dispatches() -> None:
    problem = build("squares")
    np.testing.assert_array_equal(solve(problem).w, bcd(problem).w)
    np.testing.assert_array_equal(solve(problem, method="fista", tol=1e-8).w, fista(problem, tol=1e-8).w)
    with pytest.warns(ConvergenceWarning):
        assert solve(problem, method="fista", max_epochs=3, tol=1e-14).epochs == 3


@pytest.mark.parametrize(
    ("method", "hint"),
    [("bdc", "did you mean 'bcd'?"), ("FISTA", "did you mean 'fista'?"), ("ista", "did you mean 'fista'?")]
    + [(wrong, "choose 'bcd' or 'fista'.") for wrong in ("newton", "", None, 3)],
)
def test_an_unknown_method_is_refused(method: Any, hint: str) -> None:
    with pytest.raises(ValueError, match="which is unknown") as refused:
        solve(build("squares"), method=method)
    assert str(refused.value).endswith(hint)


def test_fista_refuses_a_composite() -> None:
    problem = build("squares", penalty="log", composite=True)
    with pytest.raises(TypeError, match="whose groups do not separate: use bcd"):
        fista(problem)
    with pytest.raises(TypeError, match="use bcd"):
        solve(problem, method="fista")
    assert fista(build("squares", composite=True)).status.ok, "q = L2 separates"


# -- fista alone -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("penalty", ["l2", L0(), MCP()], ids=str)
@each_loss
def test_fista_never_rises(loss: str, penalty: Any) -> None:
    problem = build(loss, penalty=penalty, lam=0.02)
    values = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        for limit in range(1, 25):
            values.append(fista(problem, tol=1e-14, max_iter=limit).objective)
    start = problem.value(np.zeros((12, problem.n_outputs)), problem.loss.null_intercept())
    assert (np.diff([start, *values]) <= 1e-14 * start).all()


def test_fista_on_poisson_from_a_bad_start() -> None:
    """Rates of e^20 at the start: the curvature there says nothing about the curvature at the optimum."""
    problem = build("poisson")
    solution = fista(problem, (np.zeros(12), 20.0), tol=1e-9)
    assert solution.status.ok
    assert solution.objective == pytest.approx(fista(problem, tol=1e-9).objective, rel=1e-8)
