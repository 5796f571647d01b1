"""q that grow towards a ceiling without reaching it: smooth and strictly increasing.

    TransformedL1(c)   q(u) = (1 + c) u / (c + u)
    Laplace(s)         q(u) = 1 - exp(-u / s)
    Arctan(s)          q(u) = arctan(u / s)

Between the group lasso (large parameter) and the count of nonzero blocks (parameter near 0). Where q(v) + rest reaches
the ceiling q^-1 is inf, which keeps Theorem 1.1 of arXiv 2402.17902 true; 1 / q' is convex, so every block problem of
(1) is convex although q is not.

The positive stationary points of the prox problem solve v - u + t q'(v) = 0: a cubic with a trigonometric root for
TransformedL1; a Lambert-W equation for Laplace, convex in v, that Newton's method solves from v = u without
overshooting; for Arctan two local minima are possible, and Newton's method runs to each from its own side.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from sparseopt.regularizers._define import Array, positive, regularizer
from sparseopt.regularizers._lifted import convex_lifted_prox
from sparseopt.scalar import arcsin, arctan, exp, expm1, log, log1p, maximum, minimum, sin, sqrt, tan, where

__all__ = ["Arctan", "Laplace", "TransformedL1"]


@regularizer
class TransformedL1(NamedTuple):
    """Transformed l1, q(u) = (1 + c) u / (c + u), below 1 + c.

    Normalised so that q(1) = 1 for every c; tends to u as c grows and to the count of nonzero blocks as c falls to 0.

    Parameters
    ----------
    c : float, > 0
        Scale, in the units of a block's norm, at which q reaches half its ceiling.

    Notes
    -----
    For t <= c^2 / (2 (1 + c)) the prox is continuous and leaves 0 at u = t (1 + c) / c. For larger t it jumps at
    u = sqrt(2 t (1 + c)) - c / 2, to u - c / 2. Beyond the threshold v = u - (4/3) (c + u) sin^2(psi / 6) with
    cos(psi) = 1 - 27 t c (1 + c) / (2 (c + u)^3).

    References
    ----------
    Zhang, Xin (2018), "Minimization of transformed L1 penalty", Math. Program. 169, and (2017), "Minimization of
    transformed L1 penalty: closed form representation and iterative thresholding algorithms", Commun. Math. Sci. 15,
    Theorem 3.1.

    Examples
    --------
    >>> q = TransformedL1(1.0)
    >>> q.value(1.0), q.prox(1.49, 1.0), round(q.prox(1.5 + 1e-9, 1.0), 6)
    (1.0, 0.0, 1.0)
    """

    c: float = 1.0

    def _check(self) -> None:
        positive("c", self.c, "use L2() for its limit inf or L0() for its limit 0")

    def value(self, u: Array) -> Array:
        return (1.0 + self.c) * u / (self.c + u)

    def slope(self, u: Array) -> Array:
        return self.c * (1.0 + self.c) / ((self.c + u) * (self.c + u))

    def inverse(self, v: Array) -> Array:
        room = 1.0 + self.c - v
        return where(room <= 0.0, math.inf, self.c * v / where(room <= 0.0, 1.0, room))

    def prox(self, u: Array, t: Array) -> Array:
        c = self.c
        # The sine of psi / 2, from factors that neither overflow nor vanish; above 1 only below the threshold.
        ratio = 6.75 * (t / (c + u)) * (c / (c + u)) * ((1.0 + c) / (c + u))
        bend = sin(arcsin(sqrt(minimum(ratio, 1.0))) / 3.0)
        root = maximum(u - (4.0 / 3.0) * (c + u) * bend * bend, 0.0)
        smooth = t <= c * c / (2.0 * (1.0 + c))
        threshold = where(smooth, t * (1.0 + c) / c, sqrt(2.0 * t * (1.0 + c)) - 0.5 * c)
        return where(u <= threshold, 0.0, root)

    def lifted_prox(self, u: float, t: float, rest: float) -> float:
        return convex_lifted_prox(self, u, t, rest)

    def slope_at_zero(self) -> float:
        return (1.0 + self.c) / self.c

    def weak_convexity(self) -> float:
        return 2.0 * (1.0 + self.c) / self.c**2

    def increasing(self) -> bool:
        return True

    def concave(self) -> bool:
        return True

    def subadditive(self) -> bool:
        return True

    def bounded(self) -> bool:
        return True

    def ceiling(self) -> float:
        return 1.0 + self.c


@regularizer
class Laplace(NamedTuple):
    """Laplace or exponential penalty, q(u) = 1 - exp(-u / s), below 1.

    Blocks a few times larger than s are not shrunk. s q tends to u as s grows; q tends to the count of nonzero blocks
    as s falls to 0. In floating point q is constant from u = 37 s on.

    Parameters
    ----------
    s : float, > 0
        Scale, in the units of a block's norm.

    Notes
    -----
    prox(u, t) is 0 or u + s W(-(t / s^2) e^(-u / s)) with the principal branch W of Lambert's function. For t <= s^2
    it is continuous and leaves 0 at t / s; for larger t it jumps where the objective at the root falls below that at
    0.

    References
    ----------
    Trzasko, Manduca (2009), "Highly undersampled magnetic resonance image reconstruction via homotopic
    l0-minimization", IEEE Trans. Med. Imaging 28.

    Examples
    --------
    >>> Laplace(0.5).prox(1.357, 1.0), round(Laplace(0.5).prox(1.35735, 1.0), 4)
    (0.0, 1.1613)
    """

    s: float = 1.0

    def _check(self) -> None:
        positive("s", self.s, "use L2() for its limit inf or L0() for its limit 0")

    def value(self, u: Array) -> Array:
        return -expm1(-u / self.s)

    def slope(self, u: Array) -> Array:
        return exp(-u / self.s) / self.s

    def inverse(self, v: Array) -> Array:
        return where(v >= 1.0, math.inf, -self.s * log1p(-where(v >= 1.0, 0.0, v)))

    def prox(self, u: Array, t: Array) -> Array:
        s = self.s
        r = t / (s * s)
        y = u / s
        # x - y + r e^-x is convex in x with its minimum at log r: Newton's steps fall from y to the larger root. Where
        # there is none they stop at log r, and the objective chooses 0. Near r = 1, x = 0 the root is double and the
        # steps only halve the distance, which the objective forgives to the third power.
        least = log(maximum(r, 1.0))
        x = maximum(y, least)
        for _ in range(20):
            pull = r * exp(-x)
            x = maximum(x - (x - (y - r) + r * expm1(-x)) / maximum(1.0 - pull, 1e-7), least)
        gain = 0.5 * x * (2.0 * y - x) + r * expm1(-x)
        return where(where(r <= 1.0, y <= r, gain <= 0.0), 0.0, s * x)

    def lifted_prox(self, u: float, t: float, rest: float) -> float:
        # phi(v) = -s log(e^(-v/s) - rest), so phi'(v) = 1 / (1 - rest e^(v/s)) and (u - v) (1 - rest e^(v/s)) falls to
        # t.
        if not rest > 0.0:
            return maximum(u - t, 0.0)
        if rest >= 1.0 or u * (1.0 - rest) <= t:
            return 0.0 * u
        level = log(rest)
        low = 0.0 * u
        high = minimum(u, -self.s * level)
        for _ in range(64):
            middle = 0.5 * (low + high)
            if (u - middle) * (1.0 - exp(middle / self.s + level)) > t:
                low = middle
            else:
                high = middle
        return low

    def slope_at_zero(self) -> float:
        return 1.0 / self.s

    def weak_convexity(self) -> float:
        return 1.0 / self.s**2

    def increasing(self) -> bool:
        return True

    def concave(self) -> bool:
        return True

    def subadditive(self) -> bool:
        return True

    def bounded(self) -> bool:
        return True

    def ceiling(self) -> float:
        return 1.0


@regularizer
class Arctan(NamedTuple):
    """Arctangent penalty, q(u) = arctan(u / s), below pi / 2.

    Shrinks a large block of norm u by about s t / u^2. s q tends to u as s grows, and (2 / pi) q to the count of
    nonzero blocks as s falls to 0.

    Parameters
    ----------
    s : float, > 0
        Scale, in the units of a block's norm, at which q reaches half its ceiling.

    Notes
    -----
    With x = v / s, y = u / s, r = t / s^2 the stationary points solve x - y + r / (1 + x^2) = 0. q' is concave up to
    x = 1 / sqrt(3) and convex beyond. For r <= 8 / (3 sqrt(3)) the prox is continuous and leaves 0 at t / s; for larger
    r it jumps, possibly from one positive value to another.

    References
    ----------
    Selesnick, Bayram (2014), "Sparse signal estimation by maximally sparse convex optimization", IEEE Trans. Signal
    Process. 62, section II.

    Examples
    --------
    >>> round(Arctan(1.0).prox(2.0, 1.0), 6), Arctan(1.0).prox(0.9, 1.0)
    (1.754878, 0.0)
    """

    s: float = 1.0

    def _check(self) -> None:
        positive("s", self.s, "use L2() for its limit inf or L0() for its limit 0")

    def value(self, u: Array) -> Array:
        return arctan(u / self.s)

    def slope(self, u: Array) -> Array:
        return self.s / (self.s * self.s + u * u)

    def inverse(self, v: Array) -> Array:
        return where(v >= 0.5 * math.pi, math.inf, self.s * tan(where(v >= 0.5 * math.pi, 0.0, v)))

    def prox(self, u: Array, t: Array) -> Array:
        s = self.s
        r = t / (s * s)
        y = u / s
        bend = 1.0 / math.sqrt(3.0)
        at_bend = bend - y + 0.75 * r
        # g(x) = x - y + r / (1 + x^2) is concave on [0, bend], where Newton's steps rise from 0 to its first root, and
        # convex beyond, where they fall from y to its last. A step that meets a slope <= 0 has no root on its side.
        low = 0.0 * (y + r)
        high = maximum(y, bend) + low
        for _ in range(24):
            w = 1.0 + low * low
            slope = 1.0 - 2.0 * (r / w) * (low / w)
            step = (low - y + r / w) / where(slope <= 1e-7, 1.0, slope)
            low = minimum(maximum(where(slope <= 1e-7, bend, low - step), 0.0), bend)
            w = 1.0 + high * high
            slope = 1.0 - 2.0 * (r / w) * (high / w)
            step = (high - y + r / w) / where(slope <= 1e-7, 1.0, slope)
            high = maximum(where(slope <= 1e-7, bend, high - step), bend)
        # Objective at low minus objective at high, with the difference of the arctangents as one arctangent.
        apart = high - low
        excess = apart * (y - 0.5 * (low + high)) - r * arctan(apart / (1.0 + low * high))
        only_high = (at_bend < 0.0) & (low >= bend)
        only_low = (at_bend >= 0.0) & (high <= bend)
        return s * where(only_high, high, where(only_low | (excess <= 0.0), low, high))

    def lifted_prox(self, u: float, t: float, rest: float) -> float:
        return convex_lifted_prox(self, u, t, rest)

    def slope_at_zero(self) -> float:
        return 1.0 / self.s

    def weak_convexity(self) -> float:
        return 3.0 * math.sqrt(3.0) / (8.0 * self.s**2)

    def increasing(self) -> bool:
        return True

    def concave(self) -> bool:
        return True

    def subadditive(self) -> bool:
        return True

    def bounded(self) -> bool:
        return True

    def ceiling(self) -> float:
        return 0.5 * math.pi
