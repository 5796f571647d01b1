"""Fits on chosen groups against lstsq, scipy and CVXPY."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
import subset_oracle as oracle
from cvxpy_oracle import optimum
from scipy.sparse import csc_array

from sparseopt import Groups, Penalty, Problem
from sparseopt.laws.problems import selector_problems
from sparseopt.regularizers import L2
from sparseopt.selection import refit, score
from sparseopt.selection.fit import model

PROBLEMS = selector_problems()
CHOICES = ([], [0], [2, 4], [0, 3, 4, 5, 6])


def pulls(problem: Problem, W: np.ndarray, A: np.ndarray, groups: Any) -> float:
    """The largest gradient on groups, the always-in ones and the intercept, over that of the null model."""
    X, g = oracle.dense(problem), problem.groups
    free = np.flatnonzero(~problem.penalty.penalised)
    scale = float(g.norms(X.T @ oracle.fit(problem, []).A).max())
    gradient = X.T @ A + problem.penalty.ridge * g.expand(problem.penalty.penalised)[:, None] * W
    sizes = g.norms(gradient)
    inside = np.append(sizes[np.union1d(groups, free).astype(int)], np.abs(A.sum(axis=0)) if problem.intercept else 0.0)
    return float(inside.max(initial=0.0)) / scale


@pytest.mark.parametrize("name", PROBLEMS, ids=[name.replace(", ", "-") for name in PROBLEMS])
def test_refits_are_minima(name: str) -> None:
    problem = PROBLEMS[name]
    last = None
    for chosen in CHOICES:
        for start in (None, last):
            fit = refit(problem, chosen, start)
            expected = oracle.fit(problem, chosen)
            assert fit.chosen.tolist() == chosen
            assert fit.value == pytest.approx(expected.value, rel=1e-9)
            assert fit.value <= expected.value * (1.0 + 1e-12)
            assert pulls(problem, fit.W, fit.A, chosen) <= 1e-8
            value, A = oracle.losses(problem, oracle.dense(problem) @ fit.W + fit.b)
            np.testing.assert_allclose(fit.A, A, rtol=0.0, atol=1e-12 * np.abs(expected.A).max() + 1e-14)
            shrunk = fit.W[problem.groups.expand(problem.penalty.penalised)]
            ridge = 0.5 * problem.penalty.ridge * float((shrunk**2).sum())
            assert fit.value == pytest.approx(value + ridge, rel=1e-12)
            out = np.setdiff1d(np.flatnonzero(problem.penalty.penalised), chosen)
            assert not fit.W[problem.groups.features(out)].any()
            assert fit.outside.tolist() == out.tolist()
            np.testing.assert_allclose(fit.scores, oracle.scores(problem, fit.A), rtol=1e-10, atol=1e-13)
            np.testing.assert_array_equal(fit.scores, score(problem, fit.A))
            last = fit


@pytest.mark.parametrize("name", [name for name in PROBLEMS if "ridge" in name and "several" not in name])
def test_ridge_fits_are_those_of_cvxpy(name: str) -> None:
    problem = PROBLEMS[name]
    chosen = [0, 2, 3]
    kept = np.sort(problem.groups.features(np.union1d(chosen, np.flatnonzero(~problem.penalty.penalised))))
    where = {int(j): at for at, j in enumerate(kept)}
    lists, weights = [], []
    for g in [*chosen, *np.flatnonzero(~problem.penalty.penalised)]:
        lists.append([where[int(j)] for j in problem.groups[int(g)]])
        weights.append(1.0 if g in chosen else 0.0)
    groups = Groups.from_lists(lists, len(kept), weights=weights)
    penalty = Penalty(L2(), groups, 0.0, 0.0, problem.penalty.ridge)
    small = Problem.build(oracle.dense(problem)[:, kept], np.zeros(len(problem.loss.y)), groups).design
    expected = optimum(Problem(small, problem.loss, penalty, problem.intercept))
    fit = refit(problem, chosen)
    assert fit.value == pytest.approx(expected.value, rel=1e-8)
    unique = [where[int(j)] for j in problem.groups.features(chosen)]  # by the ridge, which spares always-in groups
    np.testing.assert_allclose(fit.W[kept].reshape(expected.w.shape)[unique], expected.w[unique], atol=1e-4)


def separable(loss: str, **settings: Any) -> Problem:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(30, 8))
    corners = np.array([[1.0, 0.0], [-0.5, 0.8], [-0.5, -0.8]])
    y = (X[:, 0] > 0.0).astype(float) if loss == "logistic" else (X[:, :2] @ corners.T).argmax(axis=1)
    return Problem.build(X, y, groups=2, loss=loss, **settings)


@pytest.mark.parametrize("intercept", [False, True])
@pytest.mark.parametrize("loss", ["logistic", "multinomial"])
def test_separable_classes_are_fitted_without_a_warning(loss: str, intercept: bool) -> None:
    problem = separable(loss, intercept=intercept)
    null = refit(problem, [])
    for chosen in ([0], [0, 1], [0, 1, 2, 3]):
        fit = refit(problem, chosen, null)
        assert np.isfinite(fit.W).all()
        assert np.isfinite(fit.b).all()
        assert 0.0 <= fit.value <= 1e-12 * null.value
        assert (model(fit).exchanges() <= 0.0).all()
    ridged = separable(loss, intercept=intercept, ridge=0.01)
    assert refit(ridged, [0]).value == pytest.approx(oracle.fit(ridged, [0]).value, rel=1e-9)


@pytest.mark.parametrize("delta", [10.0, 1.345, 0.3, 0.1, 0.01])
def test_huber_with_any_knot(delta: float) -> None:
    rng = np.random.default_rng(3)
    X, y = rng.normal(size=(60, 8)), rng.standard_t(1.5, 60)
    problem = Problem.build(X, y + X[:, 0], groups=2, loss="huber", delta=delta)
    fit = refit(problem, [0, 1, 2])
    assert pulls(problem, fit.W, fit.A, [0, 1, 2]) <= 1e-8
    assert fit.value <= oracle.fit(problem, [0, 1, 2]).value * (1.0 + 1e-10)


@pytest.mark.parametrize("loss", ["logistic", "multinomial"])
@pytest.mark.parametrize("seed", range(6))
def test_the_group_that_separates_leaves_again(seed: int, loss: str) -> None:
    """What is left starts from coefficients at which every probability is 0 or 1."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(60, 8))
    margin = X[:, 0] + 0.3 * X[:, 2]
    y = (margin > 0.0).astype(float) if loss == "logistic" else np.digitize(margin, [-0.5, 0.5])
    problem = Problem.build(X, y, groups=2, loss=loss)
    separated = refit(problem, [0, 1, 2])
    assert separated.value < 1e-12
    assert refit(problem, [1, 2], separated).value == pytest.approx(refit(problem, [1, 2]).value, rel=1e-10)


