"""One block of problem (1): argmin over v >= 0 of h(v) = (v - u)^2 / 2 + t phi(v) with phi(v) = q^-1(q(v) + rest).

phi is nondecreasing, so the minimiser lies in [0, u]. phi' = q'(v) / q'(phi(v)). Where q is bounded, phi is inf as
soon as q(v) + rest exceeds the ceiling; where q becomes constant, v stays below that knot: there phi(v) = v must hold
for rest = 0.

    convex_lifted_prox      1 / q' convex, hence phi convex and h' rising: one sign change, found by regula falsi
    lifted_prox_by_search   any q: every sign change of h' on a grid, and the best of them and of v = 0

Scalar code for kernels; on Python floats it gives the same numbers.
"""

from __future__ import annotations

import math
from typing import Any

from numba.extending import register_jitable

__all__ = ["convex_lifted_prox", "lifted_prox_by_search"]


@register_jitable
def convex_lifted_prox(q: Any, u: float, t: float, rest: float) -> float:
    """`lifted_prox` of a q with 1 / q' convex: h is convex, and its derivative changes sign once."""
    top = _domain(q, u, rest)
    if not top > 0.0:
        return top
    if not rest > 0.0:
        return min(max(u - t, 0.0), top)
    low = 1e-12 * top
    tilt = _tilt(q, low, u, t, rest)
    if tilt >= 0.0:
        return 0.0
    v = _sign_change(q, low, tilt, top, _tilt(q, top, u, t, rest), u, t, rest)
    # Next to a knot the derivative is too steep for its sign to be trusted: the end may be better.
    return top if _gain(q, top, u, t, rest) > _gain(q, v, u, t, rest) else v


@register_jitable
def lifted_prox_by_search(q: Any, u: float, t: float, rest: float) -> float:
    """`lifted_prox` of any q. Two local minima that are closer than 2 % of u may be taken for one."""
    top = _domain(q, u, rest)
    if not top > 0.0:
        return top
    if not rest > 0.0:
        return min(max(u - t, 0.0), top)
    best = 0.0
    best_gain = 0.0
    cells = 64
    low = 1e-12 * top
    low_tilt = _tilt(q, low, u, t, rest)
    for k in range(1, cells + 1):
        high = top * (k / cells) ** 1.5  # denser near 0, where powers bend
        high_tilt = _tilt(q, high, u, t, rest)
        if low_tilt < 0.0 and (high_tilt >= 0.0 or k == cells):
            v = _sign_change(q, low, low_tilt, high, high_tilt, u, t, rest)
            gain = _gain(q, v, u, t, rest)
            if gain > best_gain:
                best = v
                best_gain = gain
        low = high
        low_tilt = high_tilt
    return top if _gain(q, top, u, t, rest) > best_gain else best


@register_jitable
def _domain(q: Any, u: float, rest: float) -> float:
    """The largest v to consider: u, the knot, or where phi becomes inf; 0 if phi is inf everywhere, NaN for NaN."""
    if not u > 0.0:
        return u
    ceiling = q.ceiling()
    if ceiling < math.inf:
        if rest >= ceiling:
            return 0.0
        if rest > 0.0 or not q.increasing():
            return min(u, q.inverse(ceiling - rest))
    return u


@register_jitable
def _sign_change(q: Any, a: float, tilt_a: float, b: float, tilt_b: float, u: float, t: float, rest: float) -> float:
    """Where the derivative, negative at a, reaches 0 on [a, b]; b if it does not. Regula falsi, Illinois variant."""
    if tilt_b < 0.0:
        return b
    kept = 0  # the end that the last step kept: its value is halved if it is kept again
    for _ in range(100):
        steep = not tilt_b < -100.0 * tilt_a  # next to the end of the domain: a secant would not leave a
        middle = 0.5 * (a + b) if steep else (a * tilt_b - b * tilt_a) / (tilt_b - tilt_a)
        if not a < middle < b:
            break
        tilt = _tilt(q, middle, u, t, rest)
        if abs(tilt) <= 4e-16 * u:  # the rounding of the derivative
            return middle
        if tilt < 0.0:
            a = middle
            tilt_a = tilt
            if kept == 1:
                tilt_b = 0.5 * tilt_b
            kept = 1
        else:
            b = middle
            tilt_b = tilt
            if kept == -1:
                tilt_a = 0.5 * tilt_a
            kept = -1
    return a


@register_jitable
def _gain(q: Any, v: float, u: float, t: float, rest: float) -> float:
    """h(0) - h(v), written without u^2 - u^2: (v - u)^2 - u^2 = v (v - 2 u)."""
    return 0.5 * v * (2.0 * u - v) - t * (q.inverse(q.value(v) + rest) - q.inverse(rest))


@register_jitable
def _tilt(q: Any, v: float, u: float, t: float, rest: float) -> float:
    """v - u + t phi'(v) with phi' = q'(v) / q'(phi(v)); inf where phi is infinite or infinitely steep."""
    lifted = q.inverse(q.value(v) + rest)
    if not lifted < math.inf:
        return math.inf
    below = q.slope(lifted)
    if not below > 0.0:
        return math.inf
    return v - u + t * (q.slope(v) / below)
