"""A certificate that was tampered with is refused, hashes made to fit or not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from verified_cases import (
    REPORTS,
    Change,
    X,
    forge,
    lasso,
    numbers,
    plus,
    put,
    report,
    saved_in,
    set_problem,
    times,
    unconditional,
)

from sparseopt.certificates import duality_gap, stationarity, zero_groups
from sparseopt.certificates.files import save_report

pytest.importorskip("flint")
from sparseopt.certificates.verify import verify


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    return saved_in(tmp_path_factory.mktemp("reports"))


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
