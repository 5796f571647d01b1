"""The numbers of the theory, and independent oracles: definitions, high precision, other formulas, random rivals."""

from __future__ import annotations

import math

import hypothesis.strategies as st
import mpmath
import numpy as np
import pytest
from hypothesis import example, given, settings
from scipy.optimize import brentq, minimize_scalar

from sparseopt.regularizers import (
    L0,
    L2,
    MCP,
    SCAD,
    Arctan,
    Capped,
    Expm1Mask,
    LambertW,
    Laplace,
    LogSum,
    Power,
    Scaled,
    TransformedL1,
)


def leaves(q, t: float, low: float, high: float) -> float:
    """The norm in [low, high] at which the prox has its largest jump."""
    for _ in range(10):
        u = np.linspace(low, high, 101)
        k = int(np.argmax(np.diff(q.prox(u, t))))
        low, high = u[k], u[k + 1]
    return float(low)


# q, t, the norm where the prox jumps, and its values below and above.
JUMPS = [
    (LogSum(1.0), 4.0, 3.187043, 0.0, 1.712256),
    (Laplace(0.5), 1.0, 1.357350, 0.0, 1.161322),
    (LambertW(), 20.0, 17.03413, 0.74943, 8.23704),
    (Power(0.5), 1.0, 1.5, 0.0, 1.0),
    (Power(0.5), 8.0, 6.0, 0.0, 4.0),
    (Power(2.0 / 3.0), 1.5, 2.0, 0.0, 1.0),
    (Power(0.25), 2.0, 3.0 ** (4 / 7) * 1.75 / 1.5, 0.0, 3.0 ** (4 / 7)),
    (TransformedL1(1.0), 1.0, 1.5, 0.0, 1.0),
    (L0(), 2.0, 2.0, 0.0, 2.0),
    (MCP(4.0), 9.0, 6.0, 0.0, 6.0),
    (Capped(1.0), 1.0, 1.5, 0.5, 1.5),
    (Capped(1.0), 8.0, 4.0, 0.0, 4.0),
]


@pytest.mark.parametrize(("q", "t", "at", "below", "above"), JUMPS)
def test_jumps(q, t: float, at: float, below: float, above: float) -> None:
    found = leaves(q, t, 0.5 * at, 2.0 * at)
    assert found == pytest.approx(at, abs=2e-6)
    assert q.prox(found * (1.0 - 1e-9), t) == pytest.approx(below, abs=2e-5)
    assert q.prox(found * (1.0 + 1e-9), t) == pytest.approx(above, abs=2e-5)


@pytest.mark.parametrize(
    ("q", "u", "t"),
    [(L0(), 2.0, 2.0), (MCP(4.0), 6.0, 9.0), (Capped(1.0), 4.0, 8.0), (Power(0.5), 1.5, 1.0)],
)
def test_ties_go_to_the_smaller(q, u: float, t: float) -> None:
    assert q.prox(u, t) == 0.0
    assert q.prox(math.nextafter(u, math.inf) * (1.0 + 1e-15), t) > 0.0


def test_a_tie_between_positive_norms_goes_to_the_smaller() -> None:
    assert Capped(1.0).prox(1.5, 1.0) == 0.5


# Below these steps the prox is continuous and leaves 0 at t q'(0+).
@pytest.mark.parametrize(
    ("q", "t"),
    [(LogSum(0.5), 0.25), (TransformedL1(2.0), 2.0 / 3.0), (Laplace(0.5), 0.25), (Arctan(0.5), 0.38), (SCAD(), 2.0)],
)
def test_a_continuous_prox_leaves_zero_at_the_slope(q, t: float) -> None:
    edge = t * q.slope_at_zero()
    assert q.prox(edge * (1.0 - 1e-12), t) == 0.0
    assert 0.0 < q.prox(edge * (1.0 + 1e-6), t) < 0.02 * edge


