"""q of masks: what weight decay on a mask m = f(w) and on the masked block leaves of the block's norm.

    LambertW()    m = e^w        q(u) = min over w of w^2 + u^2 e^(-2 w)              Lemma 2.1 of arXiv 2402.17902
    Expm1Mask()   m = e^w - 1    q(u) = min over w >= 0 of w^2 + u^2 / (e^w - 1)^2

Both are known through the optimal logit w: u and q(u) are explicit in w, and w(u) comes from a fixed number of Newton
steps that converge for every u. LambertW is the mask of softmax, and not a sparse penalty: its mask is 1 at no cost,
so q(u) = u^2 - u^4 + ... near 0, a ridge. It violates the hypothesis of Theorem 1.1, subadditivity, whenever the norms
add up to at most e, and gives no exact zeros. Expm1Mask is the repair: a mask that is 0 at no cost has q'(0+) = 2, and
q is concave with the same tail (log u)^2.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from numba.extending import register_jitable

from sparseopt.regularizers._define import Array, regularizer
from sparseopt.regularizers._lifted import lifted_prox_by_search
from sparseopt.scalar import exp, expm1, log, log1p, maximum, minimum, sqrt, where

__all__ = ["Expm1Mask", "LambertW"]

_FARTHEST = 700.0  # logits beyond it overflow float64: norms above e^700 are not distinguished


@register_jitable
def _logit(u: Array) -> Array:
    """w = W0(2 u^2) / 2, the root of sqrt(w) e^w = u."""
    x = 2.0 * u * u
    growth = log1p(x)
    z = growth * (1.0 - log1p(growth) / (2.0 + growth))  # within 2 % of the root of z e^z = x
    for _ in range(5):
        z = (z * z + x * exp(-z)) / (1.0 + z)  # Newton, as a sum of positive terms
    return 0.5 * z


@register_jitable
def _step(r: Array, u: Array, t: Array, bend: float) -> Array:
    """Newton's next iterate for r (e^(r^2) + 2 t e^(-r^2)) = u; `bend` where the left side falls: no root that way."""
    square = r * r
    growth = exp(square)
    decay = 2.0 * t / growth
    slope = growth * (1.0 + 2.0 * square) + decay * (1.0 - 2.0 * square)
    return where(slope <= 1e-7, bend, r - (r * (growth + decay) - u) / where(slope <= 1e-7, 1.0, slope))


@regularizer
class LambertW(NamedTuple):
    """The penalty of an exponential mask, q(u) = w^2 + w with w = W0(2 u^2) / 2.

    Ridge near 0, convex up to u = sqrt(e / 2), concave beyond, growing like (log u)^2. Shrinks small blocks by the
    factor 1 / (1 + 2 t) but never to 0: useful to study softmax masks, not to get a sparse answer. `Expm1Mask` is
    sparse.

    Notes
    -----
    u = sqrt(w) e^w, q'(u) = 2 u e^(-2 w). Not subadditive: q(a + b) > q(a) + q(b) whenever a, b > 0 and a + b <= e.
    For t <= 1 / rho = 10.547 the prox is continuous; for larger t it jumps from one positive value to another. q' is
    concave up to w = sqrt(3) / 2 and convex beyond, so at most one local minimum lies on either side: Newton's method
    runs to the first from v = 0 and to the last from v = u.

    References
    ----------
    Yasuda, Axiotis, Fu, Bateni, Mirrokni (2024), "SequentialAttention++ for block sparsification", arXiv 2402.17902,
    Lemma 2.1.

    Examples
    --------
    >>> import math
    >>> q = LambertW()
    >>> round(q.value(math.e), 12), round(q.prox(17.034, 20.0), 3), round(q.prox(17.0342, 20.0), 3)
    (2.0, 0.749, 8.237)
    """

    def value(self, u: Array) -> Array:
        w = _logit(u)
        return w * w + w

    def slope(self, u: Array) -> Array:
        return 2.0 * u * exp(-2.0 * _logit(u))

    def inverse(self, v: Array) -> Array:
        w = minimum(2.0 * v / (1.0 + sqrt(1.0 + 4.0 * v)), _FARTHEST)
        return sqrt(w) * exp(w)

    def prox(self, u: Array, t: Array) -> Array:
        # In the root r of the logit, v = r e^(r^2) and v + t q'(v) = r (e^(r^2) + 2 t e^(-r^2)).
        bend = math.sqrt(0.5 * math.sqrt(3.0))  # where q' turns from concave to convex in v
        at_bend = bend * (math.exp(bend * bend) + 2.0 * t * math.exp(-bend * bend)) - u
        low = 0.0 * at_bend
        high = maximum(sqrt(_logit(u)), bend) + low
        for _ in range(20):
            low = minimum(maximum(_step(low, u, t, bend), 0.0), bend)
            high = maximum(_step(high, u, t, bend), bend)
        first = low * exp(low * low)
        last = minimum(high * exp(high * high), maximum(u, first))
        # Objective at the first stationary point minus objective at the last.
        rise = (high - low) * (high + low) * (1.0 + high * high + low * low)
        excess = (last - first) * (u - 0.5 * (first + last)) - t * rise
        only_last = (at_bend < 0.0) & (low >= bend)
        only_first = (at_bend >= 0.0) & (high <= bend)
        return where(only_last, last, where(only_first | (excess <= 0.0), first, last))

    def lifted_prox(self, u: float, t: float, rest: float) -> float:
        return lifted_prox_by_search(self, u, t, rest)

    def slope_at_zero(self) -> float:
        return 0.0

    def weak_convexity(self) -> float:
        return 2.0 * (2.0 - math.sqrt(3.0)) * math.exp(-math.sqrt(3.0))

    def increasing(self) -> bool:
        return True

    def concave(self) -> bool:
        return False

    def subadditive(self) -> bool:
        return False

    def bounded(self) -> bool:
        return False

    def ceiling(self) -> float:
        return math.inf


