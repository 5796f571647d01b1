"""Choices of several sizes: the path, its criteria by hand, and cross-validation by fits on the folds alone."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import pytest
import subset_oracle as oracle
from sklearn.model_selection import KFold, StratifiedKFold

from sparseopt import AtMost, Groups, Problem, Solution, Status, cross_validate_subsets, select, select_path
from sparseopt.laws.problems import selector_problems
from sparseopt.selection import METHODS, SubsetPath, check_sizes

PROBLEMS = selector_problems()
HEURISTICS = tuple(method for method in METHODS if method != "exact")
LOSSES = ("squares", "huber", "logistic", "poisson", "multinomial")


def some(loss: str, n: int = 60, noise: float = 0.5, **settings: Any) -> Problem:
    """Six groups of different sizes, of which the second and the fourth matter."""
    rng = np.random.default_rng(LOSSES.index(loss))
    sizes = (1, 2, 3, 2, 1, 1)
    X = rng.normal(size=(n, 10)) + 0.3 * rng.normal(size=(n, 1))
    signal = X[:, 1] - X[:, 2] + 1.5 * X[:, 6]
    y = {
        "squares": signal + noise * rng.normal(size=n),
        "huber": signal + noise * rng.standard_t(2, n),
        "logistic": (signal + 2.0 * rng.normal(size=n) > 0.0).astype(float),
        "poisson": rng.poisson(np.exp(0.4 * signal)).astype(float),
        "multinomial": np.argsort(np.argsort(signal + rng.normal(size=n))) * 3 // n,
    }[loss]
    return Problem.build(X, y, Groups.from_sizes(sizes), loss=loss, **settings)


@pytest.mark.parametrize("method", HEURISTICS)
@pytest.mark.parametrize("loss", LOSSES)
def test_the_objective_falls_with_the_size(loss: str, method: str) -> None:
    for name, problem in PROBLEMS.items():
        if not name.startswith(loss) or (method == "sequential" and "dense" in name):  # the slowest method
            continue
        path = select_path(problem, range(6), method)
        assert isinstance(path, SubsetPath)
        assert path.sizes.tolist() == [0, 1, 2, 3, 4, 5]
        assert (np.diff(path.objective) <= 1e-12 * path.objective[0]).all(), name
        assert (path.n_active <= path.sizes).all()
        for solution, k, objective in zip(path, range(6), path.objective, strict=True):
            assert isinstance(solution, Solution)
            assert solution.problem.penalty.k == k
            assert solution.objective == pytest.approx(objective, rel=1e-12)
            assert oracle.fit(problem, solution.support).value >= objective * (1.0 - 1e-9)


def test_the_pass_upwards_repairs_what_the_pass_downwards_broke() -> None:
    """Here the pass downwards makes a choice better than the one of the next size, which it has seen before."""
    rng = np.random.default_rng(146)
    X = rng.normal(size=(20, 1)) @ np.ones((1, 16)) + rng.normal(size=(20, 16))
    problem = Problem.build(X, X @ rng.normal(size=16) + rng.normal(size=20), groups=2)
    path = select_path(problem, range(8), "ompr")
    assert (np.diff(path.objective) <= 1e-12 * path.objective[0]).all()


def test_both_ways_is_never_worse_than_one() -> None:
    better = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        X = rng.normal(size=(25, 20)) + 1.5 * rng.normal(size=(25, 2)) @ rng.normal(size=(2, 20))
        problem = Problem.build(X, X @ rng.normal(size=20) + 2.0 * rng.normal(size=25), groups=2)
        one, both = (select_path(problem, range(7), both_ways=flag).objective for flag in (False, True))
        assert (both <= one * (1.0 + 1e-12)).all()
        better += (both < one * (1.0 - 1e-6)).any()
    assert better


def test_a_path_is_a_sequence_of_solutions() -> None:
    problem = some("squares")
    path = select_path(problem, [4, 1, 1, 2])
    assert path.sizes.tolist() == [1, 2, 4]
    assert len(path) == len(list(path)) == 3
    assert path[-1].problem.penalty.k == 4
    assert [s.problem.penalty.k for s in path[1:]] == [2, 4]
    assert path.statuses == (Status.LOCAL,) * 3
    assert isinstance(path.problem.penalty, AtMost)
    for solution in path:
        np.testing.assert_array_equal(solution.w, path.coefs[list(path.sizes).index(solution.problem.penalty.k)])
        best = min(oracle.fit(problem, c).value for c in combinations(range(6), solution.problem.penalty.k))
        assert solution.objective == pytest.approx(best, rel=1e-10)
    assert np.isnan(path.accuracy).all()


@pytest.mark.parametrize(("n", "expected"), [(60, 6), (12, 3), (3, 1)])
def test_default_sizes(n: int, expected: int) -> None:
    """As long as half the samples can pay for groups of the average width 10 / 6, and at least 1."""
    assert check_sizes(some("squares", n), None).tolist() == list(range(expected + 1))
    assert expected in (6, max(1, int(n / 2 / (10 / 6))))


def test_default_sizes_end_at_thirty_and_count_no_always_in_groups() -> None:
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(200, 40)), rng.normal(size=200)
    assert check_sizes(Problem.build(X, y), None).tolist() == list(range(31))
    groups = Groups.from_sizes([10] * 4, weights=[0.0, 0.0, 1.0, 1.0])
    assert check_sizes(Problem.build(X, y, groups), None).tolist() == [0, 1, 2]
    free = Problem.build(X, y, Groups.from_sizes([20, 20], weights=[0.0, 0.0]))
    path = select_path(free)
    assert (path.n_active == 0).all()


@pytest.mark.parametrize(
    ("sizes", "error", "sentence"),
    [
        ([], ValueError, "sizes is empty: pass at least one number of groups."),
        ([1, -2], ValueError, "sizes is -2: pass .* >= 0."),
        ([1.0, 2.0], TypeError, "sizes must be .*, got 1.0.*"),
        ([True], TypeError, "sizes must be .*, got True.*"),
        ("three", TypeError, "sizes must be .*, got 'three'.*"),
    ],
    ids=["empty", "negative", "float", "bool", "str"],
)
def test_wrong_sizes(sizes: Any, error: type[Exception], sentence: str) -> None:
    for run in (select_path, cross_validate_subsets):
        with pytest.raises(error, match=f"^{sentence}$"):
            run(some("squares"), sizes)


def test_wrong_methods_and_options() -> None:
    problem = some("squares")
    with pytest.raises(ValueError, match=r"^method is 'splice', which is unknown: did you mean 'splicing'\?$"):
        select_path(problem, method="splice")
    with pytest.raises(TypeError, match=r"^option 'depth' is unknown to splicing: it takes exchange, max_steps"):
        select_path(problem, depth=2)


# -- criteria ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("ridge", [0.0, 0.2])
def test_criteria_by_hand(loss: str, ridge: float) -> None:
    rng = np.random.default_rng(0)
    s = rng.uniform(0.5, 1.5, 60) * (np.arange(60) != 5)
    weights = np.array([1.0, 1.0, 0.0, 1.0, 1.0, 1.0])
    problem = some(loss, sample_weight=s, ridge=ridge, weights=weights)
    path = select_path(problem, range(6))
    n, K, sizes = 59.0, problem.n_outputs, np.array([1, 2, 3, 2, 1, 1])
    X = oracle.dense(problem)
    for at, solution in enumerate(path):
        z = X @ problem.matrix(solution.w) + solution.intercept
        deviance = 2.0 * n / s.sum() * oracle.losses(problem, z)[0]
        fit = n * np.log(deviance / n) if loss in ("squares", "huber") else deviance
        assert path.deviance[at] == pytest.approx(deviance, rel=1e-9)
        c = problem.loss.curvature(z)
        df = float(K)
        for g in solution.support:
            H = X[:, problem.groups[int(g)]].T @ (c[:, None] * X[:, problem.groups[int(g)]])
            rho = ridge if weights[g] else 0.0
            df += K * float(np.trace(np.linalg.solve(H + rho * np.eye(len(H)), H)))
        if ridge == 0.0:
            assert df == pytest.approx(K * (1.0 + sizes[solution.support].sum()), rel=1e-9)
        chosen = int(np.count_nonzero(weights[solution.support]))
        choices = len(list(combinations(range(5), chosen)))
        assert path.degrees_of_freedom[at] == pytest.approx(df, rel=1e-9)
        assert path.criterion("aic")[at] == pytest.approx(fit + 2.0 * df, rel=1e-9)
        assert path.criterion("bic")[at] == pytest.approx(fit + np.log(n) * df, rel=1e-9)
        ebic = fit + np.log(n) * df + 2.0 * 0.5 * np.log(choices)
        assert path.criterion("ebic", 0.5)[at] == pytest.approx(ebic, rel=1e-9)
    for name in ("aic", "bic", "ebic", "bonferroni", "gap"):
        best = path.best(name)
        assert best.problem.penalty.k == path.sizes[int(np.argmin(path.criterion(name)))]


@pytest.mark.parametrize("loss", LOSSES)
def test_the_gap_by_hand(loss: str) -> None:
    problem = some(loss)
    path = select_path(problem, range(7))
    fit = []
    for k in range(7):
        best = min(oracle.fit(problem, choice).value for choice in combinations(range(6), k))
        deviance = 2.0 * 60 * best
        fit.append(60 * np.log(deviance / 60) if loss in ("squares", "huber") else deviance)
    falls = -np.diff(fit)
    found = path.criterion("gap")
    assert found[0] == found[-1] == np.inf
    for k in range(1, 6):
        # A choice that is not the best of its size would show: the paths of these problems find them all.
        assert found[k] == pytest.approx(np.log(falls[k] / falls[k - 1]), rel=1e-4, abs=1e-4)
    if loss in ("squares", "huber"):
        assert path.best("gap").support.tolist() == [1, 3]


def test_the_gap_finds_the_end_of_an_exact_fit() -> None:
    path = select_path(some("squares", noise=0.0), range(7))
    assert path.objective[2] <= 1e-25
    assert path.best("gap").support.tolist() == [1, 3]
    assert not np.isnan(path.criterion("gap")).any()


@pytest.mark.parametrize("sizes", [[0, 1], [1, 2, 4], [0, 2, 4]], ids=str)
def test_the_gap_needs_neighbours(sizes: list[int]) -> None:
    path = select_path(some("squares"), sizes)
    sentence = f"sizes are {sizes}: the gap criterion needs three consecutive ones or more."
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        path.criterion("gap")
    with pytest.raises(ValueError, match=r"^criterion is 'cv', which is unknown: "):
        path.criterion("cv")


# -- cross-validation --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["splicing", "omp"])
@pytest.mark.parametrize("loss", LOSSES)
def test_folds_by_hand(loss: str, method: str) -> None:
    """Every fold fitted on its own rows, with the weights of the whole."""
    rng = np.random.default_rng(0)
    s = rng.uniform(0.5, 1.5, 60)
    offset = 0.2 * rng.normal(size=(60, 3) if loss == "multinomial" else 60)
    problem = some(loss, sample_weight=s, offset=offset, ridge=0.05)
    found = cross_validate_subsets(problem, range(5), cv=4, method=method)
    labels = problem.loss.y.argmax(axis=1) if loss == "multinomial" else problem.loss.y[:, 0]
    folds = StratifiedKFold if loss in ("logistic", "multinomial") else KFold
    X = oracle.dense(problem)
    for fold, (train, test) in enumerate(folds(4, shuffle=True, random_state=0).split(X, labels)):
        here = replace(
            problem.loss,
            y=problem.loss.y[train],
            s=s[train] * s.sum() / s[train].sum(),
            offset=offset[train].reshape(len(train), -1),
        )
        small = replace(problem, design=Problem.build(X[train], np.zeros(len(train))).design, loss=here)
        path = select_path(small, range(5), method)
        for k, solution in enumerate(path):
            fit = oracle.fit(small, solution.support)
            assert fit.value == pytest.approx(solution.objective, rel=1e-8)
            whole = replace(problem.loss, s=np.where(np.isin(np.arange(60), test), s, 0.0) / s[test].sum())
            left = oracle.losses(replace(problem, loss=whole), X @ fit.W + fit.b)[0]
            assert found.fold_losses[k, fold] == pytest.approx(left, rel=1e-4)
    assert found.path.sizes.tolist() == [0, 1, 2, 3, 4]
    assert found.lams.tolist() == [0.0, 1.0, 2.0, 3.0, 4.0]
    np.testing.assert_allclose(found.mean, found.fold_losses.mean(axis=1))
    for k, solution in enumerate(found.path):
        assert solution.objective == pytest.approx(select_path(problem, range(5), method)[k].objective, rel=1e-12)


def test_choosing_by_cross_validation() -> None:
    found = cross_validate_subsets(some("squares", n=100), range(6), cv=5)
    assert isinstance(found.path, SubsetPath)
    assert found.best.problem.penalty.k == int(np.argmin(found.mean))
    assert {1, 3} <= set(found.best.support.tolist())
    limit = found.mean.min() + found.fold_losses[int(np.argmin(found.mean))].std(ddof=1) / np.sqrt(5)
    expected = int(np.flatnonzero(found.mean <= limit)[0])
    assert found.one_se.problem.penalty.k == found.choose("1se").problem.penalty.k == expected
    assert found.choose("1se").support.tolist() == [1, 3]
    assert found.choose().problem.penalty.k == found.best.problem.penalty.k
    with pytest.raises(ValueError, match=r"^rule is 'max', which is unknown: choose 'min' or '1se'\.$"):
        found.choose("max")


def test_folds_in_parallel_are_the_same() -> None:
    problem = some("logistic")
    one = cross_validate_subsets(problem, range(3), cv=3)
    two = cross_validate_subsets(problem, range(3), cv=3, n_jobs=2)
    np.testing.assert_array_equal(one.fold_losses, two.fold_losses)


def test_folds_given_as_splits_and_wrong_ones() -> None:
    problem = some("squares")
    rows = np.arange(60)
    splits = [(rows[rows % 2 == r], rows[rows % 2 != r]) for r in (0, 1)]
    found = cross_validate_subsets(problem, [1, 2], cv=splits)
    assert found.fold_losses.shape == (2, 2)
    with pytest.raises(ValueError, match=r"^cv is 1: pass a number of folds from 2 to the number of samples, 60\.$"):
        cross_validate_subsets(problem, [1], cv=1)
    with pytest.raises(ValueError, match=r"^cv fold 0 has no sample of positive weight on one side: "):
        cross_validate_subsets(problem, [1], cv=[(rows, rows[:0])])
    with pytest.raises(TypeError, match=r"^option 'depth' is unknown to splicing"):
        cross_validate_subsets(problem, [1], depth=1)


def test_starts_carry_over_from_size_to_size() -> None:
    """OMP along the path is OMP at each size."""
    for loss in LOSSES:
        problem = some(loss)
        path = select_path(problem, range(5), "omp")
        for k in range(5):
            np.testing.assert_array_equal(path[k].support, select(problem, k, "omp").support)