@pytest.mark.parametrize("t", [1e-8, 1e-3, 0.1, 1.0, 10.0])
def test_expm1_jumps_below_twice_the_step(t: float) -> None:
    q = Expm1Mask()
    at = brentq(lambda u: 1.0 if q.prox(u, t) > 0.0 else -1.0, 0.1 * t, 2.0 * t, xtol=1e-15 * t)
    above = q.prox(at * (1.0 + 1e-12), t)
    # The gain of the jump is nothing: q(v) = v (u - v / 2) / t there.
    assert t * q.value(above) == pytest.approx(above * (at - 0.5 * above), rel=1e-9)
    assert above > 1e-3 * t * at


def test_lambert_w_thresholds() -> None:
    q = LambertW()
    same = brentq(lambda a: q.value(2.0 * a) - 2.0 * q.value(a), 1.5, 2.5, xtol=1e-15)
    assert same == pytest.approx(1.939210064214306, abs=1e-12)
    assert q.value(same) == pytest.approx(1.39858362, abs=1e-8)
    assert q.value(math.e) == pytest.approx(2.0, abs=1e-15)
    bend = math.sqrt(math.e / 2.0)
    assert q.slope(bend) == pytest.approx(math.sqrt(2.0 / math.e), abs=1e-15)
    assert q.slope(bend) > max(q.slope(bend - 1e-4), q.slope(bend + 1e-4))
    bent = minimize_scalar(
        lambda u: (q.slope(u + 1e-4) - q.slope(u - 1e-4)) / 2e-4, bounds=(bend, 20.0), method="bounded"
    )
    assert -bent.fun == pytest.approx(q.weak_convexity(), rel=1e-6)
    assert 1.0 / q.weak_convexity() == pytest.approx(10.547212, abs=1e-6)
    for terms, defect in ((2, math.log(2.0) ** 2 / 2.0), (5, 5.0 * math.log(5.0) ** 2 / 16.0)):
        w = math.log(terms) / (2.0 * (terms - 1))
        a = math.sqrt(w) * math.exp(w)
        assert q.value(terms * a) - terms * q.value(a) == pytest.approx(defect, abs=1e-12)


def test_lambert_w_is_superadditive_up_to_e() -> None:
    rng = np.random.default_rng(0)
    shares = rng.dirichlet(np.ones(3), size=2000) * rng.uniform(0.01, math.e, size=(2000, 1))
    assert (LambertW().value(shares).sum(axis=1) < LambertW().value(shares.sum(axis=1))).all()


def test_masks_are_what_they_minimise() -> None:
    """q(u) = min over w of w^2 + u^2 / m(w)^2, minimised in 30 digits."""
    with mpmath.workdps(30):
        for u in map(mpmath.mpf, (1e-3, 0.1, 0.9, 2.0, 30.0, 1e4)):
            for q, mask in ((LambertW(), mpmath.exp), (Expm1Mask(), mpmath.expm1)):

                def objective(w, u=u, mask=mask):
                    return w**2 + (u / mask(w)) ** 2

                def slope(w, objective=objective):
                    return mpmath.diff(objective, w)

                far = mpmath.log1p(u) + 1
                w = mpmath.findroot(slope, (far / 10**4, far), solver="anderson", tol=1e-40)
                assert q.value(float(u)) == pytest.approx(float(objective(w)), rel=1e-14)


@pytest.mark.parametrize(("s", "u", "t"), [(1.0, 3.0, 2.0), (0.5, 1.4, 1.0), (2.0, 1.2, 2.0), (0.1, 5.0, 3.0)])
def test_laplace_prox_is_lamberts(s: float, u: float, t: float) -> None:
    root = u + s * float(mpmath.lambertw(-t / s**2 * mpmath.exp(-u / s)).real)
    assert Laplace(s).prox(u, t) == pytest.approx(root, rel=1e-12)


@pytest.mark.parametrize("p", [0.5, 2.0 / 3.0])
def test_closed_forms_of_powers_meet_newtons_steps(p: float) -> None:
    u = np.geomspace(0.01, 100.0, 200)
    for t in (0.01, 1.0, 7.0):
        np.testing.assert_allclose(Power(p).prox(u, t), Power(p * (1.0 + 1e-12)).prox(u, t), rtol=1e-10)


