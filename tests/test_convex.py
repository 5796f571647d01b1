"""The CVXPY twin: its objective is the problem's, its optimum that of the tests' own oracle and of `solve`."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest
from cvxpy_oracle import optimum
from scipy.sparse import csc_array

from sparseopt import AtMost, Groups, Problem, Status, as_design, solve
from sparseopt.convex import as_cvxpy

LOSSES = ("squares", "huber", "logistic", "poisson", "multinomial")
TERMS = {"l2": {}, "l1": {"l1_ratio": 0.4}, "ridge": {"ridge": 0.1}, "all": {"l1_ratio": 0.3, "ridge": 0.05}}


def make(loss: str, *, sparse=False, intercept=True, outputs=1, composite=False, **terms) -> Problem:
    """Free group, weights with a zero, offset; the columns of the free group come last."""
    rng = np.random.default_rng(LOSSES.index(loss))
    n, labels = 24, [0, 1, 2, 0, 3, 1, 2, 3]
    X = rng.standard_normal((n, len(labels))) * (rng.random((n, len(labels))) < 0.7)
    signal = X[:, :1] + X[:, 3:4] - X[:, 4:5] + 0.5 * rng.standard_normal((n, outputs))
    y = {
        "squares": signal,
        "huber": signal + rng.standard_t(2, signal.shape),
        "logistic": (signal + rng.standard_normal(signal.shape) > 0.0).astype(float),
        "poisson": rng.poisson(np.exp(0.4 * signal)).astype(float),
        "multinomial": rng.permutation(np.arange(n) % 3),
    }[loss]
    s = rng.uniform(0.2, 1.8, n) / n
    s[3] = 0.0
    shape = (n, 3) if loss == "multinomial" else (n,)
    return Problem.build(
        csc_array(X) if sparse else X,
        y,
        Groups.from_labels(labels, weights={"3": 0.0}),
        loss=loss,
        lam=0.05,
        intercept=intercept,
        offset=0.3 * rng.standard_normal(shape),
        sample_weight=s,
        composite=composite,
        **terms,
    )


@pytest.mark.parametrize("terms", TERMS)
@pytest.mark.parametrize("loss", LOSSES)
def test_optimum_is_that_of_the_oracle_and_of_solve(loss, terms):
    problem = make(loss, intercept=terms != "ridge", **TERMS[terms])
    found = as_cvxpy(problem).solve()
    best = optimum(problem)
    assert found.objective == pytest.approx(best.value, rel=1e-7)
    assert found.objective == pytest.approx(solve(problem, tol=1e-9).objective, rel=1e-7)
    assert found.status is Status.CONVERGED
    assert found.gap < 1e-4  # of first order in the error of the point, the objective of second
    assert found.seconds > 0.0


@pytest.mark.parametrize("loss", LOSSES)
def test_objective_is_that_of_the_problem_at_any_point(loss):
    problem = make(loss, **TERMS["all"])
    twin = as_cvxpy(problem)
    rng = np.random.default_rng(1)
    for scale in (0.0, 0.1, 3.0):
        twin.w.value = scale * rng.standard_normal(twin.w.shape)
        twin.b.value = scale * rng.standard_normal(twin.b.shape)
        assert twin.problem.objective.value == pytest.approx(problem.value(twin.w.value, twin.b.value[0]), rel=1e-9)


@pytest.mark.parametrize("loss", ["squares", "logistic"])
def test_sparse_design_and_several_outputs(loss):
    dense, sparse = (make(loss, sparse=kind, outputs=2) for kind in (False, True))
    first, second = as_cvxpy(dense).solve(), as_cvxpy(sparse).solve()
    assert first.objective == pytest.approx(second.objective, rel=1e-7)
    assert first.w.shape == (8, 2)
    assert first.intercept.shape == (2,)
    np.testing.assert_allclose(first.w, second.w, atol=1e-4)


def test_zeros_are_exact_and_one_output_gives_a_vector():
    problem = make("squares").at(0.2)
    found = as_cvxpy(problem).solve()
    reference = solve(problem, tol=1e-10)
    assert found.w.shape == (8,)
    assert isinstance(found.intercept, float)
    np.testing.assert_array_equal(found.support, reference.support)
    assert len(found.support) < len(problem.groups)


def test_composite_with_l2_and_at_most_all_groups_are_convex():
    problem = make("squares", composite=True)
    assert as_cvxpy(problem).solve().objective == pytest.approx(optimum(problem).value, rel=1e-7)
    ridge = replace(problem, penalty=AtMost(problem.groups, 3, ridge=0.1))
    expected = solve(make("squares", ridge=0.1).at(0.0), tol=1e-10).objective
    assert as_cvxpy(ridge).solve().objective == pytest.approx(expected, rel=1e-7)


def test_another_solver_and_its_options():
    problem = make("squares", ridge=0.1)
    found = as_cvxpy(problem).solve(solver="SCS", eps=1e-8)
    assert found.objective == pytest.approx(solve(problem, tol=1e-9).objective, rel=1e-5)


def test_constraints_can_be_added():
    import cvxpy as cp

    problem = make("squares")
    twin = as_cvxpy(problem)
    cp.Problem(twin.problem.objective, [twin.w >= 0.0]).solve(solver="CLARABEL")
    assert twin.w.value.min() > -1e-6
    assert problem.value(twin.w.value, twin.b.value[0]) > solve(problem).objective


def test_what_is_refused():
    problem = make("squares")
    with pytest.raises(ValueError, match=r"not convex: CVXPY takes problems with q = L2"):
        as_cvxpy(Problem.build(np.eye(4), np.arange(4.0), penalty="mcp", lam=0.1))
    with pytest.raises(ValueError, match=r"k is 1 of 3 groups, not convex"):
        as_cvxpy(replace(problem, penalty=AtMost(problem.groups, 1)))

    class Other(type(problem.loss)):
        name = "other"

    odd = replace(problem, loss=Other(problem.loss.y, problem.loss.s))
    with pytest.raises(ValueError, match=r"loss 'other' has no form in CVXPY"):
        as_cvxpy(odd)


def test_a_minimum_at_infinity_is_said(monkeypatch):
    X = np.array([[-1.0], [1.0]])
    problem = Problem.build(X, [0.0, 1.0], loss="logistic", lam=0.0, intercept=False)
    twin = as_cvxpy(problem)
    monkeypatch.setattr(type(twin.problem), "solve", lambda self, **options: None)
    with pytest.raises(RuntimeError, match=r"no point: add a ridge"):
        twin.solve()


def test_without_cvxpy_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "cvxpy", None)
    with pytest.raises(ImportError, match=r"pip install 'sparseopt\[verify\]'"):
        as_cvxpy(make("squares"))


def test_a_float32_design_is_converted():
    X = np.random.default_rng(0).standard_normal((10, 4)).astype(np.float32)
    problem = Problem.build(as_design(X), X[:, 0].astype(float), lam=0.05)
    assert as_cvxpy(problem).solve().gap < 1e-6
