"""Searches of F along a way against values of F on it, and wrong ones, run by the interpreter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from sparseopt import Problem, bcd
from sparseopt.solvers import iterate, ways
from sparseopt.solvers.iterate import Iterate
from sparseopt.solvers.ways import lowest, penalty_slope

Slope = Callable[..., float]
SIZES = [3, 1, 2, 4, 2]
KINDS: dict[str, dict[str, Any]] = {
    "group lasso": {},
    "a free group": {"weights": {"1": 0.0}},
    "ridge": {"ridge": 0.3},
    "sparse group lasso": {"l1_ratio": 0.4},
    "mcp": {"penalty": "mcp"},
    "composite": {"penalty": "log", "composite": True},
}


def check(name: str, slope: Slope) -> None:
    """The slope against differences of the penalty, forwards and backwards, with a group that leaves zero."""
    rng = np.random.default_rng(0)
    for outputs in (1, 3):
        Y = rng.normal(size=(20, outputs))
        problem = Problem.build(
            rng.normal(size=(20, 12)), Y if outputs > 1 else Y[:, 0], SIZES, **({"lam": 0.4} | KINDS[name])
        )
        W, way = rng.normal(size=(12, outputs)), rng.normal(size=(12, outputs))
        W[4:6] = 0.0
        way[10:] = 0.0
        point = Iterate(problem, (W, np.zeros(outputs)))
        ids = np.arange(len(SIZES))

        def value(t: float, W: np.ndarray = W, way: np.ndarray = way, problem: Problem = problem) -> float:
            return problem.penalty.value(W + t * way if W.shape[1] > 1 else (W + t * way)[:, 0])

        for sign in (1.0, -1.0):
            for t in (0.0, 0.3, 2.0):
                got = slope(point.shape, point.partition, point.terms, ids, W, way, t, sign)
                step = 1e-7
                ahead = [value(sign * (t + k * step)) for k in range(3)]
                wanted = (-1.5 * ahead[0] + 2.0 * ahead[1] - 0.5 * ahead[2]) / step
                assert got == pytest.approx(wanted, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("name", KINDS)
def test_the_slope_of_the_penalty(name: str) -> None:
    check(name, penalty_slope)


def forgets_entries_at_zero(right: Slope) -> Slope:
    def moved(*args: Any) -> Any:
        u, along, (signed, _) = right(*args)
        return u, along, (signed, 0.0)

    return moved


def looks_where_it_started(right: Slope) -> Slope:
    return lambda groups, g, W, way, t: right(groups, g, W, way, 0.0)


@pytest.mark.parametrize("wrong", [forgets_entries_at_zero, looks_where_it_started])
def test_wrong_slopes_are_rejected(wrong: Callable[[Slope], Slope], monkeypatch: pytest.MonkeyPatch) -> None:
    check("sparse group lasso", penalty_slope.py_func)
    monkeypatch.setattr(ways, "_moved", wrong(ways._moved))
    with pytest.raises(AssertionError):
        check("sparse group lasso", penalty_slope.py_func)


@pytest.mark.parametrize("bottom", [1e-6, 0.3, 1.0, 7.0, 1e5])
def test_the_lowest_point_of_a_parabola(bottom: float) -> None:
    assert lowest(lambda t: t - bottom) == pytest.approx(bottom, rel=1e-9)


def test_where_nothing_falls_and_where_all_does() -> None:
    assert lowest(lambda t: 1.0) == 0.0
    assert lowest(lambda t: np.nan) == 0.0
    assert lowest(lambda t: -1.0) == ways.FURTHEST / 2.0
    assert lowest(lambda t: np.inf if t > 3.0 else -1.0) == 2.0, "beyond, F is infinite"


def test_searches_between_models_save_sweeps(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(400, 40))
    y = np.clip(np.round(X[:, :10].sum(axis=1) / 3.0) + 1.0, 0.0, 2.0).astype(int)
    problem = Problem.build(X, y, 4, loss="multinomial", lam=1e-4)
    found = bcd(problem, tol=1e-9)
    monkeypatch.setattr(iterate, "SLOW", np.inf)
    plain = bcd(problem, tol=1e-9)
    assert max(found.gap, plain.gap) <= 1e-9
    assert found.epochs < 0.5 * plain.epochs
