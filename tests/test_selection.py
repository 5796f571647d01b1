"""Selectors against definitions written anew: fits by lstsq and scipy, choices by trying everything.

The numbers are those of the windows and counterexamples of problem (1), arXiv 2402.17902.
"""

from __future__ import annotations

import importlib
import re
from functools import cache
from itertools import combinations, product
from typing import Any

import numpy as np
import pytest
import subset_oracle as oracle

from sparseopt import Groups, LogSum, Power, Problem, Solution, Status, select
from sparseopt.regularizers import L2, TransformedL1
from sparseopt.selection import METHODS, refit, select_path
from sparseopt.selection.sequential import next_by_penalty

LOSSES = ("squares", "huber", "logistic", "poisson", "multinomial")
HEURISTICS = tuple(method for method in METHODS if method != "exact")

each_loss = pytest.mark.parametrize("loss", LOSSES)


def instance(seed: int, loss: str = "squares", *, n: int = 50, rho: float = 0.5, **settings: Any) -> Problem:
    """Eight groups of one to three correlated columns, weights of 0.7 to 1.5; three of them matter."""
    rng = np.random.default_rng(seed)
    sizes = (2, 1, 3, 2, 1, 2, 3, 1)
    X = np.sqrt(1.0 - rho) * rng.normal(size=(n, 15)) + np.sqrt(rho) * rng.normal(size=(n, 1))
    X *= rng.uniform(0.5, 2.0, 15)
    signal = X @ (rng.normal(size=15) * np.repeat(rng.permutation([1, 1, 1, 0, 0, 0, 0, 0]), sizes))
    signal /= signal.std()
    y = {
        "squares": signal + rng.normal(size=n),
        "huber": signal + rng.standard_t(2, n),
        "logistic": (signal + 2.0 * rng.normal(size=n) > 0.0).astype(float),
        "poisson": rng.poisson(np.exp(0.5 * signal)).astype(float),
        "multinomial": np.argsort(np.argsort(signal + 1.5 * rng.normal(size=n))) * 3 // n,
    }[loss]
    groups = Groups.from_sizes(sizes, weights=rng.uniform(0.7, 1.5, 8))
    return Problem.build(X, y, groups, loss=loss, **settings)


def hard(seed: int, n: int = 30) -> Problem:
    """Ten strongly correlated groups of one to three columns, four of which matter: greedy choices often fail."""
    rng = np.random.default_rng(seed)
    sizes = rng.permutation([1, 1, 1, 2, 2, 2, 2, 3, 3, 3])
    p = int(sizes.sum())
    X = rng.normal(size=(n, p)) + 1.5 * rng.normal(size=(n, 3)) @ rng.normal(size=(3, p))
    w = rng.normal(size=p) * np.repeat(rng.permutation([1, 1, 1, 1, 0, 0, 0, 0, 0, 0]), sizes)
    y = X @ w
    return Problem.build(X, y + 0.5 * y.std() * rng.normal(size=n), Groups.from_sizes(sizes))


def value(problem: Problem, chosen: Any) -> float:
    return oracle.fit(problem, chosen).value


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


# -- sequential selection ----------------------------------------------------------------------------------------------


def window(problem: Problem, chosen: list[int]) -> tuple[float, float]:
    """tau_S, and the lower end of the explicit window of lam in which only OMP's group is active (least squares).

    L_S(w) = min over the free columns of the loss; its Hessian is that of (I - P) X, in units w_g omega_g.
    """
    X, n, groups = oracle.dense(problem), len(problem.loss.y), problem.groups
    features = groups.features(np.array(chosen, dtype=int))
    Q = np.linalg.qr(np.column_stack([np.ones(n), X[:, features]]))[0]
    rest = (X - Q @ (Q.T @ X)) / np.sqrt(n)
    pulls = oracle.scores(problem, oracle.fit(problem, chosen).A)
    pulls[chosen] = -np.inf
    order = np.argsort(-pulls)
    i, tau = order[0], pulls[order[0]]
    blocks = {g: rest[:, groups[int(g)]] / groups.weights[g] for g in order if g not in chosen}
    mu = np.linalg.eigvalsh(blocks[i].T @ blocks[i])[0]
    M = max(np.linalg.norm(blocks[j].T @ blocks[i], 2) for j in blocks if j != i)
    return float(tau), float(tau - (tau - pulls[order[1]]) * mu / (mu + M))


