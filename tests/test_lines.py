"""Line searches against values of F on the line, and wrong ones, run by the interpreter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from sparseopt import Problem, bcd, lam_max
from sparseopt.datasets import simulated
from sparseopt.solvers import lines
from sparseopt.solvers.iterate import Iterate
from sparseopt.solvers.lines import Line

Search = Callable[..., float]
SIZES = [3, 1, 2, 4, 2]
KINDS: dict[str, dict[str, Any]] = {
    "group lasso": {},
    "intercept": {"intercept": True},
    "no penalty": {"lam": 0.0},
    "a free group": {"weights": {"1": 0.0}},
    "ridge": {"ridge": 0.3},
    "sparse group lasso": {"l1_ratio": 0.4},
    "mcp": {"penalty": "mcp"},
    "log": {"penalty": "log"},
    "composite": {"penalty": "log", "composite": True},
}


def problem_of(name: str, outputs: int = 1) -> Problem:
    rng = np.random.default_rng(0)
    X, Y = rng.normal(size=(20, 12)), rng.normal(size=(20, outputs))
    options = {"lam": 0.1, "intercept": False} | KINDS[name]
    return Problem.build(X, Y if outputs > 1 else Y[:, 0], SIZES, **options)


class Field:
    """A point of a problem, and what kernels ask for."""

    def __init__(self, problem: Problem, seed: int, zero: tuple[int, ...] = ()) -> None:
        rng = np.random.default_rng(seed)
        W = rng.normal(size=(12, problem.n_outputs))
        for g in zero:
            W[problem.groups.features(np.array([g]))] = 0.0
        b = problem.loss.null_intercept() if problem.intercept else np.zeros(problem.n_outputs)
        self.problem, self.rng, self.X = problem, rng, problem.design.matvec(np.eye(12))
        self.point = Iterate(problem, (W, b))
        self.order = np.arange(len(SIZES))
        self.point.curvature.include(self.order)
        self.norms = np.empty((3, len(SIZES)))

    @property
    def place(self) -> tuple[Any, ...]:
        return self.order, self.point.W, self.point.rows, self.point.sigma

    def direction(self, D: np.ndarray) -> Line:
        """The line along coefficients D, with what moves along."""
        c, X = self.point.curvature.model, self.X
        rows = np.ascontiguousarray((c.full[:, None] * (X @ D)).T)
        sigma = (c.means @ D if c.total > 0.0 else np.zeros(D.shape[1])).ravel()
        return Line(D[self.problem.groups.indices], rows, sigma)

    def value(self, W: np.ndarray) -> float:
        """F with the best intercept, from the definitions."""
        z = self.X @ W
        b = self.problem.loss.y.mean(axis=0) - z.mean(axis=0) if self.problem.intercept else 0.0
        w = W if self.problem.n_outputs > 1 else W[:, 0]
        return float(self.problem.loss.value(z + b)) + self.problem.penalty.value(w)

    def search(self, line: Line, search: Search) -> float:
        point = self.point
        total = point.kind.costs(point.shape, point.partition, point.curvature.blocks, point.W)
        model = point.curvature.model
        return search(point.shape, point.partition, point.terms, model, *self.place, total, line, self.norms)


def check(problem: Problem, search: Search) -> None:
    """It says how far it went, everything moved along, and F fell by most of what the line allows."""
    for seed in range(6):
        for scale in (1e-3, 0.1, 1.0):
            field = Field(problem, seed)
            before = field.point.W.copy()
            D = scale * field.rng.normal(size=before.shape)
            line = field.direction(D)
            t = field.search(line, search)
            np.testing.assert_allclose(field.point.W, before + t * D, atol=1e-12)
            after = Iterate(problem, (field.point.W, field.point.b))
            true = field.point.rows - np.outer(field.point.sigma, field.point.curvature.full)
            np.testing.assert_allclose(
                true, after.rows - after.rows.mean(axis=1, keepdims=True) * problem.intercept, atol=1e-10
            )
            start, fall = field.value(before), field.value(before) - field.value(field.point.W)
            steps = np.concatenate([-np.geomspace(1e-3, 1e4, 500), np.geomspace(1e-3, 1e4, 500)]) / scale
            best = max(start - field.value(before + step * D) for step in steps)
            assert fall >= -1e-12 * start
            assert fall >= 0.4 * best or not problem.penalty.is_convex
            if not problem.penalty.lam and not problem.penalty.ridge:
                assert fall >= (1.0 - 1e-9) * best


@pytest.mark.parametrize("outputs", [1, 3])
@pytest.mark.parametrize("name", KINDS)
def test_a_search_goes_down(name: str, outputs: int) -> None:
    check(problem_of(name, outputs), lines.search)


def blind_to_the_penalty(right: Search) -> Search:
    def fall(shape: Any, groups: Any, terms: Any, *rest: Any) -> Any:
        return right(shape, groups, terms._replace(block=0.0, entry=0.0, ridge=0.0), *rest)

    return fall


def blind_to_the_curvature(right: Search) -> Search:
    def fall(*args: Any) -> Any:
        *head, _, t, sign = args
        return right(*head, 0.0, t, sign)

    return fall


def always_forwards(right: Search) -> Search:
    def fall(*args: Any) -> Any:
        return (right(*args)[0], np.nan) if args[-1] < 0.0 else right(*args)

    return fall


@pytest.mark.parametrize("wrong", [blind_to_the_penalty, blind_to_the_curvature, always_forwards])
def test_wrong_searches_are_rejected(wrong: Callable[[Search], Search], monkeypatch: pytest.MonkeyPatch) -> None:
    problem = problem_of("group lasso")
    problem = problem.at(2.0)  # where the penalty weighs as much as the loss
    check(problem, lines.search.py_func)
    monkeypatch.setattr(lines, "_fall", wrong(lines._fall))
    with pytest.raises(AssertionError):
        check(problem, lines.search.py_func)


@pytest.mark.parametrize("name", ["group lasso", "log", "composite"])
def test_a_group_that_is_zero_stays_zero(name: str) -> None:
    field = Field(problem_of(name), 1, zero=(2,))
    before = field.point.W.copy()
    D = -before
    D[field.problem.groups.features(np.array([2]))] = 1e-3
    assert field.search(field.direction(D), lines.search) == 0.0
    np.testing.assert_array_equal(field.point.W, before)
    D[field.problem.groups.features(np.array([2]))] = 0.0
    assert field.search(field.direction(D), lines.search) != 0.0


def way(size: float, leave: Callable[..., float]) -> float:
    """The largest error of the rows and sigma of a way of this size, over their size."""
    field = Field(problem_of("intercept"), 2)
    point = field.point
    line = Line(np.empty((12, 1)), np.empty_like(point.rows), np.empty_like(point.sigma))
    lines.keep(point.partition, *field.place, line)
    D = size * field.rng.normal(size=point.W.shape)
    D = (point.W + D) - point.W
    exact = field.direction(D)
    point.W += D
    point.rows += exact.rows
    point.sigma += exact.sigma
    leave(field.problem.design, point.partition, point.curvature.model, *field.place, line, point.work)
    np.testing.assert_allclose(line.W, exact.W, rtol=1e-12)
    pairs = (line.rows, exact.rows), (line.sigma, exact.sigma)
    return max(float(np.abs(got - true).max() / np.abs(true).max()) for got, true in pairs)


def test_the_rows_of_a_short_way_are_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    assert max(way(size, lines.leave) for size in (1.0, 1e-4, 1e-8, 1e-12)) < 1e-8
    monkeypatch.setattr(lines, "FAINT", 0.0)
    assert way(1e-12, lines.leave.py_func) > 1e-6, "without, they are lost in rounding"


def test_nearly_dependent_columns_take_few_sweeps() -> None:
    made = simulated(n=200, n_groups=100, size=5, active=10, rho=0.9999, snr=3.0, seed=1)
    problem = Problem.build(made.X, made.y, 5, lam=1.0)
    solution = bcd(problem.at(0.01 * lam_max(problem)), tol=1e-11)
    assert solution.gap <= 1e-11
    assert solution.epochs < 200, "plain descent takes thousands"
