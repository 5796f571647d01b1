"""The judge of the benchmark: its bounds hold, and it sees who is stationary.

Oracles: closed forms for orthonormal designs, CVXPY, weak duality between arbitrary points, differences of objectives.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparseopt import Groups, Problem
from sparseopt.experiments import judging
from sparseopt.experiments.judging import Gaps, Moves, evaluate, judge_of, lam_max, stationarity
from sparseopt.experiments.problems import Instance

KINDS = ("squares", "responses", "logistic", "sgl")


def small(kind: str, seed: int = 0) -> Instance:
    """12 samples of 8 columns in groups of 3, 1, 2, 2."""
    rng = np.random.default_rng(seed)
    X = np.asfortranarray(rng.standard_normal((12, 8)))
    Y = rng.standard_normal((12, 3 if kind == "responses" else 1))
    loss = "logistic" if kind == "logistic" else "squares"
    Y = np.asfortranarray((Y > 0.0).astype(float) if kind == "logistic" else Y)
    return Instance(kind, X, Y, np.array([3, 1, 2, 2]), loss, 0.4 if kind == "sgl" else 0.0)


# -- the evaluator -----------------------------------------------------------------------------------------------------


def test_values_computed_by_hand() -> None:
    # ||(3, 4) - w||^2 / 4 + lam sqrt(2) ||w||: w shrinks (3, 4) by 2 sqrt(2) lam = 1, to 4/5 of itself.
    one = Instance("one", np.eye(2), np.array([[3.0], [4.0]]), np.array([2]))
    lam = 1.0 / (2.0 * np.sqrt(2.0))
    primal, dual = evaluate(one, [lam, lam], [[[2.4], [3.2]], [[0.0], [0.0]]])
    np.testing.assert_allclose(primal, [1 / 4 + 4 / 2, 25 / 4])
    # At 0 the residual (3, 4) of norm 5 must shrink to norm 1: D = <r, y> / 2 - ||r||^2 / 4 = 5/2 - 1/4.
    np.testing.assert_allclose(dual, [2.25, 2.25])

    # log(1 + e^z) - z at z = 1 with lam = 1/10; the derivative -1 / (1 + e) must shrink to -1/10.
    one = Instance("one", np.eye(1), np.ones((1, 1)), np.array([1]), "logistic")
    primal, dual = evaluate(one, [0.1], [[[1.0]]])
    np.testing.assert_allclose(primal, [np.log(1.0 + np.exp(-1.0)) + 0.1])
    np.testing.assert_allclose(dual, [-(0.9 * np.log(0.9) + 0.1 * np.log(0.1))])

    # (4 - w)^2 / 2 + lam |w| whatever the share of the l1 norm; w = 2 is optimal for lam = 2.
    one = Instance("one", np.eye(1), np.array([[4.0]]), np.array([1]), "squares", 0.3)
    np.testing.assert_allclose(evaluate(one, [2.0], [[[2.0]]]), [[6.0], [6.0]], rtol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_bounds_meet_at_the_optimum_of_cvxpy(kind: str) -> None:
    cp = pytest.importorskip("cvxpy")
    problem = small(kind)
    lam, (n, K) = 0.3 * lam_max(problem), problem.Y.shape
    W = cp.Variable((8, K))
    if kind == "logistic":
        loss = cp.sum(cp.logistic(problem.X @ W) - cp.multiply(problem.Y, problem.X @ W)) / n
    else:
        loss = cp.sum_squares(problem.X @ W - problem.Y) / (2 * n)
    blocks = [cp.norm(W[a : a + d], "fro") * d**0.5 for a, d in zip(problem.starts, problem.sizes, strict=True)]
    a = problem.l1_ratio
    penalty = (1 - a) * sum(blocks) + a * cp.sum(cp.abs(W))
    optimum = cp.Problem(cp.Minimize(loss + lam * penalty)).solve(solver="CLARABEL")
    primal, dual = evaluate(problem, [lam], W.value[None])
    assert primal[0] == pytest.approx(optimum, rel=1e-7)
    assert dual[0] == pytest.approx(optimum, rel=1e-4)  # the dual point is as good as the square root of the gap


def crossed(judge: Callable[..., Any], kind: str, seed: int) -> bool:
    """Whether a lower bound from one point lies above the objective at another."""
    problem = small(kind, seed)
    rng = np.random.default_rng(seed)
    top = lam_max(problem)
    lams = top * rng.choice([0.01, 0.1, 0.5, 1.0], 6)
    start = rng.standard_normal((6, 8, problem.Y.shape[1])) * rng.choice([0.0, 0.01, 1.0], (6, 8, 1))
    bound = judge(problem, lams, start)[1]
    low = np.full(6, np.inf)
    for scale in (0.0, 0.03, 0.1, 0.3, 1.0):
        low = np.minimum(low, judge(problem, lams, scale * start)[0])
    ridge = np.linalg.lstsq(problem.X, problem.Y, rcond=None)[0]
    for scale in (0.03, 0.1, 0.3, 1.0):
        low = np.minimum(low, judge(problem, lams, np.broadcast_to(scale * ridge, start.shape))[0])
    return bool((bound > low * (1.0 + 1e-12)).any())


@settings(max_examples=50)
@given(kind=st.sampled_from(KINDS), seed=st.integers(0, 10_000))
def test_no_bound_exceeds_any_objective(kind: str, seed: int) -> None:
    assert not crossed(evaluate, kind, seed)


@pytest.mark.parametrize("kind", KINDS)
def test_a_bound_that_ignores_the_constraints_is_rejected(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judging, "_scale", lambda V, lams, best, instance: best)
    assert any(crossed(evaluate, kind, seed) for seed in range(20))


@pytest.mark.parametrize("kind", KINDS)
def test_lam_max_is_where_zero_stops_being_optimal(kind: str) -> None:
    problem = small(kind)
    top = lam_max(problem)
    primal, dual = evaluate(problem, top * np.array([1.0 + 1e-9, 0.99]), np.zeros((2, 8, problem.Y.shape[1])))
    gap = (primal - dual) / dual
    assert gap[0] < 1e-12
    assert gap[1] > 1e-6


def test_an_answer_that_is_not_finite_never_passes() -> None:
    problem = small("squares")
    primal, dual = evaluate(problem, [0.1, 0.1], np.stack([np.full((8, 1), np.nan), np.zeros((8, 1))]))
    assert primal[0] == np.inf
    assert dual[0] == 0.0
    assert np.isfinite(primal[1])
    judge = Gaps(problem, np.array([0.1, 0.1]))
    judged = judge.see(np.stack([np.full((8, 1), np.nan), np.zeros((8, 1))]))
    assert judge.accuracy(judged) == np.inf


def test_a_judge_remembers_the_best_bound() -> None:
    problem = small("squares")
    judge = judge_of(problem, np.array([0.1]))
    assert isinstance(judge, Gaps)
    bad = judge.see(np.ones((1, 8, 1)))
    before = judge.accuracy(bad)
    judge.see(np.zeros((1, 8, 1)))
    assert judge.accuracy(bad) <= before
    assert judge.accuracy(judging.Judged(np.array([2.0 * judge.bound[0]]), np.zeros(1))) == pytest.approx(1.0)


# -- stationarity ------------------------------------------------------------------------------------------------------

CONCAVE = ("l2", "mcp", "scad")


@pytest.mark.parametrize("kind", ["squares", "responses", "logistic"])
@pytest.mark.parametrize("penalty", CONCAVE)
def test_objectives_are_those_of_the_library(kind: str, penalty: str) -> None:
    problem = replace(small(kind), penalty=penalty)
    W = np.random.default_rng(1).standard_normal((3, 8, problem.Y.shape[1])) * np.array([0.1, 1.0, 3.0])[:, None, None]
    W[:, 3] = 0.0
    for lam, w in zip((0.1, 0.5, 0.7), W, strict=True):
        groups = Groups.from_sizes(problem.sizes)
        how: dict[str, Any] = {"loss": problem.loss, "penalty": penalty, "intercept": False, "lam": lam}
        theirs = Problem.build(problem.X, problem.y, groups, **how).value(w[:, 0] if w.shape[1] == 1 else w)
        assert stationarity(problem, [lam], w[None])[0][0] == pytest.approx(theirs, rel=1e-12)


def steepness(judge: Callable[..., Any], kind: str, penalty: str, seed: int) -> tuple[float, float]:
    """The violation at a point, and the steepest fall of F from there in any block, in units of lam omega_g."""
    problem = replace(small(kind, seed), penalty=penalty)
    rng = np.random.default_rng(seed)
    lam, K = 0.3 * lam_max(problem), problem.Y.shape[1]
    W = rng.standard_normal((8, K)) * np.repeat(rng.choice([0.0, 1.0, 5.0], 4) * lam, problem.sizes)[:, None]
    if seed % 3 == 0:
        W[:] = 0.0
    steepest = 0.0
    for first, size, weight in zip(problem.starts, problem.sizes, problem.weights, strict=True):
        block = slice(first, first + size)
        ways = rng.standard_normal((20_000 if K * size > 3 else 4000, size, K))
        ways /= np.sqrt((ways**2).sum(axis=(1, 2), keepdims=True))
        step, moved = 1e-6, np.repeat(W[None], len(ways), axis=0)
        moved[:, block] += step * ways
        there = judge(problem, np.full(len(ways), lam), moved)[0]
        here = judge(problem, [lam], W[None])[0][0]
        steepest = max(steepest, float((here - there).max()) / (step * lam * weight))
    return float(judge(problem, [lam], W[None])[1][0]), steepest


@pytest.mark.parametrize("penalty", CONCAVE)
@pytest.mark.parametrize("seed", range(6))
def test_a_violation_is_the_steepest_fall_in_a_block(penalty: str, seed: int) -> None:
    violation, steepest = steepness(stationarity, "logistic" if seed % 2 else "squares", penalty, seed)
    assert steepest <= violation * (1.0 + 1e-3) + 1e-4
    assert steepest >= 0.9 * violation - 1e-4  # directions are sampled


@pytest.mark.parametrize("penalty", ["mcp", "scad"])
def test_a_judge_that_takes_the_slope_at_zero_everywhere_is_rejected(
    penalty: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = judging._shape
    monkeypatch.setattr(judging, "_shape", lambda q, u, lam: (right(q, u, lam)[0], np.ones_like(u)))
    pairs = [steepness(stationarity, "squares", penalty, seed) for seed in range(6)]
    assert not all(0.9 * violation - 1e-4 <= steepest <= violation * 1.001 + 1e-4 for violation, steepest in pairs)


def test_firm_thresholds_are_stationary() -> None:
    # Orthonormal with n = 6: w_g = max(|y| - 6 lam, 0) / (1 - 6 / 3) is no minimum, so scale X: X'X / n = 1.
    X = np.sqrt(6.0) * np.eye(6)
    lam, z = 1.0, np.array([0.5, 1.5, 2.0, 2.9, 3.5, 9.0])
    problem = Instance("one", X, X @ z[:, None], np.ones(6, np.int64), penalty="mcp")
    firm = np.where(z <= lam, 0.0, np.where(z <= 3.0 * lam, (z - lam) / (1.0 - 1.0 / 3.0), z))
    judge = judge_of(problem, np.array([lam]))
    assert isinstance(judge, Moves)
    assert judge.accuracy(judge.see(firm[None, :, None])) < 1e-12
    assert judge.accuracy(judge.see(z[None, :, None])) > 0.1
    soft = np.maximum(z - lam, 0.0)
    assert judge.accuracy(judge.see(soft[None, :, None])) > 0.1
    assert judge.accuracy(judge.see(np.full((1, 6, 1), np.nan))) == np.inf