def test_log_sum_roots_are_polynomial_roots() -> None:
    u, t, eps = 5.0, 2.0, 0.3
    assert LogSum(eps).prox(u, t) == pytest.approx(max(np.roots([1.0, eps - u, t - u * eps])), rel=1e-14)
    assert Arctan(1.0).prox(3.0, 0.8) == pytest.approx(max(np.roots([1.0, -3.0, 1.0, 0.8 - 3.0]).real), rel=1e-13)


@given(lam=st.floats(0.05, 5.0), gamma=st.floats(1.1, 10.0), u=st.floats(0.0, 30.0))
def test_scaled_is_the_literatures_mcp(lam: float, gamma: float, u: float) -> None:
    value = lam * u - u * u / (2.0 * gamma) if u <= gamma * lam else gamma * lam**2 / 2.0
    assert lam * Scaled(MCP(gamma), lam).value(u) == pytest.approx(value, rel=1e-12, abs=1e-300)


@given(lam=st.floats(0.05, 5.0), a=st.floats(2.1, 10.0), z=st.floats(0.0, 30.0))
def test_scaled_is_the_literatures_scad(lam: float, a: float, z: float) -> None:
    """Fan and Li's rule, equation (2.8), for step 1."""
    if z <= 2.0 * lam:
        rule = max(z - lam, 0.0)
    elif z <= a * lam:
        rule = ((a - 1.0) * z - a * lam) / (a - 2.0)
    else:
        rule = z
    assert Scaled(SCAD(1.0, a), lam).prox(z, lam) == pytest.approx(rule, rel=1e-9, abs=1e-12)


PARAMETERS = st.floats(0.02, 50.0)
ANY = st.one_of(
    st.sampled_from([L2(), L0(), LambertW(), Expm1Mask()]),
    st.floats(0.02, 0.98).map(Power),
    PARAMETERS.map(LogSum),
    PARAMETERS.map(MCP),
    st.builds(SCAD, PARAMETERS, st.floats(1.05, 20.0)),
    PARAMETERS.map(Capped),
    PARAMETERS.map(TransformedL1),
    PARAMETERS.map(Laplace),
    PARAMETERS.map(Arctan),
)
NORM = st.floats(0.0, 100.0)
STEP = st.floats(-9.0, 9.0).map(lambda power: 2.0**power)


@given(q=ANY, u=NORM, t=STEP, rival=st.floats(0.0, 1.0))
@settings(max_examples=500)
def test_prox_beats_any_rival(q, u: float, t: float, rival: float) -> None:
    v = q.prox(u, t)
    for w in (rival * u, v + rival * (u - v), v * rival):
        excess = 0.5 * (v - w) * (v + w - 2.0 * u) + t * (q.value(v) - q.value(w))
        assert excess <= 1e-11 * u * u + 1e-290


@given(q=ANY, u=NORM, t=STEP, share=st.floats(0.0, 1.2), rival=st.floats(0.0, 1.0))
@example(q=TransformedL1(6.537277601039191), u=54.0, t=1.0, share=0.25, rival=0.5)  # derivative 1e30 at the end
@settings(max_examples=500)
def test_lifted_prox_beats_any_rival(q, u: float, t: float, share: float, rival: float) -> None:
    rest = share * min(q.ceiling(), q.value(5.0))
    knot = q.inverse(q.ceiling()) if q.bounded() and not q.increasing() else math.inf
    found = q.lifted_prox(u, t, rest)
    assert 0.0 <= found <= u

    def objective(v: float) -> float:
        if rest == 0.0:
            phi = v
        elif isinstance(q, Laplace):  # 1 - exp(-v / s) loses the tail
            used = math.exp(min(v / q.s + math.log(rest), 1.0))
            phi = v - q.s * math.log1p(-used) if used < 1.0 else math.inf
        else:
            phi = q.inverse(q.value(v) + rest)
        return 0.5 * (v - u) ** 2 + t * phi

    # One rounding inside the domain of phi, where phi may be steep.
    mine = min(objective(found), objective(found * (1.0 - 1e-12)))
    for v in (0.0, rival * min(u, knot), rival * found, found + rival * (min(u, knot) - found)):
        theirs = objective(v)
        assert theirs == math.inf or mine <= theirs + 1e-9 * (u * u + t * theirs)


