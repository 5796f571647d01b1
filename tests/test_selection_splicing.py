"""Splicing against all choices: no exchange of one group helps, and the best subset is nearly always found."""

from __future__ import annotations

import importlib
from functools import cache
from itertools import combinations, product

import numpy as np
import pytest
from selection_cases import hard, instance, value

from sparseopt import Problem, Solution, Status, select
from sparseopt.selection import refit, select_path


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
