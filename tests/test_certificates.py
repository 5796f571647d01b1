"""Certificates: claims that independent computations confirm, and wrong claims that they reject.

Oracles: CVXPY for convex optima, enumeration of all choices of groups, dense grids, exact rational arithmetic, and the
solvers where only the zeros of their answers count. Each kind is also broken on purpose, in the claim or in the code.
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from cvxpy_oracle import optimum
from scipy.optimize import minimize
from scipy.sparse import csc_array
from small_problems import LOSSES, small_problem

from sparseopt import (
    L0,
    MCP,
    SCAD,
    Arctan,
    AtMost,
    Capped,
    Composite,
    Groups,
    LambertW,
    LogSum,
    Power,
    Problem,
    TransformedL1,
    fista,
    regularizer,
    solve,
)
from sparseopt.certificates import (
    Report,
    Verdict,
    approximation,
    best_subset,
    bounds,
    duality_gap,
    duals,
    exact_recovery,
    one_group_kkt,
    one_group_window,
    optimal,
    optimality_gap,
    separable_bound,
    stationarity,
    subset,
    theorem_1_1,
    zero_groups,
)
from sparseopt.certificates.blockgram import BlockGram
from sparseopt.certificates.radii import level_radii
from sparseopt.certificates.secants import secants
from sparseopt.certificates.verify import verify
from sparseopt.selection.exact import exact
from sparseopt.solution import BoundProof

TERMS = {"l2": {}, "both": {"l1_ratio": 0.3, "ridge": 0.05}}
FREE = {"none": (False, 1.0), "intercept": (True, 1.0), "both": (True, 0.0)}


@cache
def problem(loss: str, terms: str = "l2", free: str = "intercept", lam: float = 0.05) -> Problem:
    intercept, weight = FREE[free]
    return small_problem(loss, lam, intercept, weight, drop=3, **TERMS[terms])


def plain(X: Any, y: Any, groups: Any = None, **keywords: Any) -> Problem:
    """Least squares ||y - Xw||^2 / 2 without intercept."""
    X = np.asarray(X, float)
    return Problem.build(X, y, groups, intercept=False, sample_weight=np.ones(len(X)), **keywords)


H = plain([[1.0, 0.45], [0.0, 0.05**0.5 * 0.9746794344808963]], [1.0, 2.2941573387056176], lam=0.5)


# -- bounds of convex problems -----------------------------------------------------------------------------------------


def check_bracket(this: Problem, best: float, claim: Any) -> None:
    """dual <= F* <= primal; F* by CVXPY is right to 1e-8, mostly far better."""
    numbers = claim.numbers
    assert claim.verdict is Verdict.PROVED
    assert numbers["dual"] <= best * (1.0 + 1e-8), f"the bound {numbers['dual']!r} is above the optimum {best!r}"
    assert best <= numbers["primal"] * (1.0 + 1e-8), f"F = {numbers['primal']!r} is below the optimum {best!r}"


def evidence(this: Problem) -> list[Any]:
    """Dual points good, noisy, infeasible and absurd, with coefficients to go with them."""
    rng = np.random.default_rng(0)
    w = solve(this, tol=1e-6).w
    A = duality_gap(this, w, solve(this, tol=1e-6).intercept).evidence["A"]
    out: list[Any] = [(w, None), (0.0 * w, None), (w, A), (w, A + 0.1 * rng.standard_normal(A.shape) * abs(A).max())]
    held = replace(this, intercept=False)
    out.append((w, held.loss.derivative(held.predictor(fista(held, tol=1e-8).w))))
    return [*out, (w, 30.0 * A), (w, rng.standard_normal(A.shape)), (w, 0.0 * A)]


@pytest.mark.parametrize("free", FREE)
@pytest.mark.parametrize("terms", TERMS)
@pytest.mark.parametrize("loss", LOSSES)
def test_the_optimum_lies_between_the_claimed_bounds(loss: str, terms: str, free: str) -> None:
    this = problem(loss, terms, free)
    best = optimum(this).value
    for w, A in evidence(this):
        claim = duality_gap(this, w, A=A)
        check_bracket(this, best, claim)
    good = fista(this, tol=1e-12)
    claim = duality_gap(this, good.w, good.intercept)
    check_bracket(this, best, claim)
    assert claim.numbers["relative_gap"] <= 2e-11, "the claim must lose no more than its margins"
    again = duality_gap(this, good.w, good.intercept, A=claim.evidence["A"])
    assert again.numbers["dual"] == pytest.approx(claim.numbers["dual"], rel=1e-11)


def test_the_bound_is_true_in_exact_arithmetic() -> None:
    """Columns far from centred and a strength far below the gradient at zero, where rounding is large."""
    rng = np.random.default_rng(3)
    for scale, lam in ((1.0, 0.3), (1e6, 1e-2), (1e-5, 1e-7)):
        X = scale + rng.standard_normal((12, 4))
        this = plain(X, 1e3 + X @ [1.0, -1.0, 0.0, 0.0] + rng.standard_normal(12), groups=2, lam=lam)
        w = solve(this, tol=1e-8).w if scale == 1.0 else np.linalg.lstsq(X, this.loss.y[:, 0], rcond=None)[0]
        claim = duality_gap(this, w)
        v = [Fraction(x) for x in claim.evidence["A"][:, 0]]
        exact = [[Fraction(x) for x in row] for row in X.tolist()]
        y = [Fraction(x) for x in this.loss.y[:, 0]]
        V = [sum(row[j] * a for row, a in zip(exact, v, strict=True)) for j in range(4)]
        for g, omega in enumerate(this.groups.weights):
            assert V[2 * g] ** 2 + V[2 * g + 1] ** 2 <= (Fraction(lam) * Fraction(omega)) ** 2
        assert Fraction(claim.numbers["dual"]) <= -sum(a * (b + a / 2) for a, b in zip(v, y, strict=True))
        residual = [
            sum(x * Fraction(c) for x, c in zip(row, w, strict=True)) - b for row, b in zip(exact, y, strict=True)
        ]
        penalty = this.penalty.value(w)
        primal = sum(r * r for r in residual) / 2 + Fraction(penalty * (1.0 - 1e-15))
        assert Fraction(claim.numbers["primal"]) >= primal


def test_a_dual_point_at_the_edge_of_the_domain() -> None:
    """Separable classes: probabilities of 0 and 1 up to rounding, and still 1'A = 0."""
    x = np.array([-900.0, -800.0, -2.0, 3.0, 700.0, 900.0])[:, None]
    this = Problem.build(x, [0.0, 0.0, 1.0, 0.0, 1.0, 1.0], loss="logistic", lam=1e-3, weights="ones")
    good = solve(this, tol=1e-10)
    claim = duality_gap(this, good.w, good.intercept)
    assert claim.numbers["relative_gap"] <= 1e-9
    A = claim.evidence["A"][:, 0] * 6.0
    assert abs(A.sum()) <= 1e-15
    assert (np.sign(A) == [1.0, 1.0, -1.0, 1.0, -1.0, -1.0]).all()