@pytest.mark.parametrize("loss", ["squares", "huber", "logistic", "poisson", "multinomial"])
def test_a_start_from_anywhere_ends_at_the_minimum(loss: str) -> None:
    problem = next(p for name, p in PROBLEMS.items() if name.startswith(loss) and "ridge" in name)
    expected = refit(problem, [1, 3])
    far = refit(problem, [0, 2, 6])
    far = replace(far, W=1e3 * far.W, b=far.b + 50.0) if not problem.loss.is_quadratic else far
    found = refit(problem, [1, 3], far)
    assert found.value == pytest.approx(expected.value, rel=1e-10)
    assert pulls(problem, found.W, found.A, [1, 3]) <= 1e-8


@pytest.mark.parametrize("layout", [np.asarray, csc_array], ids=["dense", "sparse"])
@pytest.mark.parametrize(("scale", "power"), list(product((1e-6, 1.0, 1e6), (0, 8))))
def test_units_of_columns_do_not_matter(scale: float, power: int, layout: Any) -> None:
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(40, 6)), rng.normal(size=40)
    units = scale * np.resize([1.0, 10.0**power, 10.0**-power], 6)
    problem = Problem.build(layout(X), y, groups=[3, 2, 1])
    scaled = Problem.build(layout(X * units), y, groups=[3, 2, 1])
    start = refit(scaled, [0, 1, 2])
    for chosen in ([0], [1, 2], [0, 2]):
        expected = refit(problem, chosen)
        for last in (None, start):
            fit = refit(scaled, chosen, last)
            assert fit.value == pytest.approx(expected.value, rel=1e-10)
            np.testing.assert_allclose((fit.W[:, 0] * units), expected.W[:, 0], atol=1e-8)


def test_a_group_of_powers_leaves_again() -> None:
    """x, ..., x^8 on (50, 150) spans what is nearly the constant, and its units lie 10^14 apart."""
    rng = np.random.default_rng(0)
    x, y = rng.uniform(50.0, 150.0, 40), rng.normal(size=40)
    X = np.column_stack([*(x**j for j in range(1, 9)), rng.normal(size=(40, 3))])
    problem = Problem.build(X, y, groups=[8, 1, 1, 1])
    both = refit(problem, [0, 1])
    alone = refit(problem, [1])
    assert refit(problem, [1], both).value == pytest.approx(alone.value, rel=1e-8)
    assert model(both).losses()[0] == pytest.approx(alone.value - both.value, rel=1e-5)


def test_more_features_than_samples() -> None:
    rng = np.random.default_rng(1)
    X, y = rng.normal(size=(10, 24)), rng.normal(size=10)
    problem = Problem.build(X, y, groups=6)
    fit = refit(problem, [0, 1, 2])
    assert fit.value <= 1e-25
    assert refit(problem, [0], fit).value == pytest.approx(oracle.fit(problem, [0]).value, rel=1e-9)
    one = Problem.build(X, y, groups=[20, 4])
    assert refit(one, [0]).value <= 1e-25


@pytest.mark.parametrize("loss", ["logistic", "poisson", "multinomial", "huber"])
@pytest.mark.parametrize("shift", [0.0, 5.0])
def test_a_fit_that_gets_below_is_never_given_up(loss: str, shift: float) -> None:
    """`below` may cut short only fits whose minimum is not below it, from any start, with any column means."""
    rng = np.random.default_rng(7)
    X = rng.normal(size=(80, 12)) + shift
    z = 2.0 * (X[:, 0] - X[:, 4]) + (X[:, 8] - shift)
    y = {
        "logistic": (z + rng.logistic(size=80) > 0.0).astype(float),
        "poisson": rng.poisson(np.exp(np.clip(z / 3.0, -3.0, 3.0))).astype(float),
        "multinomial": np.digitize(z, [-1.0, 1.0]).astype(float),
        "huber": z + rng.standard_t(2.0, size=80),
    }[loss]
    problem = Problem.build(X, y, groups=2, loss=loss, ridge=1e-4)
    starts = [None, refit(problem, []), refit(problem, [0, 2]), refit(problem, [1, 3, 5])]
    for chosen in ([0], [2], [0, 2], [0, 4], [1, 2, 4], [0, 2, 4], [3, 5]):
        whole = refit(problem, chosen).value
        for start in starts:
            for room in (1e-9, 1e-4, 1e-2, 1.0):
                below = whole * (1.0 + room)
                assert refit(problem, chosen, start, below).value == pytest.approx(whole, rel=1e-8)
            assert refit(problem, chosen, start, whole * 0.5).value >= whole * (1.0 - 1e-9)