@given(q=ANY, share=st.floats(1e-6, 0.999))
def test_inverse_undoes_value(q, share: float) -> None:
    v = share * min(q.ceiling(), q.value(1e3))
    if not isinstance(q, L0):
        assert q.value(q.inverse(v)) == pytest.approx(v, rel=2e-14)


@given(q=ANY, lam=st.floats(0.05, 20.0), u=NORM, t=STEP)
def test_scaled_is_a_change_of_units(q, lam: float, u: float, t: float) -> None:
    scaled = Scaled(q, lam)
    v = scaled.prox(u, t)
    best = lam * q.prox(u / lam, t / lam)
    excess = 0.5 * (v - best) * (v + best - 2.0 * u) + t * lam * (q.value(v / lam) - q.value(best / lam))
    assert abs(excess) <= 1e-12 * u * u + 1e-290
    assert scaled.value(u) == pytest.approx(lam * q.value(u / lam), rel=1e-14)


# Closed forms of phi(v) = q^-1(q(v) + c) in the table of the theory.
@pytest.mark.parametrize(
    ("q", "phi"),
    [
        (L2(), lambda v, c: v + c),
        (LogSum(0.7), lambda v, c: math.exp(c) * v + 0.7 * (math.exp(c) - 1.0)),
        (Power(0.5), lambda v, c: v + 2.0 * c * math.sqrt(v) + c * c),
        (TransformedL1(2.0), lambda v, c: 2.0 * ((3.0 + c) * v + 2.0 * c) / (2.0 * (3.0 - c) - c * v)),
        (Laplace(1.5), lambda v, c: -1.5 * math.log(math.exp(-v / 1.5) - c)),
        (Arctan(0.5), lambda v, c: 0.5 * (v + 0.5 * math.tan(c)) / (0.5 - math.tan(c) * v)),
        (MCP(3.0), lambda v, c: 3.0 - math.sqrt((3.0 - v) ** 2 - 6.0 * c)),
    ],
    ids=lambda value: repr(value) if isinstance(value, tuple) else "phi",
)
def test_lifting_has_its_closed_form(q, phi) -> None:
    for v in (0.0, 0.1, 0.45):
        for c in (0.05, 0.3):
            assert q.inverse(q.value(v) + c) == pytest.approx(phi(v, c), rel=1e-12)


def test_lifted_prox_of_log_sum_is_a_weighted_soft_threshold() -> None:
    assert LogSum(0.7).lifted_prox(3.0, 0.5, 0.4) == pytest.approx(3.0 - 0.5 * math.exp(0.4), rel=1e-15)
    assert LogSum(0.7).lifted_prox(3.0, 0.5, 1e6) == 0.0
    assert Power(0.01).lifted_prox(3.0, 0.5, 1e6) == 0.0


def test_lifted_prox_at_the_edges_of_floating_point() -> None:
    # The slope (rest / v^p)^(1 / p - 1) is about 1000 although phi(0) overflows.
    assert Power(0.99).lifted_prox(1e8, 1e-10, 1e307) == pytest.approx(1e8, rel=1e-9)
    # phi(v) = v up to the knot, but next to it the slope of the inverse is lost to rounding.
    assert MCP(3.0).lifted_prox(6.0, 1.0, 1e-45) == pytest.approx(3.0, rel=1e-15)
    assert Laplace(0.02).lifted_prox(17.0, 1.0, 1e-310) == pytest.approx(0.02 * 310.0 * math.log(10.0), rel=1e-3)
