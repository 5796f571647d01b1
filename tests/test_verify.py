"""Certificates survive a round trip, and a certificate that was tampered with does not, hashes made to fit or not."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from scipy.sparse import csc_array

from sparseopt import L2, AtMost, Groups, LogSum, Penalty, Problem, Squares, as_design, solve
from sparseopt import regularizer as regularizer_class
from sparseopt.certificates import (
    Certificate,
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
from sparseopt.certificates.files import digest, load_report, read, save_report
from sparseopt.certificates.regularizers import regularizer
from sparseopt.designs import dense_columns
from sparseopt.scalar import log1p
from sparseopt.selection.exact import exact
from sparseopt.solution import BoundProof

pytest.importorskip("flint")
from sparseopt.certificates.verify import verify

RNG = np.random.default_rng(7)
X = RNG.standard_normal((40, 24))
SIGNAL = X[:, :4] @ np.array([2.0, -1.0, 1.5, 1.0])
Z = SIGNAL + 0.5 * RNG.standard_normal(40)
TARGETS = {
    "squares": Z,
    "huber": Z,
    "logistic": (Z > 0).astype(float),
    "poisson": np.rint(np.exp(0.3 * Z)),
    "multinomial": np.digitize(Z, [-1.0, 1.0]),
}


def lasso(loss: str = "squares", lam: float = 0.3, **options: Any) -> Problem:
    groups = options.pop("groups", 4)
    if loss == "perfect":
        return Problem.build(X, SIGNAL, groups, lam=lam, **options)
    return Problem.build(options.pop("X", X), TARGETS[loss], groups, loss=loss, lam=lam, **options)


def report(problem: Problem, *makers: Callable[..., Certificate], **options: Any) -> Report:
    """Certificates at a tight solution of the group lasso of the problem."""
    # One kind of design: the solver's kernels are compiled for each.
    design = as_design(dense_columns(problem.design, np.arange(24)))
    at = solve(Problem(design, problem.loss, convex_penalty(problem), problem.intercept), tol=1e-12)
    return Report(problem, at.w, at.intercept, tuple(m(problem, at.w, at.intercept, **options) for m in makers))


def convex_penalty(problem: Problem) -> Penalty:
    p = problem.penalty
    return Penalty(L2(), problem.groups, p.lam, p.l1_ratio, p.ridge)


def one_active(problem: Problem) -> Problem:
    """The problem at a lam in its window, where one group is active."""
    numbers = one_group_window(problem).numbers
    return problem.at(0.5 * (float(numbers["lam_low"]) + float(numbers["tau"])))


def subset(k: int = 1, ridge: float = 0.1) -> Report:
    """The best group, from one leaf per group in a chain of splits, by brute force."""
    groups = Groups.equal(24, 4)
    problem = Problem(as_design(X), Squares.of(Z), AtMost(groups, k, ridge), False)
    best, where = np.inf, (0,)
    for chosen in itertools.combinations(range(6), k):
        w = fit_on(problem, chosen)
        if problem.value(w) < best:
            best, where = problem.value(w), chosen
    w = fit_on(problem, where)
    leaf_in, leaf_out, dual = [], [], []
    for g in range(6):  # g is the first group that is in
        leaf_in.append((g,))
        leaf_out.append(tuple(range(g)))
        z = problem.predictor(fit_on(problem, tuple(range(g, 6)) if k > 1 else (g,)))
        dual.append(problem.loss.derivative(z))
    leaf_in.append(())
    leaf_out.append(tuple(range(6)))
    dual.append(problem.loss.derivative(problem.predictor(np.zeros(24))))
    proof = BoundProof(np.array(dual), tuple(leaf_in), tuple(leaf_out), np.full(6, np.inf))
    return Report(problem, w, 0.0, (best_subset(problem, w, 0.0, proof),))


def unconditional(loss: str = "squares", k: int = 2, **options: Any) -> Report:
    """The best choice without a ridge, as exact selection proves it."""
    base = lasso(loss, **options)
    problem = Problem(base.design, base.loss, AtMost(base.groups, k), base.intercept)
    best = exact(problem, engine="enumeration")
    return Report(problem, best.w, best.intercept, (best_subset(problem, best.w, best.intercept, best.proof),))


def fit_on(problem: Problem, chosen: tuple[int, ...]) -> Any:
    rows = np.concatenate([problem.groups[g] for g in chosen])
    w = np.zeros(24)
    part = X[:, rows]
    ridge = problem.penalty.ridge
    w[rows] = np.linalg.solve(part.T @ part / 40 + ridge * np.eye(len(rows)), part.T @ Z / 40)
    return w


def path_report() -> Report:
    problem = lasso(penalty=LogSum(2.0), lam=0.8)
    strengths = np.geomspace(0.1, 1.0, 9)
    convex = Problem(problem.design, problem.loss, convex_penalty(problem), True)
    points = []
    for strength in strengths:
        at = solve(convex.at(float(strength)), tol=1e-12)
        points.append(problem.loss.derivative(problem.predictor(at.w, at.intercept)))
    at = solve(convex.at(0.5), tol=1e-12)
    certificate = separable_bound(problem, at.w, at.intercept, strengths=strengths, A=np.array(points))
    return Report(problem, at.w, at.intercept, (certificate,))


ORTHO = np.linalg.qr(RNG.standard_normal((40, 24)))[0] * np.sqrt(40.0)

REPORTS: dict[str, Callable[[], Report]] = {
    "duality_gap": lambda: report(lasso(), duality_gap),
    "zero_groups": lambda: report(lasso(), zero_groups),
    "theorem_1_1": lambda: report(one_active(lasso()), theorem_1_1),
    "one_group_window": lambda: report(one_active(lasso()), one_group_window),
    "one_group_kkt": lambda: report(one_active(lasso()), one_group_kkt),
    "optimality_gap": lambda: report(one_active(lasso(penalty=LogSum(0.5), composite=True)), optimality_gap),
    "separable_bound": path_report,
    "best_subset": subset,
    "radii": unconditional,
    "orthogonal": lambda: unconditional("huber"),
    "perfect": lambda: unconditional("perfect", 1),
    "regularizer": lambda: report(lasso(penalty=LogSum(0.5)), regularizer),
    "stationarity": lambda: report(lasso(), stationarity),
    "approximation": lambda: report(lasso(X=ORTHO), approximation, k=1, accuracy=0.1),
    "exact_recovery": lambda: report(lasso(X=ORTHO), exact_recovery, k=1),
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A report of one kind, saved once."""
    folder = tmp_path_factory.mktemp("reports")

    def get(kind: str) -> Path:
        path = folder / f"{kind}.json"
        if not path.exists():
            save_report(REPORTS[kind](), path)
        return path

    return get


