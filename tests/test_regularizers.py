"""Every regularizer: the laws over the table, its answers, its parameters, lookup by name, and classes of users."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest

from sparseopt.laws import check_regularizer
from sparseopt.regularizers import (
    L2,
    MCP,
    REGULARIZERS,
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
    checked,
    get_regularizer,
)

OTHERS = [
    *(Power(p) for p in (0.05, 0.3, 2.0 / 3.0, 0.9, 0.99)),
    *(LogSum(eps) for eps in (0.01, 0.1, 30.0)),
    MCP(0.5),
    MCP(60.0),
    SCAD(0.1, 2.1),
    SCAD(5.0, 20.0),
    Capped(0.03),
    Capped(20.0),
    TransformedL1(0.02),
    TransformedL1(50.0),
    *(Laplace(s) for s in (0.02, 0.5, 20.0)),
    *(Arctan(s) for s in (0.02, 20.0)),
    Scaled(MCP(3.0), 0.1),
    Scaled(Power(0.4), 3.0),
]


@pytest.mark.parametrize("q", [*REGULARIZERS.values(), *OTHERS], ids=repr)
def test_laws_hold(q) -> None:
    check_regularizer(q)


# Table A of the theory: strictly increasing, concave, subadditive, ceiling, slope at 0, weak convexity.
# A list, because NamedTuples compare as tuples: L2() == LambertW().
ANSWERS = [
    (L2(), True, True, True, math.inf, 1.0, 0.0),
    (Power(0.3), True, True, True, math.inf, math.inf, math.inf),
    (LogSum(0.5), True, True, True, math.inf, 2.0, 4.0),
    (LambertW(), True, False, False, math.inf, 0.0, 0.094812),
    (Expm1Mask(), True, True, True, math.inf, 2.0, math.inf),
    (MCP(4.0), False, True, True, 2.0, 1.0, 0.25),
    (SCAD(2.0, 3.0), False, True, True, 4.0, 1.0, 0.25),
    (Capped(1.5), False, True, True, 1.5, 1.0, math.inf),
    (TransformedL1(2.0), True, True, True, 3.0, 1.5, 1.5),
    (Laplace(0.5), True, True, True, 1.0, 2.0, 4.0),
    (Arctan(0.5), True, True, True, math.pi / 2, 2.0, 3.0 * math.sqrt(3.0) / 2.0),
    (Scaled(MCP(4.0), 0.5), False, True, True, 1.0, 1.0, 0.5),
]


@pytest.mark.parametrize(("q", "increasing", "concave", "subadditive", "ceiling", "slope", "rho"), ANSWERS)
def test_answers(q, increasing, concave, subadditive, ceiling, slope, rho) -> None:
    assert (q.increasing(), q.concave(), q.subadditive()) == (increasing, concave, subadditive)
    assert q.bounded() == (ceiling < math.inf)
    assert (q.ceiling(), q.slope_at_zero()) == (ceiling, slope)
    assert q.weak_convexity() == pytest.approx(rho, abs=5e-7)


@pytest.mark.parametrize("q", [*REGULARIZERS.values(), *OTHERS], ids=repr)
def test_a_step_of_zero_changes_nothing(q) -> None:
    u = np.array([0.0, 1e-6, 0.3, 1.7, 40.0, 1e5])
    np.testing.assert_allclose(q.prox(u, 0.0), u, rtol=2e-14)


@pytest.mark.parametrize("q", [*REGULARIZERS.values(), *OTHERS], ids=repr)
def test_one_step_per_norm(q) -> None:
    u = np.array([0.01, 0.4, 1.1, 2.3, 2.3, 9.0])
    t = np.array([0.02, 0.1, 5.0, 0.7, 30.0, 1.0])
    each = [q.prox(float(a), float(b)) for a, b in zip(u, t, strict=True)]
    np.testing.assert_allclose(q.prox(u, t), each, rtol=1e-9)
    np.testing.assert_allclose(q.prox(2.3, t)[3:5], q.prox(u, t)[3:5], rtol=1e-9)


@pytest.mark.parametrize("q", [*REGULARIZERS.values(), *OTHERS], ids=repr)
def test_floats_stay_floats(q) -> None:
    answers = [q.value(1.5), q.slope(1.5), q.inverse(0.4), q.prox(1.5, 0.7), q.lifted_prox(1.5, 0.7, 0.1)]
    assert {type(answer) for answer in answers} == {float}


@pytest.mark.parametrize(
    ("q", "sentence"),
    [
        (Power(0.0), "p must lie in (0, 1), got 0.0: use L0() for the count of groups or L2() for p = 1."),
        (Power(1.0), "p must lie in (0, 1), got 1.0: use L0() for the count of groups or L2() for p = 1."),
        (Power(math.nan), "p must lie in (0, 1), got nan: use L0() for the count of groups or L2() for p = 1."),
        (
            LogSum(-1.0),
            "eps must be positive and finite, got -1.0: use L0() for its limit 0 or L2() for its limit inf.",
        ),
        (
            MCP(math.inf),
            "gamma must be positive and finite, got inf: use L2() for its limit inf or L0() for its limit 0.",
        ),
        (SCAD(0.0, 3.7), "kappa must be positive and finite, got 0.0."),
        (SCAD(1.0, 1.0), "theta must be above 1 and finite, got 1.0: use Capped(1.0) for theta = 1."),
        (
            Capped(math.nan),
            "theta must be positive and finite, got nan: use L2() for its limit inf or L0() for its limit 0.",
        ),
        (
            TransformedL1(0.0),
            "c must be positive and finite, got 0.0: use L2() for its limit inf or L0() for its limit 0.",
        ),
        (Laplace(-2.0), "s must be positive and finite, got -2.0: use L2() for its limit inf or L0() for its limit 0."),
        (Arctan(0.0), "s must be positive and finite, got 0.0: use L2() for its limit inf or L0() for its limit 0."),
        (Scaled(L2(), 0.0), "lam must be positive and finite, got 0.0."),
        (
            Scaled(MCP(-3.0), 1.0),
            "gamma must be positive and finite, got -3.0: use L2() for its limit inf or L0() for its limit 0.",
        ),
    ],
    ids=str,
)
def test_parameters_outside_their_domain(q, sentence: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        get_regularizer(q)


def test_lookup() -> None:
    assert repr(get_regularizer("mcp")) == "MCP(gamma=3.0)"
    assert repr(get_regularizer("scad", theta=3)) == "SCAD(kappa=1.0, theta=3.0)"
    assert repr(get_regularizer(LogSum, eps=np.float32(0.5))) == "LogSum(eps=0.5)"
    assert repr(get_regularizer(MCP(2), gamma=4)) == "MCP(gamma=4.0)"
    assert repr(get_regularizer("sparseopt.regularizers:L0")) == "L0()"
    assert repr(get_regularizer(Scaled, q=MCP(2), lam=1)) == "Scaled(q=MCP(gamma=2.0), lam=1.0)"
    assert all(isinstance(value, float) for value in get_regularizer(SCAD(1, 3)))
    for name, q in REGULARIZERS.items():
        assert repr(get_regularizer(name)) == repr(q) == repr(type(q)())


@pytest.mark.parametrize(
    ("spec", "params", "error", "sentence"),
    [
        ("mpc", {}, ValueError, "Unknown regularizer 'mpc': did you mean 'mcp'"),
        ("zzz", {}, ValueError, "Unknown regularizer 'zzz': the names are l2, power, log"),
        (
            "no_such_module:Q",
            {},
            ValueError,
            "Module 'no_such_module' of the regularizer",
        ),
        ("sparseopt.jit:Q", {}, ValueError, "Module 'sparseopt.jit' has no 'Q'"),
        ("mcp", {"eps": 1.0}, TypeError, "MCP has no parameter 'eps': it has gamma."),
        ("l2", {"eps": 1.0}, TypeError, "L2 has no parameter 'eps': it has no parameters."),
        (Scaled, {}, TypeError, "Scaled needs a value for q"),
        ("sparseopt.jit:Path", {}, TypeError, "Path is not a regularizer"),
        (3.0, {}, TypeError, "float is not a regularizer: decorate its class with @regularizer."),
        (MCP("3"), {}, TypeError, "gamma of MCP must be a number, got '3'."),
        (Scaled((1.0,), 2.0), {}, TypeError, "tuple is not a regularizer"),
    ],
)
def test_lookup_fails_with_a_sentence(spec, params, error, sentence: str) -> None:
    with pytest.raises(error) as caught:
        get_regularizer(spec, **params)
    assert str(caught.value).startswith(sentence)


def test_a_class_itself_is_no_instance() -> None:
    with pytest.raises(TypeError, match=r"MCP is not a regularizer: write MCP\(\) for an instance"):
        checked(MCP)