RIDGED = ("logistic", "both", "intercept")
MUTATIONS: dict[str, tuple[Any, str, Any, tuple[str, str, str]]] = {
    "equalities forgotten": (duals, "_balanced", lambda p, A, U: A, ("squares", "l2", "intercept")),
    "not scaled": (duals, "_largest_scale", lambda *a: 1.0, ("squares", "l2", "none")),
    "ridge for nothing": (optimal, "lower_bound", lambda p, point: duals.rounded_down(p, point.A, 0.0), RIDGED),
}


@pytest.mark.parametrize(("module", "name", "wrong", "where"), MUTATIONS.values(), ids=MUTATIONS)
def test_a_wrong_dual_is_rejected(
    module: Any, name: str, wrong: Any, where: tuple[str, str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    this = problem(*where)
    best, points = optimum(this).value, evidence(this)
    monkeypatch.setattr(module, name, wrong)
    wrong_bounds = [duality_gap(this, w, A=A).numbers["dual"] for w, A in points]
    assert max(wrong_bounds) > best * (1.0 + 1e-6)


def test_sparse_and_single_precision_designs() -> None:
    """The same claims as for the dense design of the same numbers."""
    rng = np.random.default_rng(0)
    X = (rng.standard_normal((20, 6)) * (rng.random((20, 6)) < 0.4)).astype(np.float32)
    y, groups = X @ [1.0, 1.0, 0.0, 0.0, 0.0, 0.0] + 0.1 * rng.standard_normal(20), Groups.from_sizes([2, 3, 1])
    claims, w = [], np.round(solve(Problem.build(X.astype(float), y, groups, lam=0.15), tol=1e-10).w, 10)
    for form in (X.astype(float), X, csc_array(X.astype(float))):
        this = Problem.build(form, y, groups, lam=0.15)
        claims.append([make(this, w) for make in (duality_gap, zero_groups, one_group_window, theorem_1_1)])
    for first, *others in zip(*claims, strict=True):
        for other in others:
            assert other.verdict is first.verdict
            for name, value in first.numbers.items():
                close = value if isinstance(value, str) else pytest.approx(value, rel=1e-7, abs=1e-11)
                assert other.numbers[name] == close


def test_bounds_that_are_not_finite_prove_nothing() -> None:
    this = problem("poisson")
    assert duality_gap(this, np.full(10, 1e4)).verdict is Verdict.FAILED
    assert duality_gap(replace(this, penalty=AtMost(this.groups, 2)), np.zeros(10)).verdict is Verdict.NOT_APPLICABLE
    with pytest.raises(ValueError, match=r"A has the shape \(3,\): pass dual points of shape \(25, 1\)"):
        duality_gap(this, np.zeros(10), A=np.zeros(3))


# -- groups that vanish ------------------------------------------------------------------------------------------------


def vanishing(this: Problem) -> set[int]:
    """Groups that are zero at the optimum: solved to rounding, where the zeros of the solver are exact."""
    return set(np.flatnonzero(this.groups.norms(fista(this, tol=1e-13).w) == 0.0).tolist())


@pytest.mark.parametrize("terms", TERMS)
@pytest.mark.parametrize("loss", [name for name in LOSSES if name != "poisson"])
def test_groups_proved_zero_are_zero(loss: str, terms: str) -> None:
    best = max(len(problem(loss, terms, "both").groups) - 1, 0)
    seen = 0
    for lam in (0.05, 0.15, 0.3, 0.6):
        this = problem(loss, terms, "both", lam)
        truth = vanishing(this)
        for tol in (1e-1, 1e-3, 1e-10):
            found = solve(this, tol=tol)
            claim = zero_groups(this, found.w, found.intercept)
            zero = claim.evidence["zero"].tolist()
            assert set(zero) <= truth
            assert claim.numbers["n_zero"] + claim.numbers["n_left"] == best
            again = zero_groups(this, found.w, found.intercept, A=claim.evidence["A"], zero=zero[:1])
            assert again.verdict is Verdict.PROVED
        seen += len(zero)
        nonzero = [g for g in range(best) if g not in truth]
        if nonzero:
            wrong = zero_groups(this, found.w, found.intercept, zero=[*zero, nonzero[0]])
            assert wrong.verdict is Verdict.FAILED
            assert this.groups.names[nonzero[0]] in wrong.statement
    assert seen > 3, "the cases must contain groups that can be proved zero"


def test_a_ball_too_small_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tenth of the radius: some point far from optimal then proves a nonzero group to be zero."""
    this = plain([[1.0, 0.9], [0.0, 0.4358898943540674]], [1.0, 0.6], lam=0.3)
    truth = vanishing(this)
    right = optimal.gap_safe

    def claims() -> bool:
        points = [np.array([a, b]) for a in np.linspace(-0.5, 1.2, 18) for b in np.linspace(-0.5, 1.2, 18)]
        return all(set(zero_groups(this, w).evidence["zero"].tolist()) <= truth for w in points)

    assert claims()
    monkeypatch.setattr(optimal, "gap_safe", lambda p, point, gap: right(p, point, 0.01 * gap))
    assert not claims()


def test_unbounded_curvature_has_no_ball() -> None:
    assert zero_groups(problem("poisson"), np.zeros(10)).verdict is Verdict.NOT_APPLICABLE
    assert theorem_1_1(problem("poisson"), np.zeros(10)).verdict is Verdict.NOT_APPLICABLE


# -- Theorem 1.1 -------------------------------------------------------------------------------------------------------

ADMISSIBLE = {  # q and its inverse, written again
    "sqrt": (Power(0.5), np.sqrt, np.square),
    "log": (LogSum(0.5), lambda u: np.log(1.0 + 2.0 * u), lambda v: 0.5 * np.expm1(v)),
    "tl1": (
        TransformedL1(2.0),
        lambda u: 3.0 * u / (2.0 + u),
        lambda v: np.where(v < 3.0, 2.0 * v / np.where(v < 3.0, 3.0 - v, 1.0), np.inf),
    ),
    "arctan": (Arctan(1.0), np.arctan, lambda v: np.where(v < np.pi / 2, np.tan(np.minimum(v, 1.57)), np.inf)),
}
AXIS = np.linspace(-1.0, 3.0, 201)
GRID = np.stack(np.meshgrid(AXIS, AXIS), axis=-1).reshape(-1, 2)


def composite_minimum(this: Problem, q: Any, inverse: Any) -> tuple[float, np.ndarray]:
    """Problem (1) with two features of weight 1 on a grid of mesh 0.02: value and place of the best point."""
    z = GRID @ this.design.matvec(np.eye(2)).T
    fit = 0.5 * ((z - this.loss.y[:, 0]) ** 2) @ this.loss.s
    total = fit + this.lam * inverse(q(np.abs(GRID)).sum(axis=1))
    k = int(np.argmin(total))
    return float(total[k]), GRID[k]


def instances(seed: int = 0, count: int = 12) -> list[Problem]:
    rng = np.random.default_rng(seed)
    out = []
    for _ in range(count):
        X = rng.standard_normal((3, 2))
        this = plain(X, X @ rng.uniform(0.0, 2.0, 2) + 0.3 * rng.standard_normal(3))
        tau = np.abs(X.T @ this.loss.y).max()
        out += [this.at(share * tau) for share in (0.97, 0.6, 0.3, 1.05)]
    return out


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


class Square(NamedTuple):
    """q = u^2, strictly increasing and superadditive."""

    def value(self, u):
        return u * u

    def slope(self, u):
        return 2.0 * u

    def prox(self, u, t):
        return u / (1.0 + 2.0 * t)

    def slope_at_zero(self):
        return 0.0

    def increasing(self):
        return True

    def concave(self):
        return False

    def subadditive(self):
        return False


Square = regularizer(Square)  # type: ignore[misc]


@pytest.mark.parametrize("q", [LambertW(), Square(), Capped(1.0), MCP(3.0), SCAD(), L0()], ids=str)
def test_the_theorem_is_not_applied_to_other_q(q: Any) -> None:
    """c = (2, 1), lam = 1.2: the group lasso has one active group, and its bound 2.18 would be wrong for these q."""
    this = plain(np.eye(2), [2.0, 1.0], penalty=q, composite=True, lam=1.2)
    for make in (theorem_1_1, optimality_gap, one_group_window, one_group_kkt):
        claim = make(this, np.array([0.8, 0.0]))
        assert claim.verdict is Verdict.NOT_APPLICABLE
        assert "needs q strictly increasing and subadditive" in claim.statement
        assert not claim.numbers


def test_the_counterexamples_are_ones() -> None:
    """The bound of the group lasso lies above values that problem (1) takes for Lambert-W and for u^2."""
    lasso = plain(np.eye(2), [2.0, 1.0], lam=1.2)
    bound = duality_gap(lasso, [0.8, 0.0]).numbers["dual"]
    assert bound == pytest.approx(2.18, rel=1e-10)
    for q, w in ((LambertW(), [0.820273, 0.289091]), (Square(), [0.926687, 0.463344])):
        assert plain(np.eye(2), [2.0, 1.0], penalty=q, composite=True, lam=1.2).value(w) < bound - 0.1
    assert theorem_1_1(lasso, [0.8, 0.0]).verdict is Verdict.PROVED
    separable = plain(np.eye(2), [2.0, 1.0], penalty=Power(0.5), lam=1.2)
    assert theorem_1_1(separable, [0.8, 0.0]).verdict is Verdict.NOT_APPLICABLE


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


# -- the window --------------------------------------------------------------------------------------------------------


def check_window(this: Problem, numbers: Any) -> None:
    """At lam inside, to both ends, exactly the named group is active."""
    low, tau = numbers["lam_low"], numbers["tau"]
    for share in (0.0, 0.01, 0.5, 0.9, 0.99):
        found = solve(this.at(low + share * (tau - low)), tol=1e-12)
        active = [name for name, u in zip(this.groups.names, found.group_norms, strict=True) if u > 0.0]
        active = [name for name in active if this.groups.weights[this.groups.names.index(name)] > 0.0]
        assert active == [numbers["group"]], f"{active} at share {share}"


def windows(loss: str) -> list[Problem]:
    """Correlated designs, with and without intercept and ridge, K = 2 outputs where allowed."""
    rng = np.random.default_rng(11)
    out = []
    for trial in range(8):
        n = 30
        X = rng.standard_normal((n, 6)) + 0.5 * rng.standard_normal((n, 1)) + 0.3
        signal = X[:, :2] @ [1.0, 0.5] - 0.4 * X[:, 4]
        y = {
            "squares": signal + rng.standard_normal(n),
            "huber": signal + 0.3 * rng.standard_t(3, n),
            "logistic": (signal + rng.standard_normal(n) > 0.0).astype(float),
            "poisson": rng.poisson(np.exp(0.3 * signal)).astype(float),
        }[loss]
        if trial % 4 == 3 and loss != "huber":
            other = rng.permutation(y)
            y = np.stack([y, other], axis=1)
        extra: dict[str, Any] = {"ridge": 0.1} if trial % 3 == 1 else {}
        if loss == "huber":
            extra["delta"] = 3.0
        weights = [1.0, 2.0, 0.0 if loss == "squares" and trial % 2 else 1.3]
        this = Problem.build(
            X,
            y,
            Groups.from_sizes([2, 3, 1], weights=weights),
            loss=loss,
            intercept=trial % 2 == 0,
            sample_weight=rng.uniform(0.5, 1.5, n) / n,
            offset=0.2 * rng.standard_normal(n) if y.ndim == 1 else None,
            **extra,
        )
        out.append(this)
    return out


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


# -- bounds of nonconvex problems --------------------------------------------------------------------------------------

CONCAVE = {
    "mcp": (MCP(2.0), lambda u: np.where(u < 2.0, u - u * u / 4.0, 1.0)),
    "log": (LogSum(0.5), lambda u: np.log(1.0 + 2.0 * u)),
    "sqrt": (Power(0.5), np.sqrt),
    "capped": (Capped(0.8), lambda u: np.minimum(u, 0.8)),
    "l0": (L0(), lambda u: (u > 0.0) * 1.0),
}


def separable_minimum(this: Problem, q: Any) -> float:
    z = GRID @ this.design.matvec(np.eye(2)).T
    fit = 0.5 * ((z - this.loss.y[:, 0]) ** 2) @ this.loss.s
    ridge = 0.5 * this.penalty.ridge * (GRID**2).sum(axis=1)
    return float((fit + ridge + this.lam * q(np.abs(GRID)) @ this.groups.weights).min())


def path_evidence(this: Problem) -> dict[str, Any]:
    strengths = np.append(np.geomspace(1e-3, 1.0, 25) * np.abs(this.design.rmatvec(this.loss.y)).max(), 0.0)
    lasso = duals.group_lasso(this)
    points = [this.loss.derivative(lasso.predictor(solve(lasso.at(lam), tol=1e-10).w)) for lam in strengths[:-1]]
    return {"strengths": strengths, "A": np.stack([*points, 0.0 * points[0]])}


@pytest.mark.parametrize("name", CONCAVE)
def test_the_separable_bound_is_below_every_value(name: str) -> None:
    q, value = CONCAVE[name]
    rng = np.random.default_rng(5)
    gaps = []
    for trial in range(6):
        X = rng.standard_normal((3, 2))
        weights = [1.0, 1.0] if trial < 3 else rng.uniform(0.5, 2.0, 2)
        this = plain(
            X,
            X @ rng.uniform(0.0, 1.5, 2),
            Groups.equal(2, weights=weights),
            penalty=q,
            lam=(0.3, 0.8, 1.5)[trial % 3],
            ridge=0.2 * (trial % 2),
        )
        best = separable_minimum(this, value)
        for claim in (separable_bound(this, [0.5, 0.0]), separable_bound(this, [0.5, 0.0], **path_evidence(this))):
            assert claim.verdict is Verdict.PROVED
            assert claim.numbers["dual"] <= best
            assert claim.numbers["primal"] >= best - 0.1
        gaps.append((best - claim.numbers["dual"]) / best)
    assert min(gaps) < 0.05, "the bound must be of use somewhere"


def test_a_separable_bound_with_the_wrong_weight_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    q, value = CONCAVE["log"]
    this = plain(np.eye(2), [1.0, 1.0], Groups.equal(2, weights=[0.3, 3.0]), penalty=q, lam=0.8)
    best, given = separable_minimum(this, value), path_evidence(this)
    assert separable_bound(this, [0.5, 0.0], **given).numbers["dual"] <= best
    right = bounds._infimum

    def wrong(penalty: Any, *rest: Any) -> Any:
        groups = Groups(penalty.groups.indices, penalty.groups.indptr, np.full(2, 3.0))
        return right(replace(penalty, groups=groups), *rest)

    monkeypatch.setattr(bounds, "_infimum", wrong)
    assert separable_bound(this, [0.5, 0.0], **given).numbers["dual"] > best


def test_a_bound_for_lambert_w_is_not_claimed() -> None:
    this = plain(np.eye(2), [2.0, 1.0], penalty=LambertW(), lam=1.2)
    assert separable_bound(this, [0.9, 0.3]).verdict is Verdict.NOT_APPLICABLE
    with pytest.raises(ValueError, match="must be given together"):
        separable_bound(plain(np.eye(2), [2.0, 1.0], penalty=MCP(), lam=1.0), [0.9, 0.3], strengths=[1.0])


@pytest.mark.parametrize("name", ADMISSIBLE)
def test_the_bound_of_problem_1_is_below_every_value(name: str) -> None:
    q, value, inverse = ADMISSIBLE[name]
    for this in instances(1, 6):
        one = plain(
            this.design.matvec(np.eye(2)), this.loss.y[:, 0], penalty=q, composite=True, lam=this.lam, weights="ones"
        )
        best, place = composite_minimum(one, value, inverse)
        w = solve(this, tol=1e-10).w
        for point, A in ((w, None), (place, this.loss.derivative(this.predictor(w)))):
            claim = optimality_gap(one, point, A=A)
            assert claim.verdict is Verdict.PROVED
            assert claim.numbers["dual"] <= best
            assert claim.numbers["primal"] >= best - 0.1


def test_an_infinite_penalty_proves_nothing() -> None:
    this = plain(np.eye(2), [2.0, 2.0], penalty=TransformedL1(1.0), composite=True, lam=0.1)
    assert optimality_gap(this, [1.0, 1.1]).verdict is Verdict.FAILED
    assert stationarity(this, [1.0, 1.1]).verdict is Verdict.FAILED


# -- choices of groups -------------------------------------------------------------------------------------------------


def at_most(k: int, ridge: float, loss: str = "squares", free: str = "intercept") -> Problem:
    this = problem(loss, "l2", free)
    return replace(this, penalty=AtMost(this.groups, k, ridge))


@cache
def best_choice(
    k: int, ridge: float, loss: str = "squares", free: str = "intercept"
) -> tuple[float, np.ndarray, float]:
    """The best of all choices of k groups, each fitted by SciPy."""
    this = at_most(k, ridge, loss, free)
    counted = np.flatnonzero(this.penalty.penalised)
    free_features = np.flatnonzero(this.groups.expand(~this.penalty.penalised))
    best = (np.inf, np.zeros(10), 0.0)
    for chosen in combinations(counted, k):
        kept = np.concatenate([*(this.groups[int(g)] for g in chosen), free_features]).astype(int)

        def spread(x: np.ndarray, kept: np.ndarray = kept) -> tuple[np.ndarray, float]:
            w = np.zeros(10)
            w[kept] = x[:-1]
            return w, x[-1] if this.intercept else 0.0

        def value(x: np.ndarray, spread: Any = spread, kept: np.ndarray = kept) -> tuple[float, np.ndarray]:
            w, b = spread(x)
            gradient, in_b = this.gradient(w, b)
            ridged = this.penalty.ridge * w * this.groups.expand(this.penalty.penalised)
            return this.value(w, b), np.append((gradient + ridged)[kept], in_b[0] if this.intercept else 0.0)

        found = minimize(
            value, np.zeros(len(kept) + 1), jac=True, method="BFGS", options={"gtol": 1e-9, "maxiter": 500}
        )
        if found.fun < best[0]:
            best = (float(found.fun), *spread(found.x))
    return best


def search_tree(this: Problem, w: np.ndarray, b: float, order: list[int]) -> BoundProof:
    """Leaves of a full tree on the groups of `order`; dual points at fits of the groups in and open, shrunk."""
    leaves: list[tuple[tuple[int, ...], tuple[int, ...]]] = [((), ())]
    for g in order:
        leaves = [leaf for i, o in leaves for leaf in (((*i, g), o), (i, (*o, g)))]
    points = []
    for inside, outside in leaves:
        lam = np.where(np.isin(np.arange(len(this.groups)), outside), 50.0, 1e-3 if len(inside) else 0.05)
        groups = Groups(this.groups.indices, this.groups.indptr, np.where(this.penalty.penalised, lam, 0.0))
        relaxed = Problem.build(np.eye(10), np.zeros(10), groups, lam=1.0, ridge=this.penalty.ridge).penalty
        found = solve(replace(this, penalty=relaxed), tol=1e-8)
        points.append(this.loss.derivative(this.predictor(found.w, found.intercept)))
    return BoundProof(
        np.stack(points), tuple(i for i, _ in leaves), tuple(o for _, o in leaves), np.full(len(this.groups), np.inf)
    )


CHOICES = [("squares", "none"), ("squares", "both"), ("logistic", "both"), ("huber", "none")]


@pytest.mark.parametrize(("loss", "free"), CHOICES)
def test_the_bound_of_a_choice_is_below_the_best(loss: str, free: str) -> None:
    for k in (1, 2):
        for ridge in (0.1, 1.0):
            this = at_most(k, ridge, loss, free)
            best, w, b = best_choice(k, ridge, loss, free)
            weak = best_subset(this, w, b)
            strong = best_subset(this, w, b, search_tree(this, w, b, [1, 0, 2]))
            for claim in (weak, strong):
                positive = claim.numbers["dual"] > 0.0
                assert claim.verdict is (Verdict.PROVED if positive else Verdict.FAILED)
                assert positive or (claim is weak and "No bound better than 0" in claim.statement)
                assert claim.numbers["dual"] <= best * (1.0 + 1e-12)
                assert claim.numbers["primal"] >= best * (1.0 - 1e-9)
            limited = np.full(len(this.groups), np.sqrt(2.0 * best / ridge) * 1.01)
            tree = replace(search_tree(this, w, b, [2]), radius=limited)
            claim = best_subset(this, w, b, tree)
            assert claim.numbers["dual"] <= best * (1.0 + 1e-12)
            assert not any("radii" in sentence for sentence in claim.not_proved), "radii that exclude nothing better"


def one_leaf(this: Problem, A: np.ndarray, radius: np.ndarray) -> BoundProof:
    return BoundProof(A[None], ((),), ((),), radius)


def test_without_ridge_the_radii_are_assumed_where_nothing_can_be_proved() -> None:
    this = at_most(1, 0.0, "squares", "none")
    best, w, b = best_choice(1, 0.0, "squares", "none")
    short = (1.0 + 1e-6) * this.groups.norms(w) + 1e-3
    everything = best_choice(4, 0.0, "squares", "none")  # the fit on all groups, of which it is no choice
    A = this.loss.derivative(this.predictor(*everything[1:]))
    skew = A + 1e-4 * np.random.default_rng(0).standard_normal(A.shape) * this.loss.s[:, None]
    claim = best_subset(this, w, b, one_leaf(this, skew, short))
    assert claim.verdict is Verdict.PROVED
    assert claim.numbers["radius"] == "assumed"
    assert "the radii are assumed, as they are smaller than what can be proved" in claim.not_proved[0]
    assert "with ||w_g|| <= M_g" in claim.statement
    inside = one_leaf(this, skew, 0.9 * this.groups.norms(w))
    assert best_subset(this, w, b, inside).verdict is Verdict.FAILED, "w must obey the radii that are assumed"
    wide = 1.01 * level_radii(this, claim.numbers["dual"])
    claim = best_subset(this, w, b, one_leaf(this, skew, wide))
    assert (claim.verdict, claim.numbers["radius"]) == (Verdict.PROVED, "proved")
    assert not any("radii" in sentence for sentence in claim.not_proved)
    assert claim.numbers["dual"] <= best
    claim = best_subset(this, w, b, one_leaf(this, A, short))
    assert claim.numbers["radius"] == "not needed", "the fit on all groups is orthogonal to all that is allowed"
    assert claim.numbers["dual"] <= everything[0]
    assert best_subset(this, w, b).verdict is Verdict.FAILED, "infinite radii bound nothing without a ridge"


@pytest.mark.parametrize("free", ["none", "both"])
def test_the_radii_hold_the_level_set(free: str) -> None:
    """Steps from the minimiser to the rim of the level set stay inside, and some come near."""
    this = at_most(4, 0.0, "squares", free)
    rng = np.random.default_rng(0)
    design = np.column_stack([this.design.matvec(np.eye(10)), *([np.ones(25)] if this.intercept else [])])
    s = this.loss.s
    y = (this.loss.y - this.loss.offset)[:, 0]
    H = design.T @ (s[:, None] * design)
    center = np.linalg.solve(H, design.T @ (s * y))
    least = 0.5 * float(s @ (y - design @ center) ** 2)
    level = 1.3 * least
    radius = level_radii(this, level)
    nearest = np.zeros(len(this.groups))
    for g in range(len(this.groups)):
        own = this.groups[g]
        pushes = [np.linalg.solve(H, np.eye(len(H))[:, own] @ rng.standard_normal(len(own))) for _ in range(300)]
        for push in (sign * push for push in pushes for sign in (1.0, -1.0)):
            w = center + push * np.sqrt(2.0 * (level - least) / (push @ H @ push))
            nearest = np.maximum(nearest, this.groups.norms(w[:10]))
    assert (nearest <= radius).all()
    assert (nearest >= 0.7 * radius).all()
    deep = level_radii(this, 0.5 * least)
    assert (deep <= radius).all(), "a level that nothing reaches"
    assert level_radii(replace(this, loss=problem("logistic").loss), level) is None
    twice = plain(np.ones((5, 2)), np.arange(5.0), groups=1)
    assert level_radii(replace(twice, penalty=AtMost(twice.groups, 1)), 100.0) is None, "dependent columns"


@pytest.mark.parametrize("loss", ["squares", "logistic", "multinomial", "poisson", "huber"])
def test_dependent_and_separating_columns_need_no_radius(loss: str) -> None:
    """One-hot columns beside an intercept, one of which holds samples of a single class."""
    rng = np.random.default_rng(1)
    kind = np.repeat(np.arange(4), 8)
    X = np.column_stack([np.eye(4)[kind], rng.standard_normal((32, 3))])
    y = {
        "logistic": (rng.random(32) < 0.5).astype(float),
        "multinomial": np.arange(32) % 3,
        "poisson": rng.poisson(2.0, 32).astype(float),
    }.get(loss, X[:, 4] + rng.standard_normal(32))
    if loss not in ("squares", "huber"):
        y = np.where(kind == 0, 0, y)
    base = Problem.build(X, y, Groups.from_sizes([4, 2, 1]), loss=loss)
    this = replace(base, penalty=AtMost(base.groups, 2))
    best = exact(this)
    claim = best_subset(this, best.w, best.intercept, best.proof)
    assert (claim.verdict, claim.numbers["radius"]) == (Verdict.PROVED, "not needed")
    assert claim.numbers["relative_gap"] < 1e-6
    assert claim.numbers["dual"] <= best.objective


def test_a_bound_of_zero_is_no_bound_unless_the_fit_is_perfect() -> None:
    this = at_most(1, 0.0, "squares", "none")
    _, w, b = best_choice(1, 0.0, "squares", "none")
    zero = one_leaf(this, np.zeros((25, 1)), np.full(4, np.inf))
    claim = best_subset(this, w, b, zero)
    assert claim.verdict is Verdict.FAILED
    assert claim.statement.startswith("No bound better than 0 was found")
    X = np.random.default_rng(5).standard_normal((20, 6))
    base = Problem.build(X, X[:, 2:4] @ [1.0, 2.0] + 1.0, groups=2)
    perfect = replace(base, penalty=AtMost(base.groups, 1))
    found = exact(perfect)
    claim = best_subset(perfect, found.w, found.intercept, found.proof)
    assert claim.verdict is Verdict.PROVED
    assert claim.numbers["dual"] == 0.0
    assert claim.numbers["gap_to_null"] < 1e-9
    assert claim.numbers["null"] == pytest.approx(base.loss.value(np.broadcast_to(base.loss.y.mean(), (20, 1))))
    assert "of the loss without groups" in claim.statement


def test_leaves_that_leave_choices_out_are_rejected() -> None:
    this = at_most(2, 0.5)
    _, w, b = best_choice(2, 0.5)
    whole = search_tree(this, w, b, [0, 1])
    assert best_subset(this, w, b, whole).verdict is Verdict.PROVED
    for m in range(4):
        kept = [j for j in range(4) if j != m]
        part = BoundProof(
            whole.dual[kept],
            tuple(whole.leaf_in[j] for j in kept),
            tuple(whole.leaf_out[j] for j in kept),
            whole.radius,
        )
        claim = best_subset(this, w, b, part)
        assert claim.verdict is Verdict.FAILED
        assert "do not cover" in claim.statement
    for bad in (((0,), (0,)), ((17,), ()), ((-1,), ())):
        claim = best_subset(this, w, b, BoundProof(whole.dual[:1], (bad[0],), (bad[1],), whole.radius))
        assert claim.verdict is Verdict.FAILED
    dense = best_subset(this, np.ones(10), b, whole)
    assert dense.verdict is Verdict.FAILED
    with pytest.raises(ValueError, match="radius has the shape"):
        best_subset(this, w, b, replace(whole, radius=np.ones(1)))
    with pytest.raises(ValueError, match="pass one for each"):
        best_subset(this, w, b, replace(whole, leaf_in=((),)))


def test_covers_agrees_with_enumeration() -> None:
    rng = np.random.default_rng(0)
    answers = set()
    for _ in range(400):
        t, k = 4, int(rng.integers(1, 4))
        states = rng.choice([-1, 0, 0, 1], size=(int(rng.integers(1, 9)), t))
        choices = [set(c) for size in range(k + 1) for c in combinations(range(t), size)]
        # A leaf that forces more than k groups in holds no choice; a choice within fewer than k is one of k as well.
        truth = all(any(all((g in c) == (s > 0) for g, s in enumerate(row) if s) for row in states) for c in choices)
        assert subset.covers(states, k) == truth
        answers.add(truth)
    assert answers == {True, False}


def test_a_choice_counted_short_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the conjugate the bound exceeds the best value."""
    this = at_most(1, 1.0)
    best, w, b = best_choice(1, 1.0)
    assert best_subset(this, w, b).numbers["dual"] <= best
    monkeypatch.setattr(subset, "_worth", lambda v, radius, ridge: 0.0 * v)
    assert best_subset(this, w, b).numbers["dual"] > best


# -- approximation -----------------------------------------------------------------------------------------------------


def gaussian(n: int, t: int, d: int, seed: int, **keywords: Any) -> Problem:
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, t * d)) / np.sqrt(n)
    y = X[:, : 2 * d].sum(axis=1) + 0.3 * rng.standard_normal(n) / np.sqrt(n)
    return plain(X, y, groups=d, **keywords)


