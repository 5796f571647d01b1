"""Every law of `check_regularizer` rejects an implementation that breaks it, and says by which numbers."""

from __future__ import annotations

import math
import re
from typing import NamedTuple

import numpy as np
import pytest
from numba.extending import overload

from sparseopt.laws import check_regularizer
from sparseopt.laws.proxes import prox_law
from sparseopt.regularizers import L0, L2, MCP, SCAD, Capped, Expm1Mask, LambertW, Laplace, LogSum, Power, regularizer
from sparseopt.scalar import exp, expm1, log, log1p, maximum, minimum, sqrt, where


@regularizer
class SoftAsMCP(MCP):
    """Soft-thresholding in place of MCP's prox."""

    def prox(self, u, t):
        return maximum(u - t, 0.0)


@regularizer
class SmallStepsOnlyMCP(MCP):
    """The textbook formula, valid for t < gamma only."""

    def prox(self, u, t):
        inner = (u - t) / (1.0 - t / self.gamma + 1e-300)
        return where(u <= t, 0.0 * u, where(u <= self.gamma, inner, u))


@regularizer
class ClippedStepsMCP(MCP):
    """The textbook formula with its division guarded: in [0, u] and monotone for every t, and still wrong."""

    def prox(self, u, t):
        return minimum(maximum(u - t, 0.0) / maximum(1.0 - t / self.gamma, 1e-9), u)


@regularizer
class JumplessLogSum(LogSum):
    """The larger root wherever it exists, without comparing it to 0."""

    def prox(self, u, t):
        eps = self.eps
        discriminant = (u + eps) * (u + eps) - 4.0 * t
        root = 0.5 * (u - eps + sqrt(maximum(discriminant, 0.0)))
        return where(discriminant <= 0.0, 0.0 * u, maximum(root, 0.0))


@regularizer
class LatePower(Power):
    """The right root, but a threshold 2 % too large."""

    def prox(self, u, t):
        v = Power(self.p).prox(u, t)
        return where(v <= 0.0, v, where(u <= 1.02 * 1.5 * t ** (2.0 / 3.0), 0.0, v))


@regularizer
class NoisyPower(Power):
    """A root that is 1e-5 off: the objective hardly notices."""

    def prox(self, u, t):
        return (1.0 - 1e-5) * Power(self.p).prox(u, t)


@regularizer
class HiddenNoise(LambertW):
    """A root whose last digits are wrong where it is flat: objectives agree to 1e-13, stationarity does not."""

    def prox(self, u, t):
        return LambertW().prox(u, t) * (1.0 - 1e-7 * t / (1.0 + t))


@regularizer
class BumpyL2(L2):
    """Right but for one dip."""

    def prox(self, u, t):
        return where((u > 2.0) & (u < 2.1), 0.0, maximum(u - t, 0.0))


@regularizer
class NegativeL2(L2):
    """Soft-thresholding without the threshold."""

    def prox(self, u, t):
        return u - t


@regularizer
class SwallowingL2(L2):
    """Every comparison with NaN is false, so NaN becomes 0."""

    def prox(self, u, t):
        return where(u > t, u - t, 0.0)


@regularizer
class SwallowingValueMCP(MCP):
    """NaN becomes gamma / 2."""

    def value(self, u):
        return where(u <= self.gamma, u - u * u / (2.0 * self.gamma), 0.5 * self.gamma)


@regularizer
class ConvexMCP(MCP):
    def weak_convexity(self):
        return 0.9 / self.gamma


@regularizer
class NegativeMCP(MCP):
    def weak_convexity(self):
        return -0.1


@regularizer
class ConvexL0(L0):
    """The jump is seen at midpoints, not in the slope."""

    def weak_convexity(self):
        return 0.0


@regularizer
class SteepLogSum(LogSum):
    def slope(self, u):
        return 1.0001 / (self.eps + u)


@regularizer
class SteepAtZeroLogSum(LogSum):
    def slope_at_zero(self):
        return 1.0


