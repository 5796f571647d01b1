"""Duality gap and stationarity: bounds that bracket the optimum of CVXPY, and wrong bounds that do not.

The mutations at the end replace one ingredient of the dual bound and must break the bracket on some problem.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from itertools import product
from typing import Any

import numpy as np
import pytest
from cvxpy_oracle import Optimum, optimum
from small_problems import LOSSES, small_problem

from sparseopt import L0, L2, MCP, Composite, Groups, LogSum, Penalty, Problem, fista, optimality
from sparseopt.optimality import block_moves, duality_gap, gradient_scale, stationarity

TERMS = {"l2": {}, "l1": {"l1_ratio": 0.4}, "ridge": {"ridge": 0.1}, "both": {"l1_ratio": 0.3, "ridge": 0.05}}
FREE = {"bounded": (False, 1.0), "intercept": (True, 1.0), "free group": (False, 0.0), "both free": (True, 0.0)}
TABLE = list(product(LOSSES, TERMS, FREE))


@cache
def problem(loss: str, terms: str, free: str) -> Problem:
    intercept, weight = FREE[free]
    return small_problem(loss, 0.05, intercept, weight, **TERMS[terms])


@cache
def reference(loss: str, terms: str, free: str) -> Optimum:
    return optimum(problem(loss, terms, free))


def points(problem: Problem, found: Optimum) -> list[tuple[np.ndarray, np.ndarray]]:
    """Random ones of all sizes, some near the optimum, and the optimum without the free directions."""
    rng = np.random.default_rng(0)
    out = []
    for scale in (1e-3, 0.1, 1.0):
        for near in (0.0, 1.0):
            w = near * found.w + scale * rng.standard_normal(found.w.shape)
            b = near * found.b + scale * rng.standard_normal(found.b.shape)
            out.append((w, b if problem.intercept else 0.0 * b))
    zero = np.zeros_like(found.w)
    out.append((zero, np.zeros_like(found.b)))
    weights = np.where(problem.groups.weights > 0.0, problem.groups.weights, 1e3)
    groups = Groups(problem.groups.indices, problem.groups.indptr, weights)
    held = Problem(problem.design, problem.loss, Penalty(L2(), groups, problem.lam), False)
    out.append((fista(held, tol=1e-9).w, np.zeros_like(found.b)))
    return out


def check_bracket(problem: Problem, found: Optimum) -> None:
    """dual <= F* <= primal at every point."""
    for w, b in points(problem, found):
        gap = duality_gap(problem, w, b)
        assert gap.primal == pytest.approx(problem.value(w, b), rel=1e-14)
        assert gap.dual <= found.value * (1.0 + 1e-9), f"the bound {gap.dual!r} is above the optimum {found.value!r}"
        assert found.value <= gap.primal * (1.0 + 1e-9), f"F = {gap.primal!r} is below the optimum {found.value!r}"
        assert gap.absolute >= 0.0
        assert 0.0 <= gap.relative


@pytest.mark.parametrize(("loss", "terms", "free"), TABLE)
def test_the_optimum_lies_between_the_bounds(loss: str, terms: str, free: str) -> None:
    check_bracket(problem(loss, terms, free), reference(loss, terms, free))


@pytest.mark.parametrize(("loss", "terms", "free"), TABLE)
def test_both_vanish_at_the_optimum(loss: str, terms: str, free: str) -> None:
    this, found = problem(loss, terms, free), reference(loss, terms, free)
    # F is within 1e-9 of the optimum there (mostly 1e-11), its gradients within the root of that.
    assert duality_gap(this, found.w, found.b).relative <= 1e-5
    assert stationarity(this, found.w, found.b) <= 1e-9**0.5
    solution = fista(this, tol=1e-12)
    assert duality_gap(this, solution.w, solution.intercept).relative <= 1e-12
    assert stationarity(this, solution.w, solution.intercept) <= 1e-5


def test_an_optimum_known_in_closed_form() -> None:
    """Orthonormal columns: every block is shrunk by itself, and the gap is zero up to rounding."""
    X = np.sqrt(6.0) * np.eye(6)
    y = np.array([3.0, 1.0, 0.2, -0.1, 2.0, -2.0])
    this = Problem.build(X, y, groups=2, lam=0.1, l1_ratio=0.3, ridge=0.5, intercept=False)
    v = np.sign(y / X[0, 0]) * np.maximum(np.abs(y / X[0, 0]) - 0.03, 0.0)
    u = this.groups.norms(v)
    w = v * np.repeat(np.maximum(u - 0.07 * np.sqrt(2.0), 0.0) / u, 2) / 1.5
    assert duality_gap(this, w).relative <= 1e-15
    assert stationarity(this, w) <= 1e-15


def test_the_gap_is_that_of_the_point_given() -> None:
    this = problem("squares", "l2", "intercept")
    away = duality_gap(this, np.ones(10), 5.0)
    assert away.relative == pytest.approx(away.absolute / away.primal)
    assert away.relative > 0.5


def test_no_dual_is_known_for_other_q() -> None:
    this = Problem.build(np.eye(2), [1.0, 2.0], penalty=LogSum(), lam=0.1)
    with pytest.raises(ValueError, match=r"penalty has q = LogSum\(eps=1.0\), for which no dual is known"):
        duality_gap(this, [0.0, 0.0])


def test_everything_zero() -> None:
    this = Problem.build(np.zeros((3, 2)), [0.0, 0.0, 0.0], lam=0.0, intercept=False)
    assert duality_gap(this, [0.0, 0.0]).relative == 0.0
    assert stationarity(this, [0.0, 0.0]) == 0.0


def test_no_penalty_at_all() -> None:
    """lam = 0: least squares, whose dual point is orthogonal to X."""
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((9, 3)), rng.standard_normal(9)
    this = Problem.build(X, y, lam=0.0, intercept=False)
    best = np.linalg.lstsq(X, y, rcond=None)[0]
    assert duality_gap(this, best).relative <= 1e-13
    assert duality_gap(this, best + 0.1).dual <= this.value(best) * (1.0 + 1e-12)
    assert stationarity(this, best) <= 1e-13


# -- stationarity ------------------------------------------------------------------------------------------------------


def test_stationarity_is_the_largest_move_of_a_block() -> None:
    this = problem("logistic", "both", "both free").at(0.02)
    this = Problem(this.design, this.loss, Penalty(MCP(2.0), this.groups, 0.02, 0.3, 0.05), True)
    X = this.design.matvec(np.eye(10))
    w, b = np.linspace(-1.0, 1.0, 10), np.array([0.2])
    z = this.predictor(w, b)
    A, c = this.loss.derivative(z), this.loss.curvature(z)
    moves = [abs(A.sum())]
    for g, omega in enumerate(this.groups.weights):
        rows = this.groups[g]
        L = np.linalg.eigvalsh(X[:, rows].T @ (c[:, None] * X[:, rows]))[-1]
        gradient = X[:, rows].T @ A[:, 0]
        single = Penalty(MCP(2.0), Groups.equal(len(rows), len(rows), weights=[omega]), 0.02, 0.3, 0.05)
        moves.append(L * np.linalg.norm(w[rows] - single.prox(w[rows] - gradient / L, 1.0 / L)))
    assert stationarity(this, w, b) * gradient_scale(this) == pytest.approx(max(moves), rel=1e-12)
    target, per_block, pull = block_moves(this, w, b)
    assert target.shape == (10, 1)
    np.testing.assert_allclose([pull, *per_block], moves, rtol=1e-11)


def test_stationarity_sees_jumps_from_and_to_zero() -> None:
    this = Problem.build(np.sqrt(2.0) * np.eye(2), [np.sqrt(2.0), 0.0], penalty=L0(), lam=0.4, intercept=False)
    assert stationarity(this, [1.0, 0.0]) <= 1e-15, "1 costs 0.4 and saves 0.5"
    assert stationarity(this, [0.0, 0.0]) == 1.0
    dear = this.at(0.6)
    assert stationarity(dear, [1.0, 0.0]) == 1.0
    assert stationarity(dear, [0.0, 0.0]) == 0.0


def test_stationarity_of_the_intercept() -> None:
    this = Problem.build(np.eye(2) * 3.0, [5.0, 1.0], lam=100.0)
    assert stationarity(this, [0.0, 0.0], 3.0) <= 1e-15
    assert stationarity(this, [0.0, 0.0], 2.0) > 0.1


def test_stationarity_of_a_composite_needs_all_blocks() -> None:
    """One block, the other fixed: the slope of LogSum's composite at a block is the product of the others' (1 + u)."""
    X = np.sqrt(2.0) * np.eye(2)
    y = np.sqrt(2.0) * np.array([3.0, 2.0])
    this = Problem.build(X, y, penalty=LogSum(1.0), composite=True, lam=0.25, intercept=False)
    assert isinstance(this.penalty, Composite)
    w = np.array([3.0, 2.0])
    for _ in range(200):
        w = np.array([3.0 - 0.25 * (1.0 + w[1]), 2.0 - 0.25 * (1.0 + w[0])])
    assert stationarity(this, w) <= 1e-14
    assert stationarity(Problem(this.design, this.loss, Penalty(LogSum(), this.groups, 0.25)), w) > 0.1


# -- wrong bounds ------------------------------------------------------------------------------------------------------


def other(problem: Problem, **changes: float) -> Problem:
    """The problem under another penalty, whose dual is then mistaken for its own."""
    return replace(problem, penalty=replace(problem.penalty, **changes))


def weighted(problem: Problem, weights: Any) -> Problem:
    groups = Groups(problem.groups.indices, problem.groups.indptr, weights)
    return replace(problem, penalty=replace(problem.penalty, groups=groups))


def without_offset(problem: Problem) -> Problem:
    return replace(problem, loss=replace(problem.loss, offset=None))


def group_term_of_all_lam(problem: Problem) -> Problem:
    """lam omega_g instead of lam (1 - l1_ratio) omega_g."""
    a = problem.penalty.l1_ratio
    return other(problem, lam=problem.lam * (1.0 + a), l1_ratio=a / (1.0 + a))


def soft_threshold_twice(problem: Problem) -> Problem:
    a = problem.penalty.l1_ratio
    return other(problem, lam=problem.lam * (1.0 + a), l1_ratio=2.0 * a / (1.0 + a))


MUTATIONS: dict[str, tuple[str, Any, tuple[str, str, str]]] = {
    "no scaling": ("dual_bound", lambda p: other(p, lam=1e3), ("squares", "l2", "bounded")),
    "scaled too little": ("dual_bound", lambda p: other(p, lam=1.1 * p.lam), ("multinomial", "l2", "bounded")),
    "l1_ratio forgotten": ("dual_bound", group_term_of_all_lam, ("squares", "l1", "bounded")),
    "soft threshold twice": ("dual_bound", soft_threshold_twice, ("logistic", "l1", "bounded")),
    "weights forgotten": ("dual_bound", lambda p: weighted(p, np.full(4, 1.8)), ("huber", "l2", "bounded")),
    "ridge for nothing": ("dual_bound", lambda p: other(p, ridge=1e9), ("squares", "ridge", "bounded")),
    "ridge counted half": (
        "dual_bound",
        lambda p: other(p, ridge=2.0 * p.penalty.ridge),
        ("poisson", "both", "bounded"),
    ),
    "offset forgotten": ("dual_bound", without_offset, ("logistic", "l2", "intercept")),
    "intercept held": ("free_columns", lambda p: replace(p, intercept=False), ("squares", "l2", "intercept")),
    "free group held": ("free_columns", lambda p: weighted(p, np.ones(4)), ("huber", "both", "free group")),
}


@pytest.mark.parametrize(("name", "wrong", "where"), MUTATIONS.values(), ids=MUTATIONS)
def test_a_wrong_dual_is_rejected(
    name: str, wrong: Any, where: tuple[str, str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    this, found = problem(*where), reference(*where)
    check_bracket(this, found)
    right = getattr(optimality, name)
    monkeypatch.setattr(optimality, name, lambda problem, *rest: right(wrong(problem), *rest))
    with pytest.raises(AssertionError, match="is above the optimum"):
        check_bracket(this, found)