def extremes(this: Problem, s: int) -> tuple[float, float]:
    """mu_s and L_s by enumeration of all sets."""
    X = this.design.matvec(np.eye(this.groups.n_features))
    root = np.sqrt(this.loss.s)[:, None]
    X = root * X
    if this.intercept:
        X = X - root @ (root.T @ X) / (root**2).sum()
    X = X / np.repeat(this.groups.weights, this.groups.sizes)
    ridge = this.penalty.ridge / np.repeat(this.groups.weights, this.groups.sizes) ** 2
    low, high = np.inf, 0.0
    for chosen in combinations(range(len(this.groups)), s):
        kept = np.concatenate([this.groups[g] for g in chosen])
        e = np.linalg.eigvalsh(X[:, kept].T @ X[:, kept] + np.diag(ridge[kept]))
        low, high = min(low, e[0]), max(high, e[-1])
    return float(low), float(high)


def test_restricted_constants() -> None:
    rng = np.random.default_rng(2)
    ragged = Problem.build(
        rng.standard_normal((40, 9)), rng.standard_normal(40), Groups.from_sizes([1, 3, 2, 1, 2]), ridge=0.1
    )
    for this in (gaussian(60, 5, 2, 0), ragged):
        gram = BlockGram.of(this)
        for s in (1, 2, 3):
            low, high = extremes(this, s)
            mu, method = gram.smallest(s)
            assert (mu, method) == (pytest.approx(low, rel=1e-9), "enumeration")
            if s < 3:
                assert gram.largest(s) == pytest.approx(high, rel=1e-9)
            coarse = BlockGram.of(this)
            coarse.__dict__["_can_enumerate"] = lambda s: False
            assert coarse.smallest(s)[0] <= low * (1.0 + 1e-12)
            assert coarse.largest(s) >= high * (1.0 - 1e-12)