@regularizer
class InfiniteAtZeroLogSum(LogSum):
    def slope_at_zero(self):
        return math.inf


@regularizer
class FiniteAtZeroPower(Power):
    def slope_at_zero(self):
        return 1e5


@regularizer
class LiftedLogSum(LogSum):
    def value(self, u):
        return 0.1 + log1p(u / self.eps)


@regularizer
class FallingLogSum(LogSum):
    def value(self, u):
        return log1p(u / self.eps) - 0.3 * u


@regularizer
class OffInverseLogSum(LogSum):
    def inverse(self, v):
        return self.eps * expm1(v * (1.0 + 1e-5))


@regularizer
class ShiftedInverseLogSum(LogSum):
    def inverse(self, v):
        return self.eps * expm1(v) + 1e-300


@regularizer
class ClampedInverseMCP(MCP):
    """The knot, not inf, above the ceiling: this breaks Lemma 2.4."""

    def inverse(self, v):
        return self.gamma * (1.0 - sqrt(maximum(1.0 - 2.0 * v / self.gamma, 0.0)))


@regularizer
class SubadditiveLambertW(LambertW):
    def subadditive(self):
        return True


@regularizer
class ConcaveLambertW(LambertW):
    def concave(self):
        return True


@regularizer
class IncreasingMCP(MCP):
    def increasing(self):
        return True


@regularizer
class IncreasingL0(L0):
    def increasing(self):
        return True


@regularizer
class BoundedLogSum(LogSum):
    def inverse(self, v):
        return where(v > 50.0, math.inf, self.eps * expm1(v))

    def ceiling(self):
        return 50.0

    def bounded(self):
        return True


@regularizer
class InconsistentLogSum(LogSum):
    def bounded(self):
        return True


@regularizer
class UnboundedSCAD(SCAD):
    def ceiling(self):
        return math.inf

    def bounded(self):
        return False


@regularizer
class HighCeilingCapped(Capped):
    def ceiling(self):
        return 2.0 * self.theta


@regularizer
class UnliftedLogSum(LogSum):
    def lifted_prox(self, u, t, rest):
        return maximum(u - t, 0.0)


@regularizer
class LocalExpm1(Expm1Mask):
    """Half the slope in the lifted problem."""

    def lifted_prox(self, u, t, rest):
        return Expm1Mask().lifted_prox(u, 0.5 * t if rest > 0.0 else t, rest)


@regularizer
class BeyondTheKnotMCP(MCP):
    def lifted_prox(self, u, t, rest):
        return maximum(u - t, 0.0) if rest <= 0.0 else MCP(self.gamma).lifted_prox(u, t, rest)


@regularizer
class WideLaplace(Laplace):
    """Computed in double precision, whatever comes in."""

    def value(self, u):
        return -expm1(-np.asarray(u, np.float64) / self.s)


@regularizer
class FlatLogSum(LogSum):
    """An array of two dimensions comes back with one."""

    def prox(self, u, t):
        return np.ravel(LogSum(self.eps).prox(u, t))


@regularizer
class CancellingLogSum(LogSum):
    """log(1 + x) - log(1) loses small norms in float32."""

    def value(self, u):
        return log(1.0 + u / self.eps)


@regularizer
class OverflowingLogSum(LogSum):
    def slope(self, u):
        return (self.eps + u) ** 5 / (self.eps + u) ** 6


@regularizer
class InfiniteLogSum(LogSum):
    """exp overflows for large norms."""

    def prox(self, u, t):
        return LogSum(self.eps).prox(u, t) + 0.0 / exp(u)


def twin(u):
    return u


@overload(twin)
def _twin(u):
    return lambda u: u * (1.0 + 1e-6)


@regularizer
class OtherInKernels(L2):
    def value(self, u):
        return 1.0 * twin(u)


