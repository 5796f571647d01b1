"""Regularizers that users write: four methods are enough, and what is missing or wrong is said at once."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from sparseopt.jit import kernel
from sparseopt.laws import check_regularizer
from sparseopt.regularizers import TransformedL1, get_regularizer, regularizer
from sparseopt.scalar import cos, log1p, maximum, sin, sqrt, where


@regularizer
class RootShift(NamedTuple):
    """q(u) = sqrt(u + a) - sqrt(a): what a user writes, with nothing but the four methods."""

    a: float

    def value(self, u):
        return u / (sqrt(u + self.a) + math.sqrt(self.a))

    def slope(self, u):
        return 0.5 / sqrt(u + self.a)

    def prox(self, u, t):
        # x = sqrt(v + a) solves x^3 - (u + a) x + t / 2 = 0, convex for x > 0: Newton's steps fall to the larger root.
        x = sqrt(u + self.a)
        for _ in range(30):
            tilt = 3.0 * x * x - u - self.a
            x = where(tilt <= 1e-9, x, x - (x * (x * x - u - self.a) + 0.5 * t) / where(tilt <= 1e-9, 1.0, tilt))
            x = maximum(x, math.sqrt(self.a))
        v = maximum(x * x - self.a, 0.0)
        gain = 0.5 * v * (2.0 * u - v) - t * self.value(v)
        return where(gain <= 0.0, 0.0, v)

    def slope_at_zero(self):
        return 0.5 / math.sqrt(self.a)


@kernel
def inverse_in_a_kernel(q, v):
    return q.inverse(v)


@pytest.mark.parametrize("a", [0.1, 2.0])
def test_a_users_class_obeys_the_laws(a: float) -> None:
    q = RootShift(a)
    check_regularizer(q)
    assert get_regularizer(q) == q
    # (v + sqrt(a))^2 - a, found by the bisection that the decorator added
    assert q.inverse(1.7) == pytest.approx((1.7 + math.sqrt(a)) ** 2 - a, rel=1e-13)
    assert inverse_in_a_kernel(q, 1.7) == pytest.approx(q.inverse(1.7), rel=1e-14)
    # nothing is claimed that the class does not say
    assert (q.increasing(), q.concave(), q.subadditive(), q.weak_convexity()) == (False, False, False, math.inf)
    assert (q.bounded(), q.ceiling()) == (False, math.inf)


@regularizer
class Saturating(NamedTuple):
    """q(u) = u / (u + 1) by its four methods: the methods that are added must see that it is bounded."""

    def value(self, u):
        return u / (u + 1.0)

    def slope(self, u):
        return 1.0 / ((u + 1.0) * (u + 1.0))

    def prox(self, u, t):
        return TransformedL1(1.0).prox(u, 0.5 * t)

    def slope_at_zero(self):
        return 1.0


def test_a_users_bounded_class() -> None:
    q, known = Saturating(), TransformedL1(1.0)
    assert (q.ceiling(), q.bounded()) == (1.0, True)
    assert q.inverse(0.75) == pytest.approx(3.0)
    assert q.inverse(1.5) == math.inf
    for rest in (0.0, 0.2, 0.9, 1.0):
        assert q.lifted_prox(2.0, 0.3, rest) == pytest.approx(known.lifted_prox(2.0, 0.3, 2.0 * rest), abs=1e-9)


@regularizer
class Wavy(NamedTuple):
    """q(u) = 2 u + |sin u|: strictly increasing and subadditive, not concave. Its prox plays no role here."""

    def value(self, u):
        return 2.0 * u + abs(sin(u))

    def slope(self, u):
        return 2.0 + where(sin(u) > 0.0, cos(u), -cos(u))

    def prox(self, u, t):
        return maximum(u - 2.0 * t, 0.0)

    def slope_at_zero(self):
        return 3.0


@pytest.mark.parametrize("t", [0.3, 1.0, 3.0])
@pytest.mark.parametrize("u", [2.0, 7.0, 20.0])
def test_the_search_finds_the_best_of_many_minima(u: float, t: float) -> None:
    q = Wavy()
    v = np.linspace(0.0, u, 20_001)
    for rest in (0.1, 1.0, 2.5, 4.0, 30.0):
        objective = 0.5 * (v - u) ** 2 + t * q.inverse(q.value(v) + rest)
        found = q.lifted_prox(u, t, rest)
        mine = 0.5 * (found - u) ** 2 + t * q.inverse(q.value(found) + rest)
        assert mine <= objective.min() + 1e-9


def test_a_class_by_module_and_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = """
from typing import NamedTuple
from sparseopt.regularizers import regularizer
from sparseopt.scalar import maximum

@regularizer
class Twice(NamedTuple):
    def value(self, u): return 2.0 * u
    def slope(self, u): return 2.0 + 0.0 * u
    def prox(self, u, t): return maximum(u - 2.0 * t, 0.0)
    def slope_at_zero(self): return 2.0
"""
    (tmp_path / "mine_for_lookup.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    assert get_regularizer("mine_for_lookup:Twice").prox(3.0, 1.0) == 1.0
    sys.modules.pop("mine_for_lookup")


def _no_tuple():
    class Plain:
        def value(self, u):
            return u

    return Plain


def _three_methods():
    class Three(NamedTuple):
        def value(self, u):
            return u

        def slope(self, u):
            return u

        def slope_at_zero(self):
            return 1.0

    return Three


def _hiding():
    class Hiding(NamedTuple):
        ceiling: float = 1.0

    return Hiding


def _other_arguments():
    class Other(NamedTuple):
        def value(self, x):
            return log1p(x)

        def slope(self, u):
            return 1.0 / (1.0 + u)

        def prox(self, u, t):
            return u

        def slope_at_zero(self):
            return 1.0

    return Other


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (_no_tuple, "Plain must be a NamedTuple: write `class Plain(NamedTuple)`"),
        (
            _three_methods,
            "Three lacks prox: a regularizer must define value(self, u), slope(self, u), prox(self, u, t)",
        ),
        (_hiding, "Hiding must not have a field called ceiling"),
        (_other_arguments, "Other.value(self, x) must be written value(self, u)"),
    ],
)
def test_a_class_that_is_no_regularizer(make, sentence: str) -> None:
    with pytest.raises(TypeError) as caught:
        regularizer(make())
    assert str(caught.value).startswith(sentence)