def fit(this: Problem, chosen: list[int]) -> tuple[float, np.ndarray]:
    """The best loss on some groups, and the gradient norms of all."""
    X, y = this.design.matvec(np.eye(this.groups.n_features)), this.loss.y[:, 0]
    w = np.zeros(X.shape[1])
    if chosen:
        kept = np.concatenate([this.groups[g] for g in chosen])
        w[kept] = np.linalg.lstsq(X[:, kept], y, rcond=None)[0]
    r = X @ w - y
    return 0.5 * float(r @ r), w


@pytest.mark.parametrize("seed", range(3))
def test_the_promises_are_kept(seed: int) -> None:
    """OMP and OMPR, written here, against the best of all choices of k groups."""
    this = gaussian(2000, 10, 2, seed)
    X = this.design.matvec(np.eye(20))
    for k in (1, 2):
        claim = approximation(this, k=k, accuracy=1e-3)
        assert claim.verdict is Verdict.HOLDS
        numbers = claim.numbers
        best = min(fit(this, list(c))[0] for c in combinations(range(10), k))
        start = list(range(10 - numbers["k_prime"], 10))
        first = fit(this, start)[0]
        for _ in range(numbers["R"]):
            value, w = fit(this, start)
            pull = this.groups.norms(X.T @ (X @ w - this.loss.y[:, 0]))
            pull[start] = -1.0
            out = min(start, key=lambda g: np.linalg.norm(w[this.groups[g]]))
            start = [*(g for g in start if g != out), int(np.argmax(pull))]
            if fit(this, start)[0] >= value:
                break
        assert min(value, fit(this, start)[0]) <= best + 1e-3 * max(first - best, 0.0)
        if numbers["k_prime_omp"] != "none":
            chosen: list[int] = []
            for _ in range(numbers["k_prime_omp"]):
                _, w = fit(this, chosen)
                pull = this.groups.norms(X.T @ (X @ w - this.loss.y[:, 0]))
                pull[chosen] = -1.0
                chosen.append(int(np.argmax(pull)))
            assert fit(this, chosen)[0] <= best + 1e-3 * (fit(this, [])[0] - best)