QS = {"lasso": L2(), "log": LogSum(1.0), "sharp log": LogSum(0.1), "root": Power(0.5), "tl1": TransformedL1(1.0)}


@pytest.mark.parametrize("name", QS)
def test_in_the_window_the_penalised_problem_chooses_as_omp(name: str) -> None:
    """60 instances of 8 groups, 4 steps each, at the lower end of the window, and by `sequential` in all windows."""
    for seed in range(60):
        problem = instance(seed, rho=0.3)
        order = oracle.omp(problem, 4)
        shares = []
        for step in range(4):
            tau, low = window(problem, order[:step])
            assert 0.0 < low < tau
            shares.append(low / tau)
            fit = refit(problem, order[:step])
            for share in (shares[-1] + 1e-6, 0.5 * (1.0 + shares[-1])):
                assert next_by_penalty(fit, QS[name], share) == order[step]
        inside = 0.1 + 0.9 * max(shares)
        kind = {"by": "lasso"} if name == "lasso" else {"by": "q", "penalty": QS[name]}
        solution = select(problem, 4, "sequential", lam_share=inside, **kind)
        assert solution.support.tolist() == sorted(order)


@pytest.mark.parametrize("loss", ["logistic", "poisson", "multinomial"])
def test_sequential_lasso_of_other_losses_chooses_as_omp(loss: str) -> None:
    for seed in range(2):
        problem = instance(seed, loss)
        chosen = select(problem, 3, "sequential", lam_share=0.999).support
        np.testing.assert_array_equal(chosen, sorted(oracle.omp(problem, 3)))


def instance_h() -> Problem:
    """The group of largest gradient is not the one of the group lasso for lam in [0.2536, 0.8875]."""
    X = np.array([[1.0, 0.45], [0.0, np.sqrt(0.0475)]])
    y = np.array([1.0, (0.95 - 0.45) / np.sqrt(0.0475)])
    return Problem.build(X, y, intercept=False, sample_weight=np.ones(2))


def test_outside_the_window_the_choice_may_differ() -> None:
    problem = instance_h()
    X = oracle.dense(problem)
    np.testing.assert_allclose(X.T @ X, [[1.0, 0.45], [0.45, 0.25]], atol=1e-12)
    np.testing.assert_allclose(X.T @ problem.loss.y[:, 0], [1.0, 0.95], atol=1e-12)
    assert select(problem, 1, "omp").support.tolist() == [0]
    for share, expected in ((0.95, 0), (0.92, 0), (0.88, 1), (0.5, 1), (0.26, 1)):
        assert select(problem, 1, "sequential", lam_share=share).support.tolist() == [expected], share


def gaps(problem: Problem, order: list[int]) -> float:
    """The smallest lead of the first score over the second, as a share, along the steps of OMP."""
    least = 1.0
    for step in range(len(order)):
        pulls = oracle.scores(problem, oracle.fit(problem, order[:step]).A)
        pulls[order[:step]] = -np.inf
        first, second = np.sort(pulls)[[-1, -2]]
        least = min(least, 1.0 - second / first)
    return least


def test_the_softmax_mask_chooses_as_omp_where_gaps_are_clear() -> None:
    tried = 0
    for seed in range(200):
        problem = instance(seed, rho=0.2)
        order = oracle.omp(problem, 2)
        if gaps(problem, order) < 0.15:
            continue
        assert select(problem, 2, "sequential", by="softmax").support.tolist() == sorted(order), seed
        tried += 1
        if tried == 20:
            return
    raise AssertionError(f"{tried} instances have clear gaps")


