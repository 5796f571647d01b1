"""Certificates: approximation and recovery, reports, and a verifier that confirms the claims and refuses more.

Oracles: enumeration of all choices of groups, solvers where only the zeros of their answers count. Each kind is also
broken on purpose.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from certified_cases import H, at_most, best_choice, fit, gaussian, path_evidence, plain, problem, search_tree, windows
from small_problems import LOSSES

from sparseopt import AtMost, Composite, Groups, LogSum, Power, Problem, solve
from sparseopt.certificates import (
    Report,
    Verdict,
    approximation,
    best_subset,
    duality_gap,
    exact_recovery,
    one_group_kkt,
    one_group_window,
    optimality_gap,
    separable_bound,
    stationarity,
    theorem_1_1,
    zero_groups,
)
from sparseopt.certificates.blockgram import BlockGram
from sparseopt.certificates.verify import verify


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