def test_no_promise_where_none_is_known() -> None:
    wide = gaussian(8, 10, 2, 0)
    claim = approximation(wide, k=2)
    assert claim.verdict is Verdict.FAILED
    assert claim.numbers["k_prime"] == "none"
    assert "Neither theorem promises" in claim.statement
    assert approximation(problem("logistic"), k=1).verdict is Verdict.FAILED, "no strong convexity without ridge"
    assert approximation(problem("poisson"), k=1).verdict is Verdict.NOT_APPLICABLE
    groups = problem("logistic").groups
    ridged = replace(problem("logistic"), penalty=AtMost(Groups(groups.indices, groups.indptr, "ones"), 1, 100.0))
    assert approximation(ridged).verdict is Verdict.HOLDS
    with pytest.raises(ValueError, match="accuracy is 2"):
        approximation(wide, accuracy=2.0)


def test_exact_recovery() -> None:
    """Kept where it is promised, and not promised for three atoms of which greedy selection takes the wrong one."""
    rng = np.random.default_rng(0)
    this = gaussian(3000, 8, 2, 4)
    claim = exact_recovery(this, k=2)
    assert claim.verdict is Verdict.HOLDS
    X = this.design.matvec(np.eye(16))
    for _ in range(20):
        support = rng.choice(8, 2, replace=False)
        w = np.zeros(16)
        kept = np.concatenate([this.groups[int(g)] for g in support])
        w[kept] = rng.standard_normal(4)
        noiseless = plain(X, X @ w, groups=2)
        chosen: list[int] = []
        for _ in range(2):
            pull = this.groups.norms(X.T @ (X @ fit(noiseless, chosen)[1] - X @ w))
            chosen.append(int(np.argmax(pull)))
        assert set(chosen) == set(support.tolist())
    atoms = np.column_stack([np.eye(3)[:, :2], np.ones(3) / np.sqrt(3.0)])
    bad = exact_recovery(plain(atoms, [1.0, 1.0, 0.0]), k=2)
    assert bad.verdict is Verdict.FAILED
    assert bad.numbers["coherence"] == pytest.approx(3**-0.5)
    assert bad.numbers["k_max"] == 1
    assert np.argmax(np.abs(atoms.T @ [1.0, 1.0, 0.0])) == 2, "greedy selection does go wrong there"
    assert exact_recovery(problem("logistic")).verdict is Verdict.NOT_APPLICABLE


