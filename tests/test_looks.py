"""What the solver says of a point, in compiled code, is what `sparseopt.optimality` says of it with arrays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from numpy.typing import NDArray

from sparseopt import L0, L2, MCP, SCAD, Groups, LogSum, Problem, Scaled
from sparseopt.optimality import duality_gap, step_bounds
from sparseopt.penalty import Penalty, Separable
from sparseopt.solvers import BlockDescent, curvature, descent, iterate, looks
from sparseopt.solvers.blocks import TIE, Terms
from sparseopt.solvers.steps import Partition

rng = np.random.default_rng(5)
X = rng.standard_normal((40, 30)) + 0.3
SIGNAL = X[:, :6] @ rng.standard_normal(6)
NOISE = rng.standard_normal((40, 3))
TARGETS: dict[str, NDArray[Any]] = {
    "squares": SIGNAL + NOISE[:, 0],
    "huber": SIGNAL + 3.0 * NOISE[:, 0],
    "logistic": (SIGNAL + NOISE[:, 0] > 0.0).astype(float),
    "poisson": rng.poisson(np.exp(0.2 * SIGNAL)).astype(float),
    "multinomial": rng.integers(0, 3, 40),
    "several": SIGNAL[:, None] * [1.0, -0.5, 0.2] + NOISE,
}
HOW: dict[str, dict[str, Any]] = {
    "plain": {"intercept": False},
    "intercept": {},
    "one group free": {"weights": {"0": 0.0}, "intercept": False},
    "one group and the intercept free": {"weights": {"0": 0.0}},
    "l1 term": {"l1_ratio": 0.4},
    "ridge": {"ridge": 0.2, "intercept": False},
    "weighted": {"sample_weight": np.linspace(0.0, 0.1, 40), "intercept": False},
    "offset": {"offset": np.linspace(-1.0, 1.0, 40)},
}


def problem_of(target: str, how: str, design: Any = X) -> Problem:
    """A small problem, far enough below lam_max for some groups."""
    words = dict(HOW[how])
    if "offset" in words and TARGETS[target].ndim == 2:
        words["offset"] = np.repeat(words["offset"][:, None], 3, axis=1)
    if "offset" in words and target == "multinomial":
        words["offset"] = np.outer(words["offset"], [1.0, 0.0, -1.0])
    loss = "squares" if target == "several" else target
    return Problem.build(design, TARGETS[target], groups=3, loss=loss, lam=0.05, **words)


def told_and_true(problem: Problem, tol: float = 0.03) -> tuple[NDArray[Any], NDArray[Any]]:
    """(objective, relative gap) of a rough solution, by the solver and from the problem alone."""
    work = BlockDescent(problem)
    done = work.advance(problem.shrinkage, tol)
    point = work.point
    w, b = point.W.copy(), point.b.copy()
    true = duality_gap(problem, w, b)
    return np.array(done.history[-1][1:]), np.array([problem.value(w, b), true.relative])


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("target", TARGETS)
def test_objective_and_gap_are_those_of_the_problem(target: str, how: str) -> None:
    told, true = told_and_true(problem_of(target, how))
    np.testing.assert_allclose(told, true, rtol=1e-9, atol=1e-12)
    assert 1e-6 < true[1] < 0.03  # a gap of rounding would compare nothing


@pytest.mark.parametrize("how", ["plain", "intercept", "weighted"])
def test_the_same_for_sparse_and_float32_designs(how: str) -> None:
    thin = np.where(np.abs(X) > 1.0, X, 0.0)
    for design in (sp.csc_array(thin), X.astype(np.float32), sp.csc_array(thin.astype(np.float32))):
        told, true = told_and_true(problem_of("squares", how, design))
        np.testing.assert_allclose(told, true, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("target", ["huber", "logistic", "poisson", "multinomial"])
def test_z_moves_with_the_coefficients(monkeypatch: pytest.MonkeyPatch, target: str) -> None:
    def distance() -> float:
        work = BlockDescent(problem_of(target, "intercept"))
        work.advance(work.problem.shrinkage, 1e-3)
        return float(np.abs(work.point.z - work.problem.predictor(work.point.W, work.point.b)).max())

    assert distance() < 1e-12
    monkeypatch.setattr(iterate, "EVEN", 0.0)
    monkeypatch.setattr(iterate, "REFRESH", 10**6)
    assert distance() < 1e-6  # small curvatures amplify rounding
    exact = curvature._measure

    def wrong(c: Any, reference: Any, full: Any, inverse: Any) -> Any:
        figures = exact(c, reference, full, inverse)
        inverse *= 1.01
        return figures

    monkeypatch.setattr(curvature, "_measure", wrong)
    assert distance() > 1e-6


@pytest.mark.parametrize("q", [MCP(3.0), MCP(1.2), LogSum(0.5), Scaled(SCAD(3.7), 0.2), L0()], ids=repr)
def test_lower_bounds_of_curvature_change_no_decision(q: Any) -> None:
    """Groups that wake, with curvatures made exact only where needed, are those with all of them exact."""
    woken = 0
    for lam in (0.3, 0.1, 0.03):
        problem = Problem.build(X, TARGETS["squares"], groups=3, penalty=q, lam=lam)
        work = BlockDescent(problem)
        work.point.take(problem.shrinkage)
        work.gradients.at(work.point.rows)
        everything = np.ones(len(problem.groups), dtype=np.bool_)
        lazy = work._wakes(everything)
        bound = work._curvatures().copy()
        work._sharpen(everything)
        exact = work._curvatures()
        assert (bound <= exact).all()
        np.testing.assert_array_equal(lazy, work._wakes(everything))
        np.testing.assert_allclose(exact, step_bounds(problem, problem.loss.s), rtol=1e-12)
        woken += len(lazy)
    assert 0 < woken < 3 * len(problem.groups)


def unscaled(*args: Any) -> Any:
    return (1.0, *looks.judge(*args)[1:])


def too_far(*args: Any) -> Any:
    c, *rest = looks.judge(*args)
    return (min(1.0, 1.05 * c), *rest)


def no_target(rows: Any, target: Any) -> float:
    return float(looks.cross(rows, np.zeros_like(target)))


def no_half(rows: Any, inverse: Any) -> float:
    return float(2.0 * looks.weighted_square(rows, inverse))


@pytest.mark.parametrize(
    ("name", "wrong"),
    [("judge", unscaled), ("judge", too_far), ("cross", no_target), ("weighted_square", no_half)],
)
def test_wrong_gaps_are_noticed(monkeypatch: pytest.MonkeyPatch, name: str, wrong: Callable[..., Any]) -> None:
    problem = problem_of("squares", "plain")
    work = BlockDescent(problem)
    work.advance(problem.shrinkage, 0.03)
    true = duality_gap(problem, work.point.W, work.point.b).relative
    chosen = np.ones(len(problem.groups), dtype=np.bool_)
    assert abs(work._check(chosen)[0] - true) < 1e-12
    monkeypatch.setattr(descent, name, wrong)
    assert abs(work._check(chosen)[0] - true) > 1e-4


def test_a_look_at_all_groups_says_what_arrays_say() -> None:
    groups = Groups.from_sizes([1, 4, 2, 3, 5], weights=np.array([1.0, 0.0, 2.0, 1.5, 0.7]))
    partition = Partition(groups.indices, groups.indptr, groups.weights)
    W = rng.standard_normal((15, 2))
    W[groups[2]] = W[groups[4]] = 0.0
    terms = Terms(0.3, 0.1, 0.5)
    u, threshold = np.empty(5), np.empty(5)
    value = looks.stand(Separable(L2()), partition, terms, np.arange(5), W, u, threshold)
    np.testing.assert_allclose(u, groups.norms(W), rtol=1e-14)
    np.testing.assert_allclose(threshold, [-1.0, -1.0, 0.6 * TIE, -1.0, 0.21 * TIE], rtol=1e-14)
    seen = W[groups.expand(groups.weights > 0.0)]
    omega = 0.3 * groups.weights @ groups.norms(W) + 0.1 * np.abs(seen).sum() + 0.25 * (seen**2).sum()
    np.testing.assert_allclose(value, omega, rtol=1e-13)
    for q in (MCP(3.0), LogSum(0.5), Scaled(SCAD(3.7), 0.2)):
        found = looks.worth(Separable(q), partition, terms, np.arange(5), W)
        np.testing.assert_allclose(found, Penalty(q, groups, 0.4, 0.25, 0.5).value(W), rtol=1e-13)
    norms = np.array([0.2, 9.0, 0.9, 0.5, 0.1])
    chosen = np.array([True, True, False, True, False])
    found = looks.judge(partition, terms, u, norms, norms > threshold, chosen)
    assert found == (0.6 / 0.9, 1, 3, 3)  # group 2 limits c and wakes, group 1 has no limit
    assert looks.judge(partition, terms, u, norms, norms > threshold, ~chosen)[1:] == (0, 2, 0)