def forge(
    path: Path, tmp_path: Path, change: Callable[[dict[str, Any], dict[str, Any]], Any], fit: bool = True
) -> Path:
    """A copy with `change(document, arrays)` applied; `fit` makes the hashes fit again."""
    document = json.loads(path.read_text())
    with np.load(path.with_suffix(".npz")) as archive:
        arrays = {name: archive[name].copy() for name in archive.files}
    change(document, arrays)
    out = tmp_path / "forged.json"
    document["arrays"]["file"] = "forged.npz"
    if fit:
        document["arrays"]["sha256"] = {name: digest(array) for name, array in arrays.items()}
    out.write_text(json.dumps(document))
    np.savez(out.with_suffix(".npz"), **arrays)
    return out


# -- what is right is verified -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", REPORTS)
def test_every_kind_is_verified(saved: Callable[[str], Path], kind: str) -> None:
    found = verify(saved(kind))
    assert found.ok, str(found)
    assert str(found).startswith("VERIFIED")
    assert [claim.outcome for claim in found.claims] == ["verified"]


VARIANTS = {
    "huber": {},
    "logistic": {"lam": 0.05},
    "poisson": {"lam": 0.2},
    "multinomial": {"lam": 0.05},
}


@pytest.mark.parametrize("loss", VARIANTS)
@pytest.mark.parametrize("intercept", [True, False])
def test_losses(tmp_path: Path, loss: str, intercept: bool) -> None:
    problem = lasso(loss, intercept=intercept, **VARIANTS[loss])
    makers = [duality_gap, stationarity, *([zero_groups] if loss != "poisson" else [])]
    if loss != "multinomial":
        makers += [one_group_window, one_group_kkt]
    check(report(problem, *makers), tmp_path)


