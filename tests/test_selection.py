"""Selectors that grow or threshold, against definitions written anew: fits by lstsq and scipy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import subset_oracle as oracle
from selection_cases import HEURISTICS, each_loss, hard, instance, value

from sparseopt import Groups, Problem, Status, select

# -- greedy ------------------------------------------------------------------------------------------------------------


@each_loss
@pytest.mark.parametrize("settings", [{}, {"ridge": 0.1}, {"intercept": False}], ids=["plain", "ridge", "no-intercept"])
def test_omp_is_its_definition(settings: dict[str, Any], loss: str) -> None:
    for seed in range(10 if loss == "squares" else 2):
        problem = instance(seed, loss, **settings)
        expected = oracle.omp(problem, 4)
        for k in range(5):
            solution = select(problem, k, "omp")
            assert solution.support.tolist() == sorted(expected[:k])
            assert solution.objective == pytest.approx(value(problem, expected[:k]), rel=1e-8)
            assert solution.status is Status.LOCAL


@each_loss
def test_omp_with_everything_else(loss: str) -> None:
    """Sample weights, offset, an always-in group, several outputs."""
    for seed in range(2):
        rng = np.random.default_rng(seed)
        base = instance(seed, loss)
        X, y = oracle.dense(base), base.loss.y.argmax(axis=1) if loss == "multinomial" else base.loss.y[:, 0]
        if loss in ("squares", "huber"):
            y = np.column_stack([y, rng.normal(size=50)])
        offset = 0.5 * rng.normal(size=(50, base.n_outputs if loss == "multinomial" else np.ndim(y)))
        weights = np.where(np.arange(8) == 2, 0.0, base.groups.weights)
        groups = Groups.from_sizes(base.groups.sizes, weights=weights)
        s = rng.uniform(0.0, 2.0, 50) * (np.arange(50) != 7)
        problem = Problem.build(X, y, groups, loss=loss, offset=offset, sample_weight=s)
        chosen = oracle.omp(problem, 3)
        solution = select(problem, 3, "omp")
        assert solution.support.tolist() == sorted([*chosen, 2])
        assert solution.objective == pytest.approx(value(problem, chosen), rel=1e-8)


def test_omp_by_gain_is_its_definition() -> None:
    for seed in range(20):
        for settings in ({}, {"ridge": 0.1}):
            problem = instance(seed, **settings)
            expected = oracle.greedy(problem, 4)
            for k in range(5):
                assert select(problem, k, "omp", by="gain").support.tolist() == sorted(expected[:k])


@each_loss
def test_omp_by_gain_follows_the_model_of_the_loss(loss: str) -> None:
    """For losses other than squares the touching quadratic decides, so the group is nearly the one that helps most."""
    for seed in range(2):
        problem = instance(seed, loss)
        null = value(problem, [])
        falls = [null - value(problem, [g]) for g in range(8)]
        (g,) = select(problem, 1, "omp", by="gain").support
        assert falls[g] >= 0.8 * max(falls)


def test_omp_ends_when_nothing_pulls() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(20, 8))
    problem = Problem.build(X, X[:, 0] - X[:, 3], groups=2, intercept=False)
    for method in HEURISTICS:
        solution = select(problem, 4, method)
        assert solution.objective <= 1e-25
        assert {0, 1} <= set(solution.support.tolist())


@pytest.mark.parametrize("mean", [1e3, 1e6, 1e8])
@pytest.mark.parametrize("method", HEURISTICS)
def test_a_large_mean_of_the_response_changes_nothing(method: str, mean: float) -> None:
    """The intercept takes it away, and 1e8 still leaves eight digits of the rest."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 10))
    y = X[:, 0] - X[:, 4] + 0.3 * rng.normal(size=60)
    expected = select(Problem.build(X, y, groups=2), 2, method)
    found = select(Problem.build(X, y + mean, groups=2), 2, method)
    np.testing.assert_array_equal(found.support, expected.support)
    assert found.objective == pytest.approx(expected.objective, rel=1e-6)
    assert found.status is expected.status


def slow_forward_backward(problem: Problem, k: int, share: float) -> list[int]:
    chosen: list[int] = []
    F, gained = value(problem, []), {}
    while len(chosen) < k:
        pulls = oracle.scores(problem, oracle.fit(problem, chosen).A)
        pulls[chosen] = -np.inf
        g = int(np.argmax(pulls))
        chosen.append(g)
        F, gained[len(chosen)] = value(problem, chosen), F - value(problem, chosen)
        while len(chosen) > 1:
            costs = {m: value(problem, [c for c in chosen if c != m]) - F for m in chosen}
            cheapest = min(costs, key=lambda m: costs[m])
            if cheapest == g or costs[cheapest] > share * gained[len(chosen)]:
                break
            chosen.remove(cheapest)
            F += costs[cheapest]
    return sorted(chosen)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_forward_backward_is_its_definition(share: float) -> None:
    differs = 0
    for seed in range(25):
        problem = hard(seed)
        for k in (3, 5):
            found = select(problem, k, "forward-backward", share=share).support.tolist()
            assert found == slow_forward_backward(problem, k, share)
            differs += found != sorted(oracle.omp(problem, k))
    assert differs or share < 0.5, "no backward step was taken in any instance"


# -- thresholding ------------------------------------------------------------------------------------------------------


def slow_iht(problem: Problem, k: int, steps: int = 3000) -> list[int]:
    """w <- H_k(w - t grad), t = 1 / L, with the intercept fitted exactly each time (least squares)."""
    X, y = oracle.dense(problem), problem.loss.y[:, 0]
    X, y, w = X - X.mean(axis=0), y - y.mean(), np.zeros(X.shape[1])
    t = 1.0 / np.linalg.norm(X, 2) ** 2
    for _ in range(steps):
        w = w - t * (X.T @ (X @ w - y))
        norms = problem.groups.norms(w)
        w[problem.groups.features(np.argsort(-norms)[k:])] = 0.0
    return sorted(np.flatnonzero(problem.groups.norms(w)).tolist())


def easy(seed: int, k: int = 3) -> tuple[Problem, list[int]]:
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(120, 30)) + 1.0
    chosen = sorted(rng.permutation(10)[:k].tolist())
    w = np.zeros(30)
    for g in chosen:
        w[3 * g : 3 * g + 3] = rng.choice([-1.0, 1.0], 3) * rng.uniform(0.8, 1.5, 3)
    return Problem.build(X, X @ w + 0.5 * rng.normal(size=120) + 3.0, groups=3), chosen


@pytest.mark.parametrize("debias", [True, False])
def test_thresholding_agrees_with_plain_thresholding_on_easy_problems(debias: bool) -> None:
    for seed in range(15):
        problem, chosen = easy(seed)
        assert slow_iht(problem, 3) == chosen
        solution = select(problem, 3, "iht", debias=debias)
        assert solution.support.tolist() == chosen
        assert solution.objective == pytest.approx(value(problem, chosen), rel=1e-9)
        assert solution.status is Status.LOCAL


@pytest.mark.parametrize("debias", [True, False])
def test_thresholding_never_ends_above_its_start(debias: bool) -> None:
    rng = np.random.default_rng(0)
    for seed in range(30):
        problem = hard(seed)
        start = rng.permutation(10)[:4]
        before = value(problem, start)
        assert select(problem, 4, "iht", start=start.tolist(), debias=debias).objective <= before * (1.0 + 1e-12)
        assert select(problem, 4, "iht", debias=debias).objective <= value(problem, [])
