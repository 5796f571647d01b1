"""What every regularizer must obey, checked by numbers.

    q(0) = 0, q nondecreasing, q' its central difference, q'(0+) the limit of q(u) / u
    q(q^-1(v)) = v below the ceiling, q^-1 = inf above it
    q + rho u^2 / 2 convex; concave, subadditive, increasing, bounded as claimed
    prox(0) = 0, 0 <= prox(u) <= u, prox monotone, stationary, and at least as good as every point of a dense grid
    lifted_prox at least as good as every point of a dense grid, for phi(v) = q^-1(q(v) + rest)
    floats, arrays and kernels agree, float32 stays float32, NaN stays NaN, nothing overflows (see `parity`)

Each law recomputes from the definition and trusts nothing but `value`, whose own law is `value_law`. A claim `False` of
`concave`, `subadditive` or `increasing`, or a weak convexity of inf, claims nothing and is not tested.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparseopt.laws.grids import fail, first, norms
from sparseopt.laws.parity import parity_laws
from sparseopt.laws.proxes import lifted_prox_law, prox_law
from sparseopt.regularizers import checked

__all__ = [
    "check_regularizer",
    "claims_law",
    "inverse_law",
    "slope_law",
    "value_law",
    "weak_convexity_law",
]


def check_regularizer(q: Any) -> None:
    """Check all laws on one regularizer, whatever its class.

    Parameters
    ----------
    q : regularizer
        An instance. Its parameters should be of order 1e-2 to 1e2: that is where the grids are dense.

    Raises
    ------
    AssertionError
        If a law is broken; the message says which, and by which numbers.

    Notes
    -----
    Passing is evidence, not proof: a violation on an interval shorter than about 1 % of its distance from 0 may stay
    unseen. The first call for a class compiles one kernel, which takes a few seconds.

    Examples
    --------
    >>> from sparseopt.regularizers import LogSum
    >>> check_regularizer(LogSum(0.5))
    """
    q = checked(q)
    laws: tuple[Callable[[Any], None], ...] = (
        value_law,
        slope_law,
        inverse_law,
        weak_convexity_law,
        claims_law,
        prox_law,
        lifted_prox_law,
        *parity_laws,
    )
    with np.errstate(all="raise", under="ignore"):
        for law in laws:
            try:
                law(q)
            except FloatingPointError as error:
                raise AssertionError(f"{q} raises a floating point warning in the {law.__name__}: {error}.") from error


def value_law(q: Any) -> None:
    """q(0) = 0 and q is nondecreasing and finite."""
    u = norms()
    value = q.value(u)
    at_zero = q.value(0.0)
    if at_zero != 0.0:
        fail(q, "q(0) = 0", value=at_zero)
    k = first(~np.isfinite(value))
    if k is not None:
        fail(q, "q is finite", u=u[k], value=value[k])
    k = first(np.diff(value, prepend=0.0) < -1e-14 * value)
    if k is not None:
        fail(q, "q is nondecreasing", u=u[k], value=value[k], value_before=value[k - 1])


def slope_law(q: Any) -> None:
    """`slope` is the central difference of `value` away from kinks, and `slope_at_zero` the limit of q(u) / u."""
    u = norms()
    u = u[u > 1e-4]  # below, the rounding of a value like log(1 + u) exceeds its difference
    h = 1e-5 * u
    slope = q.slope(u)
    value = q.value(u)
    difference = (q.value(u + h) - q.value(u - h)) / (2.0 * h)
    left, right = q.slope(u - h), q.slope(u + h)
    # At a kink the slope need only lie between the one-sided slopes; elsewhere they are close to each other.
    margin = 1e-6 * np.abs(difference) + 1e-10 * value / u + np.abs(left - right)
    k = first(~(np.abs(slope - difference) <= margin))
    if k is not None:
        fail(q, "slope is the derivative of value", u=u[k], slope=slope[k], difference=difference[k])
    limit = q.slope_at_zero()
    if limit == math.inf:
        near, far = (q.value(h) / h for h in (1e-100, 1e-6))
        if not near > 1.05 * far:
            fail(q, "slope_at_zero is the limit of q(u) / u", slope_at_zero=limit, quotient=near)
    else:
        for small in (1e-10, 1e-12):
            quotient = q.value(small) / small
            if not abs(quotient - limit) <= 1e-3 * max(abs(limit), 1e-3):
                fail(q, "slope_at_zero is the limit of q(u) / u", slope_at_zero=limit, u=small, quotient=quotient)


def inverse_law(q: Any) -> None:
    """q^-1(v) is the smallest u with q(u) >= v, 0 at 0 and inf above the ceiling."""
    ceiling = q.ceiling()
    top = min(ceiling, float(q.value(1e6)))
    v = top * np.unique(np.concatenate([np.geomspace(1e-8, 0.9, 40), np.linspace(0.05, 0.999, 40)]))
    u = q.inverse(v)
    k = first(~((q.value(u * (1.0 - 1e-7)) <= v) & (q.value(u * (1.0 + 1e-7) + 1e-300) >= v * (1.0 - 1e-13))))
    if k is not None:
        fail(q, "inverse is the smallest u with q(u) >= v", v=v[k], inverse=u[k], value=q.value(u[k]))
    if q.inverse(0.0) != 0.0:
        fail(q, "q^-1(0) = 0", inverse=q.inverse(0.0))
    if ceiling < math.inf and q.inverse(1.01 * ceiling) != math.inf:
        fail(q, "q^-1 is inf above the ceiling", v=1.01 * ceiling, inverse=q.inverse(1.01 * ceiling))


def weak_convexity_law(q: Any) -> None:
    """q + rho u^2 / 2 is convex: at midpoints, and its slope rises."""
    rho = q.weak_convexity()
    if rho < 0.0:
        fail(q, "the weak convexity is at least 0", weak_convexity=rho)
    if rho == math.inf:
        return
    u = norms()
    slope = q.slope(u) + rho * u
    k = first(np.diff(slope) < -1e-12 * (np.abs(slope[1:]) + 1.0))
    if k is not None:
        fail(q, "q'(u) + rho u rises", u=u[k], then=u[k + 1], slope=slope[k], slope_then=slope[k + 1], rho=rho)
    a, b = np.concatenate([[0.0], u[:-1]]), u
    middle = 0.5 * (a + b)
    excess = q.value(middle) - 0.5 * (q.value(a) + q.value(b)) - 0.125 * rho * (b - a) ** 2
    k = first(excess > 1e-12 * (q.value(b) + rho * b * b) + 1e-15)
    if k is not None:
        fail(q, "q + rho u^2 / 2 is convex at the midpoint", a=a[k], b=b[k], excess=excess[k], rho=rho)


def claims_law(q: Any) -> None:
    """What `concave`, `subadditive`, `increasing`, `bounded` and `ceiling` say is true on a grid of pairs."""
    u = norms()[::2]
    value = q.value(u)
    a, b = u[:, None], u[None, :]
    both = value[:, None] + value[None, :]
    if q.concave():
        _refuse(q, "q is concave, as claimed", a, b, 0.5 * both - q.value(0.5 * (a + b)), both)
        slope = q.slope(u)
        k = first(np.diff(slope) > 1e-12 * (1.0 + slope[:-1]))
        if k is not None:
            fail(
                q, "q is concave, as claimed: q' falls", u=u[k], then=u[k + 1], slope=slope[k], slope_then=slope[k + 1]
            )
    if q.subadditive():
        _refuse(q, "q is subadditive, as claimed", a, b, q.value(a + b) - both, both)
    ceiling = q.ceiling()
    if q.bounded() != (ceiling < math.inf):
        fail(q, "q is bounded if and only if its ceiling is finite", bounded=q.bounded(), ceiling=ceiling)
    far = float(q.value(1e30))
    if not far <= ceiling * (1.0 + 1e-12):
        fail(q, "q stays below its ceiling", u=1e30, value=far, ceiling=ceiling)
    if q.bounded() and far < 0.999 * ceiling:
        fail(q, "q comes near its ceiling", u=1e30, value=far, ceiling=ceiling)
    if not q.bounded() and not far > float(q.value(1e15)) * (1.0 + 1e-12):
        fail(q, "q grows without bound, as claimed", u=1e30, value=far)
    if q.increasing():
        # Twice the norm at which floats saturate lies beyond every knot, but has a positive slope if there is none.
        rising = u[value < ceiling * (1.0 - 1e-9)]
        u = np.append(rising, 2.0 * rising[-1]) if rising.size else u[:1]
        slope = q.slope(u)
        k = first(~(slope > 0.0))
        if k is not None:
            fail(q, "q is strictly increasing, as claimed", u=u[k], slope=slope[k])


def _refuse(q: Any, law: str, a: NDArray, b: NDArray, excess: NDArray, scale: NDArray) -> None:
    beyond = excess - 1e-12 * scale - 1e-15
    worst = np.unravel_index(int(np.argmax(beyond)), excess.shape)
    if beyond[worst] > 0.0:
        fail(q, law, a=a[worst[0], 0], b=b[0, worst[1]], excess=excess[worst])
