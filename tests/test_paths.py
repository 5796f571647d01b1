"""Paths and model choice: what a path promises, against single solves, CVXPY-free closed forms and brute force."""

from __future__ import annotations

import io
import sys
import warnings
from dataclasses import replace
from typing import Any

import joblib
import numpy as np
import pytest
import scipy.sparse as sp

from sparseopt import (
    L2,
    MCP,
    Groups,
    LogSum,
    Path,
    Power,
    Problem,
    Scaled,
    Status,
    bcd,
    cross_validate,
    lam_max,
    path,
    paths,
)
from sparseopt.designs import Dense
from sparseopt.experiments.problems import make
from sparseopt.optimality import duality_gap
from sparseopt.solution import ConvergenceWarning
from sparseopt.solvers import compress
from sparseopt.solvers.iterate import Iterate


def data(n: int = 40, p: int = 24, seed: int = 0, outputs: int = 1) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, p)) + 1.0
    W = np.zeros((p, outputs))
    W[:6] = rng.normal(size=W[:6].shape)
    y = X @ W + rng.normal(size=(n, outputs))
    return X, y[:, 0] if outputs == 1 else y


KINDS = {
    "group lasso": {},
    "no intercept": {"intercept": False},
    "sparse group lasso": {"l1_ratio": 0.3},
    "lasso": {"l1_ratio": 1.0},
    "elastic": {"ridge": 0.1},
    "one group free": {"weights": {"1": 0.0}},
    "weights": {"sample_weight": np.linspace(0.0, 2.0, 40) / 40},
    "composite": {"penalty": "log", "composite": True},
    "mcp": {"penalty": "mcp"},
}


# -- lam_max -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", ["squares", "logistic"])
@pytest.mark.parametrize("options", KINDS.values(), ids=KINDS)
def test_zero_above_lam_max_and_not_below(options: dict, loss: str) -> None:
    X, y = data()
    problem = Problem.build(X, y if loss == "squares" else y > np.median(y), groups=3, loss=loss, **options)
    top = lam_max(problem)
    penalised = problem.penalty.penalised
    above = bcd(problem.at(1.0001 * top), tol=1e-9)
    below = bcd(problem.at(0.99 * top), tol=1e-9)
    assert not above.group_norms[penalised].any()
    assert below.group_norms[penalised].any()


def test_lam_max_of_a_regularizer_without_threshold_is_that_of_l2() -> None:
    X, y = data()
    assert lam_max(Problem.build(X, y, groups=3, penalty="lambertw")) == lam_max(Problem.build(X, y, groups=3))


def test_lam_max_of_y_constant_is_zero_and_the_path_still_runs() -> None:
    X, _ = data()
    problem = Problem.build(X, np.full(40, 3.0), groups=3)
    assert lam_max(problem) == pytest.approx(0.0, abs=1e-14)
    solutions = path(problem, n_lams=3)
    assert not solutions.coefs.any()
    assert solutions.intercepts == pytest.approx(3.0)


@pytest.mark.parametrize("n", [6, 30, 60, 61, 67, 997])
@pytest.mark.parametrize("level", [3.0, 0.1, 0.3, 1e5 / 3.0, 1e-9 / 7.0])
def test_y_constant_has_solutions_of_zero_whatever_is_rounded(n: int, level: float) -> None:
    problem = Problem.build(np.random.default_rng(0).normal(size=(n, 6)), np.full(n, level))
    for lams in (None, level * 1e-17, level * 1e-60):
        solutions = path(problem, lams, n_lams=4)
        assert all(status.ok for status in solutions.statuses)
        assert solutions.intercepts == pytest.approx(level, rel=1e-14)
        assert np.abs(solutions.coefs).max() <= 1e-15 * level
    assert path(replace(problem, intercept=False), n_lams=4).coefs.any()


# -- path --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", KINDS.values(), ids=KINDS)
def test_every_point_of_a_path_is_a_solution(options: dict) -> None:
    X, y = data()
    problem = Problem.build(X, y, groups=3, **options)
    solutions = path(problem, n_lams=15, tol=1e-9)
    assert all(status is Status.CONVERGED for status in solutions.statuses)
    for k, solution in enumerate(solutions):
        accuracy = solution.stationarity if solution.gap is None else solution.gap
        assert accuracy <= 2e-9
        assert solution.objective == pytest.approx(solutions.objective[k], rel=1e-10)
        assert solution.problem.lam == solutions.lams[k]
    assert solutions.n_active[0] == np.count_nonzero(~problem.penalty.penalised)


