"""Powers of the norm, q(u) = u^p with 0 < p < 1: in problem (1) the l_p quasi-norm of the block norms.

A positive stationary point v of the prox problem solves v - u + t p v^(p - 1) = 0: a cubic in sqrt(v) for p = 1/2, a
quartic in cbrt(v) for p = 2/3, and for other p a convex function of v whose larger root Newton's method reaches from v
= u without overshooting. Only the larger root can be a local minimum; v = 0 always is one, because q'(0+) is infinite.
The two have the same objective at one norm, known in closed form for every p, and there the prox jumps.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from numba.extending import register_jitable

from sparseopt.regularizers._define import Array, regularizer
from sparseopt.scalar import arccos, arccosh, cos, cosh, exp, expm1, log, log1p, maximum, minimum, sqrt, where

__all__ = ["Power"]


@regularizer
class Power(NamedTuple):
    """Power penalty, q(u) = u^p with 0 < p < 1.

    Infinitely steep at 0: a zero block is always a local minimum, and a nonzero one is never shrunk below
    (2 t (1 - p))^(1 / (2 - p)). Tends to the group lasso as p rises to 1 and to the count of nonzero blocks as p falls
    to 0. p = 2/3 is, up to a constant, what an l1-penalised mask on l2-penalised weights minimises (Lemma 2.2 of arXiv
    2402.17902).

    Parameters
    ----------
    p : float, 0 < p < 1
        Exponent.

    Notes
    -----
    With a = (2 t (1 - p))^(1 / (2 - p)) the prox is 0 up to z = a (2 - p) / (2 (1 - p)), jumps to a there, and is the
    largest root of v - u + t p v^(p - 1) beyond. p = 1/2 and p = 2/3 (exactly `2 / 3`) have closed forms. Weak
    convexity is infinite: no step makes the prox continuous.

    References
    ----------
    Xu, Chang, Xu, Zhang (2012), "L1/2 regularization", IEEE Trans. Neural Netw. Learn. Syst. 23, Theorem 1 (p = 1/2).
    Cao, Sun, Xu (2013), "Fast image deconvolution using closed-form thresholding formulas of Lq (q = 1/2, 2/3)
    regularization", J. Vis. Commun. Image Represent. 24 (p = 2/3).

    Examples
    --------
    >>> Power(0.5).prox(1.5, 1.0), round(Power(0.5).prox(1.5 + 1e-9, 1.0), 6)
    (0.0, 1.0)
    """

    p: float = 0.5

    def _check(self) -> None:
        if not 0.0 < self.p < 1.0:
            raise ValueError(f"p must lie in (0, 1), got {self.p}: use L0() for the count of groups or L2() for p = 1.")

    def value(self, u: Array) -> Array:
        return u**self.p

    def slope(self, u: Array) -> Array:
        return where(u == 0.0, math.inf, self.p * where(u == 0.0, 1.0, u) ** (self.p - 1.0))

    def inverse(self, v: Array) -> Array:
        return v ** (1.0 / self.p)

    def prox(self, u: Array, t: Array) -> Array:
        p = self.p
        threshold = (2.0 * t * (1.0 - p)) ** (1.0 / (2.0 - p)) * ((2.0 - p) / (2.0 * (1.0 - p)))
        # Below the threshold the root may not exist: there the root at the threshold is computed and discarded.
        start = maximum(maximum(u, threshold), 1e-20)
        if p == 0.5:
            root = _prox_half(start, t)
        elif p == 2.0 / 3.0:
            root = _prox_two_thirds(start, t)
        else:
            root = _prox_power(p, start, t)
        return where(u <= threshold, 0.0, minimum(root, u))

    def lifted_prox(self, u: float, t: float, rest: float) -> float:
        if not rest > 0.0:
            return maximum(u - t, 0.0)
        if self.p == 0.5:  # phi(v) = v + 2 rest sqrt(v) + rest^2: shift by t, then the prox of sqrt with step 2 t rest
            return self.prox(maximum(u - t, 0.0), 2.0 * t * rest)
        return _lifted_prox_power(self.p, u, t, rest)

    def slope_at_zero(self) -> float:
        return math.inf

    def weak_convexity(self) -> float:
        return math.inf

    def increasing(self) -> bool:
        return True

    def concave(self) -> bool:
        return True

    def subadditive(self) -> bool:
        return True

    def bounded(self) -> bool:
        return False

    def ceiling(self) -> float:
        return math.inf


@register_jitable
def _prox_half(u: Array, t: Array) -> Array:
    angle = arccos(0.25 * t * (u / 3.0) ** -1.5)  # at most 1 / sqrt(2) from the threshold on
    return (2.0 / 3.0) * u * (1.0 + cos(2.0 * math.pi / 3.0 - (2.0 / 3.0) * angle))


@register_jitable
def _prox_two_thirds(u: Array, t: Array) -> Array:
    # A step below 1e-17 u^(4/3) moves u by less than its rounding; the bound keeps the quotient in float32's range.
    step = maximum(2.0 * t, 1e-17 * u ** (4.0 / 3.0))
    angle = arccosh((27.0 / 16.0) * u * u * step**-1.5)
    a = (2.0 / math.sqrt(3.0)) * step**0.25 * sqrt(cosh(angle / 3.0))
    return (0.5 * (a + sqrt(2.0 * u / a - a * a))) ** 3.0


@register_jitable
def _prox_power(p: float, u: Array, t: Array) -> Array:
    # v - u + t p v^(p - 1) is convex in v and its derivative at the larger root is at least 1/2: Newton's steps fall
    # monotonically from u to the root, and six reach rounding for every p.
    v = u
    for _ in range(8):
        pull = t * p * v ** (p - 1.0)
        v = v - (v - u + pull) / (1.0 - (1.0 - p) * (pull / v))
    return v


@register_jitable
def _lifted_prox_power(p: float, u: float, t: float, rest: float) -> float:
    """phi(v) = (v^p + rest)^(1 / p) has a convex slope (1 + rest v^-p)^(1 / p - 1): Newton from v = u, then v = 0."""
    if not u > t:  # phi' is at least 1
        return 0.0 * u
    v = u
    for _ in range(80):
        ratio = rest * v**-p
        if (1.0 / p - 1.0) * math.log1p(ratio) > 690.0:  # a slope beyond every u / t
            return 0.0
        slope = exp((1.0 / p - 1.0) * log1p(ratio))
        curvature = 1.0 - t * slope * (1.0 - p) * ratio / (v * (1.0 + ratio))
        if not curvature > 0.0:  # beyond the minimum of the derivative, which was positive: no root
            return 0.0
        step = (v - u + t * slope) / curvature
        v = v - step
        if not v > 0.0:
            return 0.0
        if step <= 1e-16 * v:
            break
    ratio = v**p / rest
    if ratio < 1.0:
        rise = exp(minimum(log(rest) / p + log(expm1(log1p(ratio) / p)), 700.0))  # phi(0) alone may overflow
    else:
        rise = v * exp(log1p(1.0 / ratio) / p) - rest ** (1.0 / p)
    return v if 0.5 * v * (2.0 * u - v) > t * rise else 0.0