@pytest.mark.parametrize(
    "options",
    {
        "l1": {"l1_ratio": 0.4},
        "ridge": {"ridge": 0.2},
        "both": {"l1_ratio": 0.3, "ridge": 0.1},
        "weights and offset": {"sample_weight": np.r_[0.0, RNG.random(39)], "offset": RNG.standard_normal(40)},
        "free groups": {"weights": [1.0, 1.0, 2.0, 0.0, 0.5, 1.0]},
        "sparse": {"X": csc_array(np.where(np.abs(X) > 0.7, X, 0.0))},
        "single": {"X": X.astype(np.float32)},
        "no penalty": {"lam": 0.0},
    }.items(),
    ids=lambda item: item[0],
)
@pytest.mark.parametrize("loss", ["squares", "logistic"])
def test_options(tmp_path: Path, options: tuple[str, dict[str, Any]], loss: str) -> None:
    given = dict(options[1])
    if loss == "logistic" and "lam" not in given:
        given["lam"] = 0.05
    if given.get("lam") == 0.0 and loss == "logistic":
        given["ridge"] = 0.1
    window = [one_group_window] if given.get("lam") != 0.0 else []
    check(report(lasso(loss, **given), duality_gap, stationarity, zero_groups, *window), tmp_path)


@pytest.mark.parametrize("name", ["power", "log", "expm1", "tl1", "laplace", "arctan"])
def test_problem_1_of_every_admissible_q(tmp_path: Path, name: str) -> None:
    check(
        report(lasso(penalty=name, composite=True, lam=0.2), optimality_gap, stationarity), tmp_path, stationary=False
    )


@pytest.mark.parametrize("name", ["power", "log", "expm1", "mcp", "scad", "capped", "tl1", "laplace", "arctan", "l0"])
def test_separable_penalties(tmp_path: Path, name: str) -> None:
    problem = lasso(penalty=name, lam=0.2, X=ORTHO, intercept=False)
    w = problem.penalty.prox(ORTHO.T @ Z / 40, 1.0)  # the minimiser: X'X / n = 1
    check(Report(problem, w, 0.0, (stationarity(problem, w), separable_bound(problem, w))), tmp_path)


def check(given: Report, tmp_path: Path, stationary: bool = True) -> None:
    save_report(given, tmp_path / "report.json")
    found = verify(tmp_path / "report.json")
    assert found.ok, str(found)
    for made, checked in zip(given, found.claims, strict=True):
        if made.verdict.ok:
            assert checked.outcome == "verified"
    assert not stationary or any(c.verdict.ok for c in given)


def test_claims_that_claim_nothing_are_no_refusal_and_no_proof(tmp_path: Path) -> None:
    problem = lasso(penalty="lambertw", composite=True)
    save_report(report(problem, optimality_gap), tmp_path / "none.json")
    found = verify(tmp_path / "none.json")
    assert not found.ok
    assert [claim.outcome for claim in found.claims] == ["nothing claimed"]


# -- what is wrong is refused ------------------------------------------------------------------------------------------

Change = Callable[[dict[str, Any], dict[str, Any]], Any]


