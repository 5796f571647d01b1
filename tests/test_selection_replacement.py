"""Replacement of chosen groups, against its definition written anew: it keeps the best, and names circles.

The numbers are those of the windows and counterexamples of problem (1), arXiv 2402.17902.
"""

from __future__ import annotations

import numpy as np
import pytest
import subset_oracle as oracle
from selection_cases import each_loss, hard, instance, instance_h, value

from sparseopt import LogSum, Power, Problem, Status, select
from sparseopt.regularizers import L2


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