# -- replacement -------------------------------------------------------------------------------------------------------


def slow_ompr(problem: Problem, k: int) -> tuple[list[int], list[float]]:
    """Algorithm 2 of the paper by the gradient, ended where a step raises the objective; and its objectives."""
    chosen = sorted(oracle.omp(problem, k))
    values, seen = [value(problem, chosen)], {tuple(chosen)}
    while True:
        here = oracle.fit(problem, chosen)
        pulls = oracle.scores(problem, here.A)
        pulls[chosen] = -np.inf
        sizes = [problem.groups.weights[g] * np.linalg.norm(here.W[problem.groups[g]]) for g in chosen]
        trial = sorted({*chosen, int(np.argmax(pulls))} - {chosen[int(np.argmin(sizes))]})
        if value(problem, trial) > values[-1] * (1.0 + 1e-10) or tuple(trial) in seen:
            return chosen, values
        chosen = trial
        seen.add(tuple(chosen))
        values.append(value(problem, chosen))


def test_replacement_is_its_definition() -> None:
    replaced = 0
    for seed in range(60):
        problem = hard(seed)
        chosen, values = slow_ompr(problem, 4)
        solution = select(problem, 4, "ompr")
        assert solution.support.tolist() == chosen
        assert solution.objective == pytest.approx(values[-1], rel=1e-9)
        assert solution.status is Status.LOCAL
        assert solution.objective <= select(problem, 4, "omp").objective * (1.0 + 1e-12)
        replaced += len(values) > 1
    assert replaced > 10


@each_loss
def test_replacement_by_problem_1_is_replacement_by_the_gradient(loss: str) -> None:
    for seed in range(15 if loss == "squares" else 2):
        problem = hard(seed) if loss == "squares" else instance(seed, loss)
        expected = select(problem, 3, "ompr")
        for q in (LogSum(1.0), Power(0.5), L2())[: 3 if loss == "squares" else 1]:
            found = select(problem, 3, "ompr", by="q", penalty=q, lam_share=0.9999)
            np.testing.assert_array_equal(found.support, expected.support)
            assert found.status is expected.status


def test_replacement_that_goes_round_in_circles_says_so() -> None:
    """Counterexample (a): OMP takes {3, 1}, then 1 and 2 replace each other at L = 1/4; {1, 2} has L = 0."""
    X = np.column_stack([np.eye(3)[:, :2], np.full(3, 1.0 / np.sqrt(3.0))])
    problem = Problem.build(X, [1.0, 1.0, 0.0], intercept=False, sample_weight=np.ones(3))
    for by in ("score", "q"):
        solution = select(problem, 2, "ompr", by=by)
        assert solution.status is Status.CYCLING
        assert not solution.status.ok
        assert 2 in solution.support
        assert solution.objective == pytest.approx(0.25, rel=1e-12)
    assert select(problem, 2, "splicing").objective <= 1e-30
    assert value(problem, [0, 1]) <= 1e-30


def test_replacement_keeps_the_best() -> None:
    """Instance H, k = 1: unguarded steps oscillate between 2.6316 and 1.3266."""
    problem = instance_h()
    assert select(problem, 1, "omp").objective == pytest.approx(2.6316, abs=1e-4)
    solution = select(problem, 1, "ompr")
    assert solution.support.tolist() == [1]
    assert solution.objective == pytest.approx(1.3266, abs=1e-4)
    assert solution.status is Status.LOCAL


def test_replacement_ends_at_a_minimum_over_all_groups() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(30, 8))
    solution = select(Problem.build(X, X[:, 0] + X[:, 5], groups=2), 3, "ompr")
    assert solution.status is Status.CONVERGED
    assert solution.objective <= 1e-25