# -- what a verifier says that shares no formula with the makers -------------------------------------------------------


def one_of_each() -> list[Report]:
    """Every kind that is proved or holds, with intercepts, weights and offsets where these are allowed."""
    out = []
    for loss in LOSSES:
        this = problem(loss, "both", "both", 0.15)
        found = solve(this, tol=1e-10)
        at = (this, found.w, found.intercept)
        out.append(Report(*at, tuple(make(*at) for make in (duality_gap, zero_groups, stationarity))))
        if loss != "multinomial":
            this = windows(loss)[4 if loss == "huber" else 2]
            window = one_group_window(this)
            this = this.at(window.numbers["lam_low"])
            found = solve(this, tol=1e-11)
            at = (this, found.w, found.intercept)
            out.append(Report(*at, (window, theorem_1_1(*at), one_group_kkt(*at))))
    log = plain(np.eye(2), [2.0, 0.1], penalty=LogSum(), lam=0.5)
    first = replace(log, penalty=Composite(LogSum(), log.groups, 0.5))
    w = np.array([1.5, 0.0])
    out.append(Report(log, w, 0.0, (separable_bound(log, w, **path_evidence(log)),)))
    out.append(Report(first, w, 0.0, (optimality_gap(first, w), theorem_1_1(first, w))))
    chosen, (_, w, b) = at_most(2, 0.1), best_choice(2, 0.1)
    out.append(Report(chosen, w, b, (best_subset(chosen, w, b, search_tree(chosen, w, b, [1, 0])),)))
    wide = gaussian(2000, 10, 2, 0)
    claims = (approximation(wide, k=2, accuracy=1e-3), exact_recovery(wide, k=2))
    return [*out, Report(wide, np.zeros(20), 0.0, claims)]