def test_a_path_equals_single_solves() -> None:
    X, y = data(outputs=3)
    problem = Problem.build(X, y, groups=3)
    solutions = path(problem, n_lams=8, tol=1e-12)
    for solution in solutions:
        alone = bcd(solution.problem, tol=1e-12)
        np.testing.assert_allclose(solution.w, alone.w, atol=1e-6)
        np.testing.assert_allclose(solution.intercept, alone.intercept, atol=1e-6)


def test_sequence_and_table_agree() -> None:
    X, y = data()
    solutions = path(Problem.build(X, y, groups=3), n_lams=10)
    assert isinstance(solutions, Path)
    assert len(solutions) == 10
    np.testing.assert_array_equal(solutions.coefs, [solution.w for solution in solutions])
    np.testing.assert_allclose(solutions.group_norms, [solution.group_norms for solution in solutions], rtol=1e-14)
    np.testing.assert_array_equal(solutions[-1].w, solutions[9].w)
    assert [solution.problem.lam for solution in solutions[2:4]] == list(solutions.lams[2:4])
    with pytest.raises(IndexError):
        solutions[10]


@pytest.mark.parametrize("settles", [True, False])
def test_errors_do_not_grow_along_a_path(settles: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each lam starts from what two others extrapolate to; an inexact one of them would be worse at every refresh."""
    instance = make("corr", "quick")
    problem = Problem.build(instance.X, instance.y, Groups.from_sizes(instance.sizes), intercept=False)
    if not settles:
        monkeypatch.setattr(Iterate, "_settle", lambda self: setattr(self, "drift", 0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        statuses = path(problem, n_lams=100, ratio=0.05, tol=1e-10, progress=False).statuses
    assert all(status.ok for status in statuses) == settles


def test_lams_of_ones_own_are_solved_in_decreasing_order() -> None:
    X, y = data()
    solutions = path(Problem.build(X, y, groups=3), [0.1, 0.5, 0.2])
    np.testing.assert_array_equal(solutions.lams, [0.5, 0.2, 0.1])


def test_knots_of_mcp_move_with_lam() -> None:
    X, y = data()
    solutions = path(Problem.build(X, y, groups=3, penalty="mcp"), [0.5, 0.1])
    assert [solution.problem.penalty.q for solution in solutions] == [Scaled(MCP(), 0.5), Scaled(MCP(), 0.1)]


BAD = {
    "negative": ({"lams": [0.1, -1.0]}, "lams must be a sequence of positive numbers"),
    "empty": ({"lams": []}, "lams must be a sequence of positive numbers"),
    "nan": ({"lams": [np.nan]}, "lams must be a sequence of positive numbers"),
    "matrix": ({"lams": [[0.1, 0.2]]}, "lams must be a sequence of positive numbers"),
    "none": ({"n_lams": 0}, "n_lams is 0"),
    "ratio": ({"ratio": 1.5}, "ratio is 1.5"),
    "tol": ({"tol": 0.0}, "tol is 0.0"),
    "no epochs": ({"max_epochs": 0}, "max_epochs is 0"),
}


@pytest.mark.parametrize(("options", "message"), BAD.values(), ids=BAD)
def test_bad_input(options: dict, message: str) -> None:
    X, y = data()
    with pytest.raises(ValueError, match=message):
        path(Problem.build(X, y, groups=3), **options)


def test_lams_that_are_no_numbers() -> None:
    X, y = data()
    with pytest.raises(TypeError, match=r"lams must be a sequence of positive numbers, got \['a'\]"):
        path(Problem.build(X, y, groups=3), ["a"])


@pytest.mark.parametrize("loss", ["squares", "logistic", "poisson", "multinomial"])
def test_a_loose_path_starts_at_zero(loss: str) -> None:
    X, y = data()
    target = {"squares": y, "logistic": y > 0, "poisson": np.round(y - y.min()), "multinomial": np.arange(40) % 3}[loss]
    assert path(Problem.build(X, target, groups=3, loss=loss), n_lams=3, tol=1e-2).n_active[0] == 0


def test_one_warning_says_how_many_solutions_are_inaccurate() -> None:
    X, y = data()
    with pytest.warns(ConvergenceWarning, match=r"\d+ of 10 solutions"):
        solutions = path(Problem.build(X, y, groups=3), n_lams=10, tol=1e-12, max_epochs=1)
    assert Status.MAX_EPOCHS in solutions.statuses


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("progress", "stream", "shown"),
    [(None, io.StringIO, False), (True, io.StringIO, True), (False, Terminal, False), (None, Terminal, False)],
    ids=["log file", "asked for", "refused", "fast on a terminal"],
)
def test_progress_bar(monkeypatch: pytest.MonkeyPatch, progress: bool | None, stream: type, shown: bool) -> None:
    X, y = data()
    monkeypatch.setattr(sys, "stderr", stream())
    path(Problem.build(X, y, groups=3), n_lams=5, progress=progress)
    assert bool(sys.stderr.getvalue()) is shown


# -- fewer samples, same problem ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"intercept": False}, {"sample_weight": np.linspace(0, 1, 200)}], ids=str)
@pytest.mark.parametrize("outputs", [1, 3])
@pytest.mark.parametrize("singular", [False, True])
def test_compressed_problem_is_the_same_function(options: dict, outputs: int, singular: bool) -> None:
    X, y = data(200, 12, outputs=outputs)
    if singular:
        X[:, 3] = X[:, 4]
        X[:, 5] = 7.0
    offset = np.linspace(-1.0, 1.0, 200)
    problem = Problem.build(X, y, groups=3, ridge=0.1, l1_ratio=0.2, offset=offset, **options)
    short, intercept_of = compress(problem)
    assert short.design.shape[0] <= 13
    rng = np.random.default_rng(1)
    for _ in range(5):
        W = rng.normal(size=(12, outputs))
        b = intercept_of(np.arange(12), W) if problem.intercept else np.zeros(outputs)
        w = W[:, 0] if outputs == 1 else W
        assert short.value(w) == pytest.approx(problem.value(w, b), rel=1e-11)
        np.testing.assert_allclose(short.gradient(w)[0], problem.gradient(w, b)[0], atol=1e-11)


def test_only_least_squares_with_many_samples_is_compressed() -> None:
    X, y = data(200, 12)
    assert compress(Problem.build(X[:40], y[:40], groups=3)) is None
    assert compress(Problem.build(X, y, groups=3, loss="huber")) is None
    assert compress(Problem.build(sp.csc_array(X), y, groups=3)) is None


def nearly_perfect(noise: float) -> Problem:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(3000, 40)).astype(np.float32)
    y = 100.0 * X[:, :8].astype(np.float64).sum(axis=1) + noise * rng.normal(size=3000)
    return Problem.build(X, y, groups=4)


@pytest.mark.parametrize("noise", [100.0, 1e-3])
def test_float32_paths_have_the_gap_they_say(noise: float) -> None:
    problem = nearly_perfect(noise)
    solutions = path(problem, n_lams=30, ratio=1e-7, tol=1e-3)
    for solution in solutions:
        assert duality_gap(solution.problem, solution.w, solution.intercept).relative <= 1.2e-3


def test_a_nearly_perfect_fit_needs_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the test above would miss if float32 answers were not looked at again."""
    monkeypatch.setattr(paths, "_holds", lambda *_: True)
    solutions = path(nearly_perfect(1e-3), n_lams=30, ratio=1e-7, tol=1e-3)
    assert max(duality_gap(s.problem, s.w, s.intercept).relative for s in solutions) > 1e-2


@pytest.mark.parametrize("penalty", ["mcp", "scad", "log", "l2"])
def test_samples_that_were_compressed_badly_are_noticed(monkeypatch: pytest.MonkeyPatch, penalty: str) -> None:
    rng = np.random.default_rng(1)
    X = rng.normal(size=(2000, 24)).astype(np.float32)
    y = X[:, :6].sum(axis=1) + rng.normal(size=2000)
    problem = Problem.build(X, y, groups=3, penalty=penalty)

    def bad(problem: Problem, single: bool = False, *rest: Any) -> Any:
        short, intercept = compress(problem, single, *rest)
        off = 1.01 if single else 1.0
        return replace(short, design=Dense(off * short.design.columns)), intercept

    def worst() -> float:
        answers = path(problem, n_lams=8, ratio=0.05, tol=1e-3)
        return max(duality_gap(a.problem, a.w, a.intercept).relative if penalty == "l2" else a.stationarity
                   for a in answers)  # fmt: skip

    assert worst() <= 1.2e-3
    monkeypatch.setattr(paths, "compress", bad)
    assert worst() <= 1.2e-3
    monkeypatch.setattr(paths, "_holds", lambda *_: True)
    assert worst() > 2e-3


def test_paths_with_and_without_compression_agree() -> None:
    X, y = data(200, 12)
    problem = Problem.build(X, y, groups=3)
    dense = path(problem, n_lams=10, tol=1e-12)
    sparse = path(Problem.build(sp.csc_array(X), y, groups=3), n_lams=10, tol=1e-12)
    np.testing.assert_allclose(dense.lams, sparse.lams, rtol=1e-12)
    np.testing.assert_allclose(dense.coefs, sparse.coefs, atol=1e-6)
    np.testing.assert_allclose(dense.intercepts, sparse.intercepts, atol=1e-6)
    assert max(solution.gap for solution in dense) <= 2e-12


# -- model choice ------------------------------------------------------------------------------------------------------


def test_degrees_of_freedom_of_orthogonal_groups() -> None:
    """Yuan & Lin (2006), (6.2): 1 + (d - 1) ||w|| / ||w_ls|| per group, exact for orthonormal columns."""
    rng = np.random.default_rng(0)
    Q = np.linalg.qr(rng.normal(size=(40, 12)))[0]
    y = rng.normal(size=40)
    solutions = path(Problem.build(Q, y, groups=3, intercept=False), n_lams=10, tol=1e-14)
    ls = Problem.build(Q, y, groups=3).groups.norms(Q.T @ y)
    norms = solutions.group_norms
    expected = np.where(norms > 0.0, 1.0 + 2.0 * norms / ls, 0.0).sum(axis=1)
    np.testing.assert_allclose(solutions.degrees_of_freedom, expected, rtol=1e-6)


def test_degrees_of_freedom_by_perturbing_y() -> None:
    """Stein: the trace of d(Xw)/dy, here by finite differences, for one active group and any design."""
    X, y = data(30, 3)
    problem = Problem.build(X, y, groups=3, lam=0.05, intercept=False)
    fit = lambda target: X @ bcd(Problem.build(X, target, groups=3, lam=0.05, intercept=False), tol=1e-13).w  # noqa: E731
    step = 1e-4
    trace = sum((fit(y + step * e) - fit(y - step * e)) @ e for e in np.eye(30)) / (2.0 * step)
    assert path(problem, [0.05], tol=1e-14).degrees_of_freedom[0] == pytest.approx(trace, rel=1e-4)


def effective_parameters(problem: Problem, w: np.ndarray) -> float:
    """tr[(H + B)^-1 H] of each active group, B from differences of the penalty along a group and across it."""
    penalty, groups, total = problem.penalty, problem.groups, 0.0
    X, s = problem.design.columns.T, problem.loss.s
    for g in np.flatnonzero(groups.norms(w)):
        rows = groups[int(g)]
        H = X[:, rows].T @ (s[:, None] * X[:, rows])
        u = np.linalg.norm(w[rows])
        longer, shorter = w.copy(), w.copy()
        longer[rows] *= 1.0 + 1e-6
        shorter[rows] *= 1.0 - 1e-6
        slope = (penalty.value(longer) - penalty.value(shorter)) / (2e-6 * u)
        across = np.eye(len(rows)) - np.outer(w[rows], w[rows]) / u**2
        total += float(np.trace(np.linalg.solve(H + slope / u * across, H)))
    return total


@pytest.mark.parametrize("weights", ["sqrt", "ones"])
@pytest.mark.parametrize(
    ("q", "composite"),
    [(L2(), False), (LogSum(0.5), False), (MCP(3.0), False), (LogSum(0.5), True), (Power(0.7), True)],
)
def test_degrees_of_freedom_follow_the_penalty(q: Any, composite: bool, weights: str) -> None:
    X, y = data()
    problem = Problem.build(X, y, groups=3, penalty=q, composite=composite, weights=weights, intercept=False)
    solutions = path(problem, [0.2, 0.05], tol=1e-9)
    found = [effective_parameters(solution.problem, solution.w) for solution in solutions]
    np.testing.assert_allclose(solutions.degrees_of_freedom, found, rtol=1e-7)
    assert solutions.n_active[-1] > 1


def test_criteria() -> None:
    X, y = data()
    solutions = path(Problem.build(X, y, groups=3), n_lams=30)
    n, df = 40, solutions.degrees_of_freedom
    rss = np.array([((y - X @ solution.w - solution.intercept) ** 2).sum() for solution in solutions])
    np.testing.assert_allclose(solutions.criterion("aic"), n * np.log(rss / n) + 2.0 * df, rtol=1e-9)
    np.testing.assert_allclose(solutions.criterion("bic"), n * np.log(rss / n) + np.log(n) * df, rtol=1e-9)
    assert (solutions.criterion("ebic") >= solutions.criterion("bic")).all()
    assert solutions.best("ebic").support.size <= solutions.best("aic").support.size
    np.testing.assert_array_equal(solutions.best("bic").w, solutions[int(solutions.criterion("bic").argmin())].w)
    with pytest.raises(ValueError, match="criterion is 'cp'"):
        solutions.best("cp")


def test_cross_validation_by_hand() -> None:
    """Folds as row subsets, without the trick of zero weights."""
    X, y = data()
    problem = Problem.build(X, y, groups=3)
    folds = np.arange(40) % 4
    lams = lam_max(problem) * np.array([1.0, 0.3, 0.1, 0.03])
    splits = [(np.flatnonzero(folds != k), np.flatnonzero(folds == k)) for k in range(4)]
    cv = cross_validate(problem, lams, cv=splits, tol=1e-10)
    for k in range(4):
        out = folds == k
        for i, lam in enumerate(lams):
            fit = bcd(Problem.build(X[~out], y[~out], groups=3, lam=lam), tol=1e-10)
            expected = 0.5 * np.mean((y[out] - fit.predict(X[out])) ** 2)
            assert cv.fold_losses[i, k] == pytest.approx(expected, rel=1e-4)
    assert cv.best_index == int(cv.fold_losses.mean(axis=1).argmin())
    assert cv.one_se_index <= cv.best_index
    limit = cv.mean[cv.best_index] + cv.standard_error[cv.best_index]
    assert cv.mean[cv.one_se_index] <= limit
    assert (cv.mean[: cv.one_se_index] > limit).all()
    np.testing.assert_array_equal(cv.choose("1se").w, cv.one_se.w)
    with pytest.raises(ValueError, match="rule is 'max'"):
        cv.choose("max")


def test_cross_validation_is_the_same_on_any_backend_and_reproducible() -> None:
    X, y = data()
    problem = Problem.build(X, (y > np.median(y)).astype(int), groups=3, loss="logistic")
    here = cross_validate(problem, n_lams=6, cv=3)
    again = cross_validate(problem, n_lams=6, cv=3, n_jobs=2)
    with joblib.parallel_config(backend="threading", n_jobs=2):
        threads = cross_validate(problem, n_lams=6, cv=3)
    # Workers may have fewer BLAS threads, which add in another order.
    np.testing.assert_allclose(here.fold_losses, again.fold_losses, rtol=1e-9)
    np.testing.assert_allclose(here.fold_losses, threads.fold_losses, rtol=1e-9)


def test_folds_of_memory_mapped_data() -> None:
    """Beyond a megabyte joblib maps X into its workers read-only."""
    X, y = data(3000, 60)
    cv = cross_validate(Problem.build(X, y, groups=3), n_lams=3, cv=2, n_jobs=2)
    assert np.isfinite(cv.fold_losses).all()


@pytest.mark.parametrize(("cv", "message"), [(1, "cv is 1"), (41, "cv is 41"), ([([0], [])], "cv fold 0")])
def test_bad_folds(cv: object, message: str) -> None:
    X, y = data()
    with pytest.raises(ValueError, match=message):
        cross_validate(Problem.build(X, y, groups=3), n_lams=3, cv=cv)


def test_a_class_that_a_fold_lacks_is_no_error() -> None:
    X, _ = data()
    labels = np.arange(40) % 3
    labels[labels == 2] = 0
    labels[0] = 2
    problem = Problem.build(X, labels, groups=3, loss="multinomial")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cv = cross_validate(problem, n_lams=4, cv=4, ratio=0.1)
    assert np.isfinite(cv.fold_losses).all()


def test_nothing_is_changed_in_place() -> None:
    X, y = data()
    before = X.copy(), y.copy()
    problem = Problem.build(X, y, groups=3)
    kept = replace(problem)
    cross_validate(problem, n_lams=4, cv=2)
    np.testing.assert_array_equal(X, before[0])
    np.testing.assert_array_equal(y, before[1])
    assert problem.loss is kept.loss
    assert isinstance(problem.penalty.q, L2)


@pytest.mark.parametrize(
    ("ratio", "n_lams", "short"),
    [(0.5, 100, [False] * 2), (0.01, 100, [True] * 2), (0.01, 2, [])],
)
def test_samples_are_compressed_where_many_groups_become_active_on_many_lams(
    monkeypatch: pytest.MonkeyPatch, ratio: float, n_lams: int, short: list[bool]
) -> None:
    """Nobody asks, and no product is made, where all groups active on all lams would not be enough."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(4000, 600))
    problem = Problem.build(X, X[:, :3].sum(axis=1) + rng.normal(size=4000), groups=3)
    asked: list[bool] = []

    def spied(*args: Any) -> Any:
        found = compress(*args)
        asked.append(found is not None)
        return found

    monkeypatch.setattr("sparseopt.paths.compress", spied)
    lams = lam_max(problem) * np.geomspace(1.0, ratio, n_lams)
    for words in ({"lams": lams}, {"n_lams": n_lams, "ratio": ratio}):
        path(problem, tol=1e-3, **words)
    assert asked == short
