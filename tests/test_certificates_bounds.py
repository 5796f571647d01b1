"""Bounds of optima, and groups proved zero: true by CVXPY, by grids and in exact arithmetic; wrong ones are noticed."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from certified_cases import ADMISSIBLE, FREE, GRID, TERMS, composite_minimum, instances, path_evidence, plain, problem
from cvxpy_oracle import optimum
from scipy.sparse import csc_array
from small_problems import LOSSES

from sparseopt import L0, MCP, AtMost, Capped, Groups, LambertW, LogSum, Power, Problem, TransformedL1, fista, solve
from sparseopt.certificates import (
    Verdict,
    bounds,
    duality_gap,
    duals,
    one_group_window,
    optimal,
    optimality_gap,
    separable_bound,
    stationarity,
    theorem_1_1,
    zero_groups,
)


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