def numbers(document: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = document["claims"][0]["numbers"]
    return found


def times(name: str, factor: float) -> Change:
    return lambda d, a: numbers(d).update({name: numbers(d)[name] * factor})


def plus(name: str, amount: float) -> Change:
    return lambda d, a: numbers(d).update({name: numbers(d)[name] + amount})


def put(name: str, value: Any) -> Change:
    return lambda d, a: numbers(d).update({name: value})


def set_problem(name: str, value: Any) -> Change:
    return lambda d, a: d["problem"].update({name: value})


def moved(d: dict[str, Any], a: dict[str, Any]) -> None:
    """Every nonzero coefficient is changed."""
    a["w"] = a["w"] * 1.05


def spread(d: dict[str, Any], a: dict[str, Any]) -> None:
    """All coefficients are changed, zeros too."""
    a["w"] = a["w"] + 0.05


def targets(d: dict[str, Any], a: dict[str, Any]) -> None:
    a["y"] = a["y"][::-1].copy()


def evidence(name: str, change: Callable[[Any], Any]) -> Change:
    return lambda d, a: a.update({f"claim0_{name}": change(a[f"claim0_{name}"])})


RAISED, LOWERED = 1.0 + 1e-6, 1.0 - 1e-6
BRACKET = {
    "dual raised": times("dual", RAISED),
    "primal lowered": times("primal", LOWERED),
    "solution": moved,
    "spread": spread,
    "targets": targets,
    "gap": times("relative_gap", 0.1),
    "loss": set_problem("loss", {"name": "huber", "params": {"delta": 0.1}}),
    "no dual": evidence("A", np.zeros_like),
    "dual point": evidence("A", lambda A: A[::-1].copy()),
}
LEAVES = {name: BRACKET[name] for name in ("dual raised", "primal lowered", "spread", "solution", "targets", "gap")} | {
    "k": lambda d, a: (set_problem("k", 3)(d, a), put("k", 3)(d, a)),
    "a leaf is missing": lambda d, a: (
        [a.update({f"claim0_{x}": a[f"claim0_{x}"][1:]}) for x in ("dual", "leaf_in", "leaf_out")],
        plus("leaves", -1)(d, a),
    ),
    "swapped group": evidence("leaf_in", lambda x: np.where(x == 0, 1, x)),
    "contradiction": evidence("leaf_in", lambda x: np.zeros_like(x)),
    "other points": evidence("dual", lambda x: x[::-1].copy()),
    "no points": evidence("dual", np.zeros_like),
    "word": put("radius", "surely"),
    "no word": lambda d, a: numbers(d).pop("radius"),
    "zero": lambda d, a: (put("dual", 0.0)(d, a), put("relative_gap", 1.0)(d, a)),
}
FORGERIES: dict[str, dict[str, Change]] = {
    "duality_gap": BRACKET | {"lam": set_problem("lam", 0.2), "ridge": set_problem("ridge", -1.0)},
    "optimality_gap": BRACKET
    | {
        "lam": set_problem("lam", 0.1),
        "lambertw": set_problem("q", {"name": "LambertW", "params": {}}),
        "mcp": set_problem("q", {"name": "MCP", "params": {"gamma": 3.0}}),
        "unknown": set_problem("q", {"name": "os:system", "params": {}}),
        "separable": set_problem("penalty", "penalty"),
    },
    "separable_bound": {name: BRACKET[name] for name in ("dual raised", "primal lowered", "spread", "targets", "gap")}
    | {
        "solution": lambda d, a: a.update(w=0.5 * a["w"]),
        "strengths": evidence("strengths", lambda s: 0.5 * s),
        "not concave": set_problem("q", {"name": "LambertW", "params": {}}),
        "composite": set_problem("penalty", "composite"),
    },
    "best_subset": LEAVES
    | {
        "radius": evidence("radius", lambda r: np.full_like(r, -1.0)),
        "small radius": evidence("radius", lambda r: np.full_like(r, 1.5)),
        "proved": put("radius", "proved"),
    },
    "radii": LEAVES
    | {
        "radius": evidence("radius", lambda r: 0.5 * r),
        "one radius": evidence("radius", lambda r: np.r_[r[:-1], 0.5 * r[-1]]),
        "assumed and too small": lambda d, a: (
            evidence("radius", lambda r: 0.01 * r)(d, a),
            put("radius", "assumed")(d, a),
        ),
        "infinite": evidence("radius", lambda r: np.full_like(r, np.inf)),
        "dependent columns": lambda d, a: a.update(X=np.column_stack([a["X"][:, :-1], a["X"][:, -2]])),
    },
    "orthogonal": LEAVES
    | {
        "proved": put("radius", "proved"),
        "noise": evidence("dual", lambda x: x + 1e-3 * np.sin(np.arange(x.size)).reshape(x.shape) / 40),
        "out of the domain": evidence("dual", lambda x: 3.0 * x),
    },
    "perfect": {name: LEAVES[name] for name in ("spread", "solution", "targets", "a leaf is missing", "swapped group")}
    | {
        "k": lambda d, a: (set_problem("k", 0)(d, a), put("k", 0)(d, a)),
        "dual raised": plus("dual", 1e-12),
        "primal negative": put("primal", -1e-30),
        "primal": put("primal", 1e-6),
        "null raised": times("null", 1.001),
        "null point": evidence("null", np.zeros_like),
        "gap": put("gap_to_null", 0.0),
        "no null": lambda d, a: numbers(d).pop("null"),
    },
    "zero_groups": {name: BRACKET[name] for name in ("dual raised", "primal lowered", "solution", "spread", "targets")}
    | {
        "swapped group": evidence("zero", lambda zero: np.r_[0, zero[1:]]),
        "one more": lambda d, a: (
            evidence("zero", lambda zero: np.r_[0, zero])(d, a),
            plus("n_zero", 1)(d, a),
            plus("n_left", -1)(d, a),
        ),
        "count": plus("n_zero", 1),
        "radius": times("radius", 0.5),
        "no such group": evidence("zero", lambda zero: zero + 100),
        "poisson": set_problem("loss", {"name": "poisson", "params": {}}),
    },
    "theorem_1_1": {name: BRACKET[name] for name in ("dual raised", "primal lowered", "solution", "spread", "targets")}
    | {
        "swapped group": put("active", "3"),
        "swapped proof": lambda d, a: (evidence("zero", lambda z: np.r_[0, z[1:]])(d, a), put("active", "1")(d, a)),
        "lam of the claim": times("lam", LOWERED),
        "lam": lambda d, a: (set_problem("lam", 0.3)(d, a), put("lam", 0.3)(d, a)),
        "none": lambda d, a: (put("active", "none")(d, a), put("n_left", 0)(d, a)),
    },
    "one_group_window": {
        "tau raised": times("tau", RAISED),
        "delta raised": times("delta", RAISED),
        "lam_low lowered": times("lam_low", LOWERED),
        "mu raised": lambda d, a: (times("mu", RAISED)(d, a), times("lam_low", LOWERED)(d, a)),
        "mu alone": times("mu", RAISED),
        "M alone": times("M", LOWERED),
        "swapped group": put("group", "1"),
        "no group": put("group", "x"),
        "targets": targets,
        "l1": set_problem("l1_ratio", 0.5),
        "multinomial": set_problem("loss", {"name": "multinomial", "params": {}}),
    },
    "one_group_kkt": {
        "slack": plus("slack", 1e-6),
        "solution": moved,
        "spread": spread,
        "swapped group": put("group", "1"),
        "lam": lambda d, a: (set_problem("lam", 0.3)(d, a), put("lam", 0.3)(d, a)),
        "targets": targets,
    },
    "regularizer": {
        "another q": set_problem("q", {"name": "LambertW", "params": {}}),
        "bounded": put("bounded", "proved"),
        "refuted": lambda d, a: (put("subadditive", "refuted")(d, a), put("subadditive_at", [1.0, 1.0])(d, a)),
        "verdict": lambda d, a: d["claims"][0].update(verdict="REFUTED"),
        "interval": put("lo", -1.0),
        "word": put("concave", "surely"),
        "threshold": put("ratio_peak", [1.0, 2.0]),
    },
    "stationarity": {
        "solution": moved,
        "spread": spread,
        "targets": targets,
        "proved": lambda d, a: d["claims"][0].update(verdict="PROVED"),
        "residual": put("residual", 1e-3),
        "tolerance": lambda d, a: d["claims"][0].update(tolerance=2.0),
        "scale": times("scale", 1e6),
        "active": plus("active", 1),
        "lam": set_problem("lam", 0.2),
    },
    "approximation": {
        "L2": times("L2", LOWERED),
        "L1": times("L1", 0.99),
        "mu": times("mu", 1.01),
        "R": plus("R", -1),
        "k": put("k", 2),
        "design": lambda d, a: a.update(X=a["X"] * np.r_[2.0, np.ones(23)]),
    },
    "exact_recovery": {
        "alpha": times("alpha", 1.01),
        "coherence": plus("coherence", -1e-6),
        "design": lambda d, a: a.update(X=X),
        "k": put("k", 1000000),
    },
}
CASES = [(kind, name) for kind, changes in FORGERIES.items() for name in changes]


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_a_forged_claim_is_refused(saved: Callable[[str], Path], tmp_path: Path, kind: str, name: str) -> None:
    found = verify(forge(saved(kind), tmp_path, FORGERIES[kind][name]))
    assert not found.ok, f"{name}: {found}"
    assert str(found).startswith("REFUSED")
    assert all(claim.sentence.endswith(".") and "malformed" not in claim.sentence for claim in found.claims), str(found)


def test_the_verifier_says_itself_what_is_assumed(saved: Callable[[str], Path], tmp_path: Path) -> None:
    """A radius that was made smaller never ends in an unconditional sentence."""
    for kind, sentence in {
        "best_subset": "no radius is needed: the ridge",
        "radii": "the radii are proved",
        "orthogonal": "no radius is needed: the dual points",
        "perfect": "losses are never negative, so nothing is assumed",
    }.items():
        assert sentence in str(verify(saved(kind)))
        assert "radii of the claim" not in str(verify(saved(kind)))

    def shrunk(d: dict[str, Any], a: dict[str, Any]) -> None:
        inside = np.linalg.norm(a["w"].reshape(6, 4), axis=1) + 0.01
        a["claim0_radius"] = inside
        numbers(d)["radius"] = "assumed"
        d["claims"][0]["not_proved"] = []
        d["claims"][0]["statement"] = "Proved for all coefficients."

    found = verify(forge(saved("radii"), tmp_path, shrunk))
    assert found.ok
    assert "the radii are assumed" in str(found)
    assert "with ||w_g|| <= M_g, the radii of the claim," in str(found)


@pytest.mark.parametrize("loss", ["logistic", "poisson", "multinomial"])
def test_choices_by_other_losses_need_no_radius(tmp_path: Path, loss: str) -> None:
    noise = np.random.default_rng(3).standard_normal((40, 24))
    save_report(unconditional(loss, 1, X=noise), tmp_path / "c.json")
    found = verify(tmp_path / "c.json")
    assert found.ok, str(found)
    assert "no radius is needed: the dual points" in str(found)


def test_a_leaf_of_unknown_bound_is_not_forgotten() -> None:
    from sparseopt.certificates.balls import arb
    from sparseopt.certificates.choices import _least

    for values in ([arb("nan"), arb(1)], [arb(1), arb("nan")], [arb(1), arb("nan"), arb(2)]):
        assert not _least(values) >= 0.5
    assert _least([arb(3), arb(1), arb(2)]) == 1


@pytest.mark.parametrize("kind", REPORTS)
def test_an_altered_array_is_refused_by_its_hash(saved: Callable[[str], Path], tmp_path: Path, kind: str) -> None:
    def touched(document: dict[str, Any], arrays: dict[str, Any]) -> None:
        arrays["y"][0] = np.nextafter(arrays["y"][0], np.inf)

    found = verify(forge(saved(kind), tmp_path, touched, fit=False))
    assert not found.ok
    assert "hash" in str(found)


def test_a_claim_of_no_known_kind_is_refused(saved: Callable[[str], Path], tmp_path: Path) -> None:
    found = verify(forge(saved("duality_gap"), tmp_path, lambda d, a: d["claims"][0].update(kind="trust_me")))
    assert "knows no claim" in str(found)


def test_one_false_claim_among_true_ones_is_enough(tmp_path: Path) -> None:
    given = report(lasso(), duality_gap, zero_groups, stationarity)
    save_report(given, tmp_path / "all.json")
    assert verify(tmp_path / "all.json").ok

    def raised(d: dict[str, Any], a: dict[str, Any]) -> None:
        d["claims"][1]["numbers"]["dual"] *= RAISED

    found = verify(forge(tmp_path / "all.json", tmp_path, raised))
    assert [claim.outcome for claim in found.claims] == ["verified", "refused", "verified"]
    assert not found


# -- files -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", REPORTS)
def test_round_trip(saved: Callable[[str], Path], tmp_path: Path, kind: str) -> None:
    first = load_report(saved(kind))
    save_report(first, tmp_path / "again.json")
    again = load_report(tmp_path / "again.json")
    for one, other in zip(first, again, strict=True):
        assert (one.kind, one.statement, one.verdict, one.numbers) == (
            other.kind,
            other.statement,
            other.verdict,
            other.numbers,
        )
        assert (one.tolerance, one.not_proved) == (other.tolerance, other.not_proved)
        assert {n: digest(x) for n, x in one.evidence.items()} == {n: digest(x) for n, x in other.evidence.items()}
    assert first.problem.value(first.w, first.b) == again.problem.value(again.w, again.b)
    assert first.problem.groups == again.problem.groups
    assert verify(tmp_path / "again.json").ok


@pytest.mark.parametrize("loss", TARGETS)
def test_problems_come_back(tmp_path: Path, loss: str) -> None:
    problem = lasso(loss, X=csc_array(np.where(X > 0.5, X, 0.0)), penalty="mcp", ridge=0.1, l1_ratio=0.2)
    w = RNG.standard_normal((24, problem.n_outputs)).squeeze()
    save_report(Report(problem, w, np.zeros(problem.n_outputs), ()), tmp_path / "p.json")
    back = load_report(tmp_path / "p.json")
    assert back.problem.value(back.w, back.b) == problem.value(w, 0.0)
    assert back.problem.penalty.q == problem.penalty.q


def test_numbers_come_back_exactly(tmp_path: Path) -> None:
    given = {"a": 0.1 + 0.2, "inf": np.inf, "low": -np.inf, "n": np.int64(3), "list": [1.0, np.inf], "word": "none"}
    claim = Certificate("x", "", Verdict.FAILED, given, 1e-300)
    save_report(Report(lasso(), np.zeros(24), 0.0, (claim,)), tmp_path / "n.json")
    document, _ = read(tmp_path / "n.json")
    assert document["claims"][0]["numbers"] == given
    assert document["claims"][0]["tolerance"] == 1e-300


@regularizer_class
class Own(NamedTuple):
    """A regularizer that is not of the package."""

    eps: float = 1.0

    def value(self, u: Any) -> Any:
        return log1p(u / self.eps)

    def slope(self, u: Any) -> Any:
        return 1.0 / (self.eps + u)

    def prox(self, u: Any, t: Any) -> Any:
        return LogSum(self.eps).prox(u, t)

    def slope_at_zero(self) -> float:
        return 1.0 / self.eps

    def increasing(self) -> bool:
        return True

    def subadditive(self) -> bool:
        return True


def test_a_regularizer_of_ones_own_must_be_passed(tmp_path: Path) -> None:
    problem = lasso(penalty=Own(0.5), composite=True)
    save_report(report(problem, optimality_gap, regularizer), tmp_path / "own.json")
    with pytest.raises(ValueError, match="pass it as q"):
        load_report(tmp_path / "own.json")
    assert load_report(tmp_path / "own.json", q=Own(0.5)).problem.penalty.q == Own(0.5)
    found = verify(tmp_path / "own.json")
    assert not found.ok
    assert "no formula" in str(found)


MALFORMED: dict[str, Callable[[Path], Any]] = {
    "no file": lambda path: path.unlink(),
    "empty": lambda path: path.write_text(""),
    "truncated": lambda path: path.write_text(path.read_text()[:-50]),
    "binary": lambda path: path.write_bytes(b"\xff\xfe\x00"),
    "a list": lambda path: path.write_text("[]"),
    "another format": lambda path: path.write_text('{"format": "x"}'),
    "NaN": lambda path: path.write_text(path.read_text().replace('"lam": ', '"lam": NaN, "x": ', 1)),
    "deep": lambda path: path.write_text("[" * 100000),
    "version": lambda path: path.write_text(path.read_text().replace('"version": 1', '"version": 2')),
    "no arrays": lambda path: path.with_suffix(".npz").unlink(),
    "arrays cut": lambda path: path.with_suffix(".npz").write_bytes(path.with_suffix(".npz").read_bytes()[:300]),
    "arrays empty": lambda path: path.with_suffix(".npz").write_bytes(b""),
    "not a zip": lambda path: path.with_suffix(".npz").write_bytes(b"PK\x03\x04 nonsense"),
    "other place": lambda path: path.write_text(path.read_text().replace('"file": "', '"file": "../')),
    "pickle": lambda path: np.savez(path.with_suffix(".npz"), w=np.array([{}], dtype=object)),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_files_are_refused_in_one_sentence(saved: Callable[[str], Path], tmp_path: Path, name: str) -> None:
    path = forge(saved("duality_gap"), tmp_path, lambda d, a: None)
    MALFORMED[name](path)
    with pytest.raises(ValueError, match=r"^forged\.(json|npz) .*\.$"):
        read(path)
    found = verify(path)
    assert not found.ok
    assert found.claims[0].kind == "file"


BENT: dict[str, Change] = {
    "no problem": lambda d, a: d.pop("problem"),
    "claims": lambda d, a: d.update(claims={}),
    "a claim": lambda d, a: d["claims"].append(3),
    "no lam": lambda d, a: d["problem"].pop("lam"),
    "lam": set_problem("lam", -1.0),
    "lam is true": set_problem("lam", True),
    "l1_ratio": set_problem("l1_ratio", 2.0),
    "loss": set_problem("loss", {"name": "hinge", "params": {}}),
    "labels": set_problem("loss", {"name": "logistic", "params": {}}),
    "lost evidence": lambda d, a: a.pop("claim0_A"),
    "lost X": lambda d, a: a.pop("X"),
    "shape of y": lambda d, a: a.update(y=a["y"][1:]),
    "w": lambda d, a: a.update(w=a["w"][1:]),
    "nan": lambda d, a: a.update(w=a["w"] * np.nan),
    "weights": lambda d, a: a.update(s=-a["s"]),
    "groups overlap": lambda d, a: a.update(group_indices=np.zeros_like(a["group_indices"])),
    "group cuts": lambda d, a: a.update(group_indptr=a["group_indptr"][::-1].copy()),
    "names": lambda d, a: d["problem"]["names"].pop(),
    "text": lambda d, a: a.update(w=np.array(["x"] * 24)),
}


@pytest.mark.parametrize("name", BENT)
def test_bent_contents_are_refused_in_one_sentence(saved: Callable[[str], Path], tmp_path: Path, name: str) -> None:
    path = forge(saved("duality_gap"), tmp_path, BENT[name])
    with pytest.raises(ValueError, match=r"^forged\.json .*\.$"):
        read(path)
    assert not verify(path).ok


def test_the_name_must_end_in_json(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"saved as \.json"):
        save_report(Report(lasso(), np.zeros(24), 0.0, ()), tmp_path / "x.pkl")


# -- speed -------------------------------------------------------------------------------------------------------------


def test_a_large_group_lasso_is_verified_quickly(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    big = rng.standard_normal((200, 1000))
    problem = Problem.build(big, big[:, :10].sum(axis=1) + rng.standard_normal(200), 5, lam=0.3)
    at = solve(problem, tol=1e-12)
    given = [maker(problem, at.w, at.intercept) for maker in (duality_gap, zero_groups, one_group_window)]
    save_report(Report(problem, at.w, at.intercept, tuple(given)), tmp_path / "big.json")
    start = time.perf_counter()
    found = verify(tmp_path / "big.json")
    assert found.ok, str(found)
    assert time.perf_counter() - start < 20.0  # about 0.5 s on an idle machine
    assert found.claims[0].gap is not None
    assert found.claims[0].gap < 1e-10


def test_the_verifier_imports_no_maker(root: Path) -> None:
    """It shares no formula with what it checks."""
    import ast

    allowed = {"balance", "balls", "choices", "exact", "files", "hypotheses", "tolerance", "windows"}
    for name in allowed - {"files"} | {"verify"}:
        tree = ast.parse((root / "sparseopt" / "certificates" / f"{name}.py").read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("sparseopt"):
                assert node.module in {f"sparseopt.certificates.{x}" for x in allowed}, node.module