@register_jitable
def _norm(w: Array) -> Array:
    """The norm u = sqrt(w) e^w (1 - e^-w)^(3/2) whose optimal logit is w."""
    return sqrt(w) * exp(w) * (-expm1(-w)) ** 1.5


@register_jitable
def _logit_expm1(u: Array) -> Array:
    """The inverse of `_norm`, u > 0: log u is concave in w, and Newton's steps from below rise to the root."""
    w = log1p(sqrt(u))
    target = log(u)
    for _ in range(6):
        error = 0.5 * log(w) + w + 1.5 * log(-expm1(-w)) - target
        w = w - error / (0.5 / w + 1.0 + 1.5 / expm1(w))
    return w


@regularizer
class Expm1Mask(NamedTuple):
    """The penalty of the mask e^w - 1, q(u) = w^2 + w (1 - e^-w) with u = sqrt(w) e^w (1 - e^-w)^(3/2).

    Concave with slope 2 at 0 and a tail like (log u)^2: the sparse relative of `LambertW`, to which Theorem 1.1 of
    arXiv 2402.17902 applies.

    Notes
    -----
    q'(u) = 2 sqrt(w / (e^w (e^w - 1))). q'' falls to -inf at 0, so the prox jumps for every t: it leaves 0 a little
    below u = 2 t. The stationary points solve v(w) + t q'(v(w)) = u; both terms are convex in w^2, and Newton's method
    falls from the logit of u to the larger root.

    References
    ----------
    The mask e^w of Lemma 2.1 of arXiv 2402.17902, shifted so that it vanishes at no cost.

    Examples
    --------
    >>> q = Expm1Mask()
    >>> q.slope_at_zero(), q.prox(1.6, 1.0), round(q.prox(1.7, 1.0), 4)
    (2.0, 0.0, 0.4447)
    """

    def value(self, u: Array) -> Array:
        w = _logit_expm1(maximum(u, 1e-30))
        return where(u <= 1e-30, 2.0 * u, w * w - w * expm1(-w))

    def slope(self, u: Array) -> Array:
        w = _logit_expm1(maximum(u, 1e-30))
        return 2.0 * sqrt(w * exp(-w) / expm1(w))

    def inverse(self, v: Array) -> Array:
        # w^2 + w (1 - e^-w) is convex, and at most v at w = sqrt(v) or below: Newton's steps fall to the root.
        target = maximum(v, 1e-30)
        w = sqrt(target)
        for _ in range(5):
            fade = -expm1(-w)
            w = w - (w * w + w * fade - target) / (2.0 * w + fade + w * (1.0 - fade))
        return where(v <= 1e-30, 0.5 * v, _norm(minimum(w, _FARTHEST)))

    def prox(self, u: Array, t: Array) -> Array:
        w = _logit_expm1(maximum(u, 1e-30))
        for _ in range(10):
            norm = _norm(w)
            odds = expm1(w)
            pull = 2.0 * t * sqrt(w * exp(-w) / odds)
            slope = norm * (0.5 / w + 1.0 + 1.5 / odds) + pull * (0.5 / w - 1.0 - 0.5 / odds)
            square = w * w - 2.0 * w * (norm + pull - u) / where(slope <= 0.0, 1.0, slope)
            # Without a root the steps leave for 0, or meet a slope <= 0 and stop: the objective then chooses 0.
            w = where(slope <= 0.0, w, sqrt(maximum(square, 1e-30)))
        root = _norm(w)
        gain = 0.5 * root * (2.0 * u - root) - t * (w * w - w * expm1(-w))
        return where(gain <= 0.0, 0.0, minimum(root, u))

    def lifted_prox(self, u: float, t: float, rest: float) -> float:
        return lifted_prox_by_search(self, u, t, rest)

    def slope_at_zero(self) -> float:
        return 2.0

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