RAISED = {  # kind -> a number of the claim, and whether it is to grow
    "duality_gap": ("dual", True),
    "optimality_gap": ("dual", True),
    "separable_bound": ("dual", True),
    "best_subset": ("primal", False),
    "zero_groups": ("dual", True),
    "theorem_1_1": ("dual", True),
    "one_group_window": ("lam_low", False),
    "one_group_kkt": ("slack", True),
    "exact_recovery": ("alpha", True),
    "approximation": ("mu", True),
}


def test_the_verifier_confirms_the_claims_and_refuses_more(tmp_path: Path) -> None:
    pytest.importorskip("flint", reason="the verifier computes with python-flint")
    kinds = set()
    for report in one_of_each():
        report.save(tmp_path / "report.json")
        outcome = verify(tmp_path / "report.json")
        assert outcome.ok, str(outcome)
        assert str(Report.load(tmp_path / "report.json")) == str(report)
        kinds |= {c.kind for c, seen in zip(report, outcome.claims, strict=True) if seen.outcome == "verified"}
        for claim in report:
            if claim.kind not in RAISED or not claim.verdict.ok:
                continue
            name, grow = RAISED[claim.kind]
            step = 1e-6 * abs(claim.numbers[name]) + 1e-9
            wrong = replace(claim, numbers={**claim.numbers, name: claim.numbers[name] + (step if grow else -step)})
            Report(report.problem, report.w, report.b, (wrong,)).save(tmp_path / "report.json")
            assert not verify(tmp_path / "report.json").ok, f"{claim.kind} with {name} moved by {step}"
    assert kinds == {*RAISED, "stationarity"}


