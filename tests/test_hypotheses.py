"""Hypotheses of regularizers in ball arithmetic, with mpmath as the oracle."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from sparseopt import (
    L0,
    L2,
    MCP,
    SCAD,
    Arctan,
    AtMost,
    Capped,
    Expm1Mask,
    Groups,
    LambertW,
    Laplace,
    LogSum,
    Penalty,
    Power,
    Problem,
    Scaled,
    Squares,
    TransformedL1,
    as_design,
    regularizer,
)
from sparseopt.certificates import Report, Verdict
from sparseopt.certificates.files import save_report
from sparseopt.certificates.regularizers import examine
from sparseopt.certificates.regularizers import regularizer as certificate_of
from sparseopt.scalar import exp, expm1, log, log1p, maximum, minimum, sin, sqrt, where

pytest.importorskip("flint")
mp = pytest.importorskip("mpmath")
from sparseopt.certificates.balls import arb, bits, curve  # noqa: E402
from sparseopt.certificates.verify import verify  # noqa: E402

STRICT = [
    L2(),
    Power(0.5),
    Power(0.3),
    LogSum(0.1),
    LogSum(3.0),
    Expm1Mask(),
    TransformedL1(0.7),
    Laplace(2.0),
    Arctan(0.5),
]
FLAT = [MCP(3.0), SCAD(1.0, 3.7), SCAD(0.3, 2.1), Capped(0.7), L0()]


def words(q: Any) -> dict[str, Any]:
    return {
        "name": type(q).__name__,
        "params": {name: words(x) if isinstance(x, tuple) else x for name, x in zip(q._fields, q, strict=True)},
    }


def truth(q: Any, u: Any) -> Any:
    """q(u) by mpmath, from the definitions."""
    u = mp.mpf(u)
    if isinstance(q, Scaled):
        return q.lam * truth(q.q, u / q.lam)
    if isinstance(q, LambertW):
        w = mp.lambertw(2 * u * u).real / 2
        return w * w + w
    if isinstance(q, Expm1Mask):  # min over w >= 0 of w^2 + u^2 / (e^w - 1)^2, at a root of the derivative
        pull = lambda t: t + 3 * mp.log(mp.expm1(mp.exp(t))) - 2 * mp.log(u) - mp.exp(t)  # noqa: E731
        w = mp.exp(mp.findroot(pull, (-30, 4), solver="ridder"))
        return w * w + u * u / mp.expm1(w) ** 2
    return {
        L2: lambda: u,
        L0: lambda: mp.mpf(u > 0),
        Power: lambda: u ** mp.mpf(getattr(q, "p", 1)),
        LogSum: lambda: mp.log1p(u / mp.mpf(getattr(q, "eps", 1))),
        TransformedL1: lambda: (1 + mp.mpf(q.c)) * u / (mp.mpf(q.c) + u),
        Laplace: lambda: -mp.expm1(-u / mp.mpf(q.s)),
        Arctan: lambda: mp.atan(u / mp.mpf(q.s)),
        Capped: lambda: min(u, mp.mpf(q.theta)),
        MCP: lambda: u - u * u / (2 * mp.mpf(q.gamma)) if u < q.gamma else mp.mpf(q.gamma) / 2,
        SCAD: lambda: _scad(mp.mpf(q.kappa), mp.mpf(q.theta), u),
    }[type(q)]()


def _scad(k: Any, theta: Any, u: Any) -> Any:
    if u <= k:
        return u
    return u - (u - k) ** 2 / (2 * (theta - 1) * k) if u <= theta * k else k * (theta + 1) / 2


@pytest.mark.parametrize("q", [*STRICT, *FLAT, LambertW(), Scaled(MCP(3.0), 0.3), Scaled(Expm1Mask(), 2.5)], ids=str)
def test_balls_contain_the_true_values(q: Any) -> None:
    with bits(), mp.workdps(60):
        found = curve(words(q))
        for u in (1e-4, 0.03, 0.3, 0.7, 1.0, 2.5, 3.0, 17.0, 400.0):
            ball, exact = found.value(arb(u)), truth(q, u)
            assert ball.overlaps(arb(mp.nstr(exact, 50))), u
            assert float(ball.rad()) <= 1e-25 * max(float(exact), 1.0)
            if found.strict and not q.bounded():
                assert found.inverse(ball).contains(arb(u))


@pytest.mark.parametrize("q", STRICT, ids=str)
def test_what_theorem_1_1_needs_is_proved(q: Any) -> None:
    found = examine(q)
    assert [found[name] for name in ("increasing", "concave", "subadditive")] == ["proved"] * 3
    assert (found["bounded"] == "proved") == q.bounded()


@pytest.mark.parametrize("q", FLAT, ids=str)
def test_constants_are_not_increasing(q: Any) -> None:
    found = examine(q)
    assert [found[name] for name in ("concave", "subadditive", "bounded")] == ["proved"] * 3
    assert found["increasing"] == "refuted"
    a, b = found["increasing_at"]
    assert a < b
    assert truth(q, b) <= truth(q, a)
    assert examine(q, 1e-3, 0.2)["increasing"] == ("refuted" if isinstance(q, L0) else "proved")


def test_lambert_w_is_refuted_with_its_thresholds() -> None:
    found = examine(LambertW())
    assert found["increasing"] == "proved"
    assert found["concave"] == found["subadditive"] == "refuted"
    q = LambertW()
    with mp.workdps(50):
        a, b = found["subadditive_at"]
        assert truth(q, a) + truth(q, b) < truth(q, a + b)
        assert (a, b) == (1.0, 1.0)
        assert mp.almosteq(truth(q, 2) - 2 * truth(q, 1), mp.mpf("0.23149046699"), 1e-10)
        a, b = found["concave_at"]
        assert (truth(q, a) + truth(q, b)) / 2 > truth(q, (mp.mpf(a) + b) / 2)
        for name, place in {
            "convex_up_to": mp.sqrt(mp.e / 2),
            "diagonal": mp.findroot(lambda u: truth(q, 2 * u) - 2 * truth(q, u), 1.94),
            "ratio_peak": mp.e,
        }.items():
            low, high = found[name]
            assert low <= place <= high, name
            assert high <= low * (1.0 + 1e-12)
        assert mp.almosteq(mp.mpf(found["diagonal"][0]), mp.mpf("1.939210064214306"), 1e-14)


def test_scaling_changes_nothing_but_the_places() -> None:
    found = examine(Scaled(LambertW(), 0.5))
    assert found["concave"] == found["subadditive"] == "refuted"
    assert found["ratio_peak"][0] == pytest.approx(0.5 * math.e, rel=1e-14)
    assert examine(Scaled(LogSum(1.0), 7.0))["subadditive"] == "proved"


# -- regularizers of one's own -----------------------------------------------------------------------------------------


def own(value: Any) -> Any:
    """A regularizer with this value; the other methods do not matter here."""

    @regularizer
    class Own(NamedTuple):
        def value(self, u):  # type: ignore[no-untyped-def]
            return value(u)

        def slope(self, u):  # type: ignore[no-untyped-def]
            return 1.0 + 0.0 * u

        def prox(self, u, t):  # type: ignore[no-untyped-def]
            return u

        def slope_at_zero(self):  # type: ignore[no-untyped-def]
            return 1.0

    return Own()


PROVED: dict[str, Any] = {
    "log": lambda u: log1p(u / 0.3),
    "log of a sum": lambda u: log(0.5 + u) - math.log(0.5),
    "root": lambda u: sqrt(u),
    "power": lambda u: u**0.25,
    "fraction": lambda u: u / (2.0 + u),
    "negative power": lambda u: 1.0 - (1.0 + u) ** -2,
    "exponential": lambda u: 1.0 - exp(-u / 1e3) + 1e-3 * u,
    "expm1": lambda u: u - expm1(-u),
    "sum": lambda u: 0.1 * u + u**0.5 + log1p(u),
    "number by number": lambda u: np.float64(2.0) * u,
    "a branch that is decided": lambda u: where(u < 1e-9, u, log1p(u)),
}


@pytest.mark.parametrize("name", PROVED)
def test_a_concave_text_is_proved(name: str) -> None:
    found = examine(own(PROVED[name]), 1e-2, 50.0)
    assert [found.get(x) for x in ("increasing", "concave", "subadditive")] == ["proved"] * 3, found


def test_subadditive_and_not_concave_is_left_open() -> None:
    found = examine(own(lambda u: 2.0 * u + maximum(sin(u), -sin(u))), 0.1, 20.0)
    assert found["increasing"] == "proved"
    assert found["concave"] == "refuted"
    assert found["subadditive"] == "open"
    assert examine(own(lambda u: 2.0 * u + abs(sin(u))), 0.1, 20.0) == found


def test_superadditive_is_refuted() -> None:
    found = examine(own(lambda u: u * u), 0.1, 10.0)
    assert found["increasing"] == "proved"
    assert found["concave"] == found["subadditive"] == "refuted"
    a, b = found["subadditive_at"]
    assert a * a + b * b < (a + b) ** 2


BROKEN: dict[str, tuple[Any, str]] = {
    "a jump down": (lambda u: where(u < 1.0, u, u - 0.5), "increasing"),
    "a jump down, closed": (lambda u: where(u <= 1.0, u, u - 0.5), "increasing"),
    "a convex bend": (lambda u: u + maximum(u - 1.0, 0.0), "concave"),
    "a convex bend as a branch": (lambda u: where(u < 1.0, u, 2.0 * u - 1.0), "concave"),
    "a short dip": (lambda u: u - 2e-3 * exp(-(((u - 3.3) * 1e3) ** 2)), "increasing"),
    "a short bend": (lambda u: log1p(u) + 1e-9 * exp(-(((u - 3.3) * 1e4) ** 2)), "concave"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_false_is_never_proved(name: str) -> None:
    value, false = BROKEN[name]
    found = examine(own(value), 0.1, 10.0)
    assert found[false] != "proved"
    assert false != "concave" or found["subadditive"] != "proved"


def test_a_concave_bend_is_not_proved_and_not_refuted() -> None:
    found = examine(own(lambda u: minimum(u, 0.5 + 0.5 * u)), 0.1, 10.0)
    assert found["increasing"] == "proved"
    assert found["concave"] == "open"


def test_a_text_that_branches_by_if_cannot_be_read() -> None:
    found = examine(own(lambda u: u if u < 1.0 else 1.0 + log(u)), 0.1, 10.0)
    assert "where" in found["unreadable"]


# -- certificates ------------------------------------------------------------------------------------------------------


def problem_of(q: Any) -> Problem:
    return Problem.build(np.eye(2), [2.0, 0.1], penalty=q, lam=0.5, intercept=False)


@pytest.mark.parametrize("q", [*STRICT, *FLAT, LambertW(), Scaled(MCP(3.0), 0.3)], ids=str)
def test_every_certificate_is_verified(tmp_path: Path, q: Any) -> None:
    problem = problem_of(q)
    claim = certificate_of(problem)
    assert claim.verdict is (Verdict.PROVED if any(q is x for x in STRICT) else Verdict.REFUTED)
    save_report(Report(problem, np.zeros(2), 0.0, (claim,)), tmp_path / "q.json")
    found = verify(tmp_path / "q.json")
    assert found.ok, str(found)


def test_no_regularizer() -> None:
    problem = Problem(as_design(np.eye(2)), Squares.of([1.0, 2.0]), AtMost(Groups.equal(2), 1))
    assert certificate_of(problem).verdict is Verdict.NOT_APPLICABLE


def test_a_text_that_cannot_be_read_fails() -> None:
    odd = own(lambda u: u if u < 1.0 else 1.0 + log(u))
    problem = Problem(as_design(np.eye(2)), Squares.of([1.0, 2.0]), Penalty(odd, Groups.equal(2), 0.1))
    assert certificate_of(problem).verdict is Verdict.FAILED


def test_the_interval_is_checked() -> None:
    with pytest.raises(ValueError, match="no interval"):
        examine(L2(), 1.0, 0.5)


def test_without_flint_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "flint", None)
    for name in ("balls", "hypotheses"):
        monkeypatch.delitem(sys.modules, f"sparseopt.certificates.{name}", raising=False)
    with pytest.raises(ImportError, match=r"sparseopt\[verify\]"):
        examine(L2())