def test_replacement_counts_its_steps() -> None:
    for seed in range(60):
        steps = len(slow_ompr(hard(seed), 4)[1])
        if steps > 3:
            break
    assert select(hard(seed), 4, "ompr", max_steps=1).status is Status.MAX_EPOCHS


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


# -- splicing ----------------------------------------------------------------------------------------------------------


@cache
def spliced() -> tuple[tuple[Problem, Solution, dict[tuple[int, ...], float]], ...]:
    """100 hard instances, the choice of 4 of 10 groups, and the objectives of all 210 choices."""
    found = []
    for seed in range(100):
        problem = hard(seed)
        table = {choice: value(problem, choice) for choice in combinations(range(10), 4)}
        found.append((problem, select(problem, 4), table))
    return tuple(found)


def test_splicing_is_never_worse_than_greedy_growth() -> None:
    for problem, solution, _ in spliced():
        assert solution.objective <= select(problem, 4, "omp", by="gain").objective * (1.0 + 1e-10)
        assert solution.status is Status.LOCAL


def neighbours(chosen: list[int], total: int) -> list[tuple[int, ...]]:
    """All choices with one group exchanged."""
    others = [g for g in range(total) if g not in chosen]
    return [tuple(sorted({*chosen, into} - {out})) for out, into in product(chosen, others)]


@pytest.mark.parametrize("exchange", [1, 2, 3])
def test_no_exchange_of_one_group_helps_after_splicing(exchange: int) -> None:
    for problem, solution, table in spliced():
        found = select(problem, 4, exchange=exchange)
        assert found.objective <= solution.objective * (1.0 + 1e-9), "exchanges of one group come first"
        chosen = found.support.tolist()
        assert found.objective == pytest.approx(table[tuple(chosen)], rel=1e-9)
        best = min(table[choice] for choice in neighbours(chosen, 10))
        assert found.objective <= best + 1e-9 * table[tuple(chosen)]


def test_splicing_nearly_always_finds_the_best_subset() -> None:
    hits = {"splicing": 0, "omp": 0}
    for seed in range(100):
        problem = instance(seed)
        best = min(refit(problem, choice).value for choice in combinations(range(8), 3)) * (1.0 + 1e-9)
        hits["splicing"] += select(problem, 3).objective <= best
        hits["omp"] += select(problem, 3, "omp").objective <= best
    assert hits["splicing"] > 95, hits
    assert hits["omp"] < 60, hits


def test_splicing_often_finds_the_best_subset_where_greedy_choices_fail() -> None:
    hits = {"splicing": 0, "three together": 0, "path": 0, "omp": 0}
    for problem, solution, table in spliced():
        best = min(table.values()) * (1.0 + 1e-9)
        hits["splicing"] += solution.objective <= best
        hits["three together"] += select(problem, 4, exchange=3).objective <= best
        hits["path"] += select_path(problem, range(7))[4].objective <= best
        hits["omp"] += select(problem, 4, "omp").objective <= best
    assert hits["splicing"] > 80, hits
    assert hits["three together"] > 95, hits
    assert hits["path"] > 95, hits
    assert hits["omp"] < 20, hits


@pytest.mark.parametrize("loss", ["huber", "logistic", "poisson", "multinomial"])
def test_splicing_of_other_losses(loss: str) -> None:
    """Exchanges are proposed by a model, so no promise is made; the best choice is found in most cases."""
    hits = 0
    for seed in range(6):
        problem = instance(seed, loss, rho=0.7)
        solution = select(problem, 3)
        grown = select(problem, 3, "omp", by="gain")
        assert solution.objective <= grown.objective * (1.0 + 1e-10)
        best = min(refit(problem, choice).value for choice in combinations(range(8), 3))
        assert solution.objective >= best * (1.0 - 1e-10)
        hits += solution.objective <= best * (1.0 + 1e-8)
    assert hits >= 5