# -- stationarity and reports ------------------------------------------------------------------------------------------


def test_stationarity_counts_what_is_vacuous() -> None:
    this = plain(np.eye(3), [2.0, 1.0, 0.1], penalty=Power(0.5), lam=0.1)
    w = this.penalty.prox(this.loss.y[:, 0], 1.0)
    claim = stationarity(this, w)
    assert claim.verdict is Verdict.HOLDS
    zero = int(np.count_nonzero(w == 0.0))
    assert claim.numbers["vacuous"] == zero > 0
    assert f"{zero} zero groups" in claim.not_proved[0]
    trap = stationarity(this, np.zeros(3))
    assert trap.verdict is Verdict.HOLDS or trap.numbers["residual"] > 0.0
    chosen = replace(this, penalty=AtMost(this.groups, 1))
    claim = stationarity(chosen, [0.0, 1.0, 0.0])
    assert claim.verdict is Verdict.HOLDS
    assert claim.numbers["vacuous"] == 2
    assert "1 other groups are active already" in claim.not_proved[0]
    convex = plain(np.eye(3), [2.0, 1.0, 0.1], lam=0.1)
    assert stationarity(convex, [1.9, 0.9, 0.0]).numbers["vacuous"] == 0
    assert stationarity(convex, [1.8, 0.9, 0.0]).verdict is Verdict.FAILED


def test_a_report_says_what_is_proved_and_what_is_not() -> None:
    this = H.at(0.5)
    w = np.array([0.0, 1.8])
    claims = (duality_gap(this, w), theorem_1_1(this, w), stationarity(this, w), optimality_gap(this, w))
    report = Report(this, w, 0.0, (*claims, zero_groups(this, w, zero=[0, 1])))
    text = str(report)
    assert text.index("Proved") < text.index("Holds to a tolerance") < text.index("Could not be shown")
    assert text.index("Could not be shown") < text.index("Does not apply")
    assert "not proved: That 1 is nonzero." in text
    assert report["theorem_1_1"] is claims[1]
    assert report[0] is claims[0]
    assert len(report) == 5
    assert not report.ok
    assert Report(this, w, 0.0, claims).ok
    with pytest.raises(KeyError, match="report has no 'nothing'"):
        report["nothing"]
    assert str(Report(this, w, 0.0, ())) == "Nothing is claimed."