WRONG = [
    (SoftAsMCP(3.0), "prox minimises"),
    (SmallStepsOnlyMCP(3.0), "prox minimises"),
    (ClippedStepsMCP(3.0), "prox minimises"),
    (JumplessLogSum(0.3), "prox minimises"),
    (LatePower(0.5), "prox minimises"),
    (NoisyPower(0.3), "prox minimises"),
    (HiddenNoise(), "a positive prox is stationary"),
    (BumpyL2(), "prox is monotone"),
    (NegativeL2(), "0 <= prox(u, t) <= u"),
    (SwallowingL2(), "NaN stays NaN; prox of NaN"),
    (SwallowingValueMCP(3.0), "NaN stays NaN; value of NaN"),
    (ConvexMCP(3.0), "q'(u) + rho u rises"),
    (NegativeMCP(3.0), "the weak convexity is at least 0"),
    (ConvexL0(), "convex at the midpoint"),
    (SteepLogSum(0.5), "slope is the derivative of value"),
    (SteepAtZeroLogSum(0.5), "slope_at_zero is the limit"),
    (InfiniteAtZeroLogSum(0.5), "slope_at_zero is the limit"),
    (FiniteAtZeroPower(0.5), "slope_at_zero is the limit"),
    (LiftedLogSum(0.5), "q(0) = 0"),
    (FallingLogSum(0.5), "q is nondecreasing"),
    (OffInverseLogSum(0.5), "inverse is the smallest u"),
    (ShiftedInverseLogSum(0.5), "q^-1(0) = 0"),
    (ClampedInverseMCP(3.0), "q^-1 is inf above the ceiling"),
    (SubadditiveLambertW(), "q is subadditive, as claimed"),
    (ConcaveLambertW(), "q is concave, as claimed"),
    (IncreasingMCP(3.0), "q is strictly increasing, as claimed"),
    (IncreasingL0(), "q is strictly increasing, as claimed"),
    (BoundedLogSum(0.5), "q stays below its ceiling"),
    (InconsistentLogSum(0.5), "q is bounded if and only if"),
    (UnboundedSCAD(), "q grows without bound, as claimed"),
    (HighCeilingCapped(1.0), "q comes near its ceiling"),
    (UnliftedLogSum(0.5), "lifted_prox minimises"),
    (LocalExpm1(), "lifted_prox minimises"),
    (BeyondTheKnotMCP(3.0), "soft threshold"),
    (WideLaplace(1.0), "value keeps dtype and shape"),
    (FlatLogSum(0.5), "prox keeps dtype and shape"),
    (CancellingLogSum(0.5), "value is right in float32"),
    (OverflowingLogSum(0.5), "floating point warning in the range_law"),
    (InfiniteLogSum(0.5), "floating point warning"),
    (OtherInKernels(), "value agrees between an array and a kernel"),
]


@pytest.mark.parametrize(("q", "reason"), WRONG, ids=lambda x: x if isinstance(x, str) else type(x).__name__)
def test_a_wrong_regularizer_is_rejected(q, reason: str) -> None:
    with pytest.raises(AssertionError, match=re.escape(reason)) as caught:
        check_regularizer(q)
    assert type(q).__name__ in str(caught.value)


def test_the_numbers_are_named() -> None:
    with pytest.raises(AssertionError) as caught:
        prox_law(SoftAsMCP(3.0))
    found = re.fullmatch(r"SoftAsMCP\(gamma=3.0\) breaks: prox minimises .*; (.*)\.", str(caught.value))
    assert found is not None
    numbers = dict(part.split(" = ") for part in found[1].split(", "))
    u, t, v, better, by = (float(numbers[name]) for name in ("u", "t", "prox", "better", "by"))

    def objective(x: float) -> float:
        return 0.5 * (x - u) ** 2 + t * MCP(3.0).value(x)

    assert objective(v) - objective(better) == pytest.approx(by, rel=1e-4)
    assert by > 0.0


def test_instances_only() -> None:
    class Plain(NamedTuple):
        a: float = 1.0

    for thing in (MCP, Plain(), 3.0):
        with pytest.raises(TypeError, match="is not a regularizer"):
            check_regularizer(thing)