def test_splicing_with_overlapping_and_always_in_groups() -> None:
    """One-hot factors without an intercept share the constant: what a member costs depends on the others."""
    for seed in range(30):
        rng = np.random.default_rng(seed)
        factors = [rng.permutation(np.arange(30) % 3) for _ in range(6)]
        X = np.column_stack([np.eye(3)[factor] for factor in factors])
        y = rng.normal(size=30) + 2.0 + X[:, 0] - X[:, 4]
        problem = Problem.build(X, y, groups=3, weights=[1, 1, 1, 1, 1, 0.0], intercept=bool(seed % 2))
        solution = select(problem, 2)
        chosen = [g for g in solution.support.tolist() if g != 5]
        best = min(value(problem, choice) for choice in neighbours(chosen, 5))
        assert solution.objective <= best + 1e-8 * value(problem, [])


def test_a_narrow_pool_widens(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a span of all groups would not fit into memory, the search sees some first and others when they promise."""
    expected = [select(hard(seed), 2).objective for seed in range(30)]
    monkeypatch.setattr(importlib.import_module("sparseopt.selection.splicing"), "_NUMBERS", 1.0)
    hits = 0
    for seed, objective in enumerate(expected):
        found = select(hard(seed), 2)
        assert found.objective <= select(hard(seed), 2, "omp").objective * (1.0 + 1e-10)
        hits += found.objective <= objective * (1.0 + 1e-9)
    assert hits >= 27


def test_splicing_counts_its_steps() -> None:
    for problem, solution, _ in spliced():
        if solution.epochs > 1:
            limited = select(problem, 4, max_steps=1)
            assert limited.status is Status.MAX_EPOCHS
            assert limited.epochs <= 1
            return
    raise AssertionError("no instance took two steps")


# -- arguments ---------------------------------------------------------------------------------------------------------


def named_problem() -> Problem:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(40, 12))
    groups = {name: [2 * g, 2 * g + 1] for g, name in enumerate(("age", "city", "dose", "site", "time", "unit"))}
    y = X[:, 0] + X[:, 5] - X[:, 6] + rng.normal(size=40)
    return Problem.build(X, y, groups, weights={"unit": 0.0})


@pytest.mark.parametrize("method", HEURISTICS)
def test_starts(method: str) -> None:
    """By solution, numbers or names, an always-in group among them or not."""
    problem = named_problem()
    k = 3
    starts: list[Any] = [["time", "city"], [4, 1], np.array([1, 4]), {4, 1}, [4, 1, 5], ("unit", "time", 1), [1, 1, 4]]
    starts.append(Solution(refit(problem, [1, 4]).W[:, 0], 0.0, problem, Status.LOCAL))
    found = [select(problem, k, method, start=start) for start in starts]
    for solution in found:
        assert solution.objective == found[0].objective
        assert solution.objective <= value(problem, [1, 4]) * (1.0 + 1e-12)
        assert np.count_nonzero(solution.support != 5) <= k


@pytest.mark.parametrize("method", ["omp", "sequential"])
def test_growing_methods_keep_their_start(method: str) -> None:
    assert {1, 4} <= set(select(named_problem(), 3, method, start=[1, 4]).support.tolist())


@pytest.mark.parametrize("method", HEURISTICS)
def test_a_start_of_too_many_groups_is_pruned(method: str) -> None:
    problem = named_problem()
    for k in (0, 1, 2):
        solution = select(problem, k, method, start=[1, 3, 4])
        assert np.count_nonzero(solution.support != 5) == k
        assert solution.objective <= min(value(problem, c) for c in combinations((1, 3, 4), k)) * (1.0 + 1e-12)


ERRORS: list[tuple[str, dict[str, Any], type[Exception], str]] = [
    ("k", {"k": -1}, ValueError, "k is -1: pass .* >= 0."),
    ("k", {"k": 1.5}, TypeError, "k must be .*, got 1.5.*"),
    ("k", {"k": True}, TypeError, "k must be .*, got True.*"),
    ("method", {"method": "opm"}, ValueError, "method is 'opm', which is unknown: did you mean 'omp'?"),
    ("method", {"method": "???"}, ValueError, "method is '???', which is unknown: choose one of 'splicing', .*"),
    ("method", {"method": None}, ValueError, "method is None, which is unknown: .*"),
    ("option", {"depth": 3}, TypeError, "option 'depth' is unknown to splicing: it takes exchange, max_steps.*"),
    ("option", {"method": "omp", "share": 0.5}, TypeError, "option 'share' is unknown to omp: it takes by."),
    ("exchange", {"exchange": 0}, ValueError, "exchange is 0: pass the number of groups .*, at least 1."),
    ("by", {"method": "omp", "by": "loss"}, ValueError, "by is 'loss', which is unknown: choose 'score' or 'gain'."),
    ("by", {"method": "ompr", "by": "loss"}, ValueError, "by is 'loss', which is unknown: choose 'score' or 'q'."),
    (
        "by",
        {"method": "sequential", "by": 1},
        ValueError,
        "by is 1, which is unknown: choose 'lasso', 'q' or 'softmax'.",
    ),
    ("share", {"method": "forward-backward", "share": 1.0}, ValueError, "share is 1.0: pass a number between 0 and 1."),
    ("lam_share", {"method": "ompr", "lam_share": 1.0}, ValueError, "lam_share is 1.0: pass a share .*"),
    ("lam_share", {"method": "sequential", "lam_share": 0.0}, ValueError, "lam_share is 0.0: pass a share .*"),
    ("decay", {"method": "sequential", "by": "softmax", "decay": 0.0}, ValueError, "decay is 0.0: pass a number > 0."),
    ("penalty", {"method": "ompr", "by": "q", "penalty": "lgo"}, ValueError, ".*lgo.*"),
    ("start", {"start": [6]}, ValueError, "start contains the group 6: pass numbers from 0 to 5, or names."),
    ("start", {"start": [-1]}, ValueError, "start contains the group -1: pass numbers from 0 to 5, or names."),
    ("start", {"start": [1.5]}, (ValueError, TypeError), "start .*"),
    ("start", {"start": [None]}, (ValueError, TypeError), "start .*"),
    ("start", {"start": 2}, (ValueError, TypeError), "start .*"),
    ("start", {"start": "city"}, (ValueError, TypeError), "start .*"),
    (
        "start",
        {"start": ["cty"]},
        ValueError,
        "start names the group 'cty', .*: did you mean 'city'?",
    ),
    ("start", {"start": ["xyz"]}, ValueError, "start names the group 'xyz', .*: see problem.groups.names."),
]


@pytest.mark.parametrize(
    ("argument", "settings", "error", "sentence"), ERRORS, ids=[f"{row[0]}-{at}" for at, row in enumerate(ERRORS)]
)
def test_errors(argument: str, settings: dict[str, Any], error: Any, sentence: str) -> None:
    with pytest.raises(error) as raised:
        select(named_problem(), **({"k": 2} | settings))
    said = str(raised.value)
    pattern = sentence.replace("?", r"\?").replace("(", r"\(")
    assert re.fullmatch(pattern, said), said
    assert said.startswith((argument, "option", "penalty")) or argument == "penalty", said
    assert said.endswith((".", "?"))
    assert "\n" not in said


def test_nothing_to_choose_from() -> None:
    rng = np.random.default_rng(0)
    problem = Problem.build(rng.normal(size=(20, 4)), rng.normal(size=20), groups=2, weights=[0.0, 0.0])
    for method in HEURISTICS:
        solution = select(problem, 2, method)
        assert solution.objective == pytest.approx(value(problem, []), rel=1e-12)
        assert solution.status.ok
