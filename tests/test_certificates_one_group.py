"""Theorem 1.1 and the window of one group: what they name is what solvers and grids find."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from certified_cases import ADMISSIBLE, H, composite_minimum, instances, plain, problem, windows

from sparseopt import Composite, Problem, fista, solve
from sparseopt.certificates import Verdict, one_group_kkt, one_group_window, optimality_gap, theorem_1_1
from sparseopt.certificates.secants import secants


def test_theorem_1_1_names_the_minimiser_of_every_problem_1() -> None:
    verdicts = []
    for this in instances():
        lasso = solve(this, tol=1e-12)
        claim = theorem_1_1(this, lasso.w)
        verdicts.append(claim.verdict)
        if claim.verdict is not Verdict.PROVED:
            assert claim.numbers["n_left"] == 2
            continue
        assert [*lasso.support_names, "none"][0] in (claim.numbers["active"], "none")
        for q, value, inverse in ADMISSIBLE.values():
            best, place = composite_minimum(this, value, inverse)
            one = replace(this, penalty=Composite(q, this.groups, this.lam))
            assert theorem_1_1(one, lasso.w).verdict is Verdict.PROVED
            gap = optimality_gap(one, lasso.w)
            assert gap.verdict is Verdict.PROVED
            assert gap.numbers["relative_gap"] <= 1e-9
            assert gap.numbers["dual"] <= best
            assert np.abs(place - lasso.w).max() <= 0.3, "the grid's best point lies near the only minimiser"
            assert np.count_nonzero(np.abs(place) > 0.021) <= 1
    assert verdicts.count(Verdict.PROVED) > 20
    assert verdicts.count(Verdict.FAILED) > 3


def test_two_active_groups_or_a_tie_are_not_proved() -> None:
    two = plain(np.eye(2), [1.0, 0.8], lam=0.3)
    assert theorem_1_1(two, [0.7, 0.5]).verdict is Verdict.FAILED
    tie = plain([[1.0, 1.0]], [1.0], lam=0.5)
    assert theorem_1_1(tie, [0.5, 0.0]).verdict is Verdict.FAILED
    assert one_group_window(tie).verdict is Verdict.FAILED
    assert "tie at tau = 1" in one_group_window(tie).statement
    assert one_group_kkt(tie, [0.5, 0.0]).verdict is Verdict.FAILED


def test_huber_is_flat_and_nothing_unique_is_claimed() -> None:
    """Huber(w - 5), lam = 1: every w in [0, 4] is a minimiser of the group lasso, and one group at most is active."""
    this = Problem.build([[1.0]], [5.0], loss="huber", delta=1.0, lam=1.0, intercept=False)
    claim = theorem_1_1(this, [2.0])
    assert claim.verdict is Verdict.PROVED
    assert claim.numbers["unique"] == "no"
    assert "unique" not in claim.statement
    assert any("unique" in sentence for sentence in claim.not_proved)
    assert one_group_window(this).verdict is Verdict.FAILED, "no strong convexity near 0"


def test_unpenalised_columns_and_outputs() -> None:
    for loss in ("squares", "logistic", "multinomial"):
        this = problem(loss, "l2", "both")
        top = this.at(1.0)
        good = fista(top, tol=1e-12)
        claim = theorem_1_1(top, good.w, good.intercept)
        assert claim.verdict is Verdict.PROVED
        assert claim.numbers["active"] == "none"
        assert any("unpenalised" in sentence for sentence in claim.not_proved)
        assert any("intercepts" in sentence for sentence in claim.not_proved) == (loss == "multinomial")


def check_window(this: Problem, numbers: Any) -> None:
    """At lam inside, to both ends, exactly the named group is active."""
    low, tau = numbers["lam_low"], numbers["tau"]
    for share in (0.0, 0.01, 0.5, 0.9, 0.99):
        found = solve(this.at(low + share * (tau - low)), tol=1e-12)
        active = [name for name, u in zip(this.groups.names, found.group_norms, strict=True) if u > 0.0]
        active = [name for name in active if this.groups.weights[this.groups.names.index(name)] > 0.0]
        assert active == [numbers["group"]], f"{active} at share {share}"


@pytest.mark.parametrize("loss", ["squares", "huber", "logistic", "poisson"])
def test_one_group_is_active_in_the_window(loss: str) -> None:
    proved = 0
    for this in windows(loss):
        claim = one_group_window(this)
        if claim.verdict is not Verdict.PROVED:
            assert loss == "huber"
            continue
        proved += 1
        numbers = claim.numbers
        assert 0.0 < numbers["lam_low"] < numbers["tau"]
        check_window(this, numbers)
        above = solve(this.at(1.0000001 * numbers["tau"]), tol=1e-12)
        assert not above.group_norms[this.penalty.penalised].any()
        wrong = {**numbers, "group": "other"}
        with pytest.raises(AssertionError):
            check_window(this, wrong)
        with pytest.raises(AssertionError):
            check_window(this, {**numbers, "lam_low": 1e-3 * numbers["lam_low"]})
        with pytest.raises(AssertionError):
            check_window(this, {**numbers, "lam_low": numbers["tau"], "tau": 1.02 * numbers["tau"]})
    assert proved >= (4 if loss == "huber" else 8)


def best_fit_gradient(this: Problem, shift: Any) -> list[np.ndarray]:
    """g_g / omega_g of every penalised group once the predictor is shifted and the intercept is best again."""
    o = shift if this.loss.offset is None else shift + this.loss.offset
    loss = replace(this.loss, offset=o)
    b = loss.null_intercept() if this.intercept else 0.0
    V = this.design.rmatvec(loss.derivative(np.zeros_like(this.loss.y) + b))
    seen = np.flatnonzero(this.penalty.penalised)
    return [V[this.groups[int(g)]] / this.groups.weights[g] for g in seen]


@pytest.mark.parametrize("loss", ["huber", "logistic", "poisson"])
def test_moduli_bound_the_gradient_over_the_ball(loss: str) -> None:
    """<g(w) - g(0), w> >= mu ||w||^2 and ||g_j(w) - g_j(0)|| <= M ||w||, w in group i scaled by its weight."""
    rng = np.random.default_rng(0)
    closest = 0.0
    for this in windows(loss)[:5]:
        at = secants(this)
        start = best_fit_gradient(this, np.zeros_like(this.loss.y))
        for i, r in ((0, 0.05), (1, 0.3), (2, 1.0)):
            mu, M = at.moduli(i, r)
            for _ in range(20):
                w = rng.standard_normal((at.blocks[i].shape[1], this.n_outputs))
                w *= r * rng.uniform(0.2, 1.0) / np.linalg.norm(w)
                size = float(np.linalg.norm(w))
                moved = best_fit_gradient(this, at.blocks[i] @ w)
                change = [a - b for a, b in zip(moved, start, strict=True)]
                rounding = 1e-12 / size
                assert np.vdot(change[i], w) >= mu * size**2 - rounding
                for j, step in enumerate(change):
                    if j != i:
                        assert np.linalg.norm(step) <= M * size + rounding
                        closest = max(closest, float(np.linalg.norm(step)) / (M * size))
    assert closest > 0.5, "M must not be idly large"


def test_instance_h() -> None:
    """One group just below tau, and another one alone further down: X'X = [[1, .45], [.45, .25]], X'y = (1, .95)."""
    numbers = one_group_window(H).numbers
    assert numbers["group"] == "0"
    assert numbers["lam_low"] == pytest.approx(1.0 - 0.05 / 1.45, rel=1e-8)
    check_window(H, numbers)
    check_window(H, {**numbers, "lam_low": 10.0 / 11.0 + 1e-4})
    with pytest.raises(AssertionError):
        check_window(H, {**numbers, "lam_low": 10.0 / 11.0 - 1e-2})
    far = H.at(0.5)
    right, trap = [0.0, 1.8], [0.5, 0.0]
    assert theorem_1_1(far, right).numbers["active"] == "1"
    assert one_group_kkt(far, right).verdict is Verdict.HOLDS
    assert one_group_kkt(far, trap).verdict is Verdict.REFUTED, "the gradient of group 1 is 0.725 > 0.5"
    assert one_group_kkt(far, [0.4, 0.0]).verdict is Verdict.FAILED, "group 0 is not even stationary"
    assert one_group_kkt(far, [0.1, 0.1]).verdict is Verdict.FAILED


def test_the_window_says_where_it_does_not_apply() -> None:
    for this in (problem("multinomial"), problem("squares", "both"), problem("logistic", "l2", "both")):
        assert one_group_window(this).verdict is Verdict.NOT_APPLICABLE
    collinear = plain([[1.0, 1.0, 0.1]], [1.0], groups=[0, 0, 1])
    assert one_group_window(collinear).verdict is Verdict.FAILED
    assert "strongly convex" in one_group_window(collinear).statement


def test_one_group_kkt_at_solutions() -> None:
    for loss in ("squares", "logistic", "poisson", "multinomial"):
        this = problem(loss, "l2", "both")
        tau = max(solve(this.at(lam), tol=1e-9).group_norms[:3].any() * lam for lam in np.geomspace(0.05, 2.0, 60))
        found = solve(this.at(0.995 * tau), tol=1e-12)
        claim = one_group_kkt(this.at(0.995 * tau), found.w, found.intercept)
        assert claim.verdict is Verdict.HOLDS
        assert claim.numbers["group"] in found.support_names
        moved = one_group_kkt(this.at(0.995 * tau), found.w, found.intercept + 0.01 * np.eye(3)[0, : this.n_outputs])
        assert moved.verdict is Verdict.FAILED
