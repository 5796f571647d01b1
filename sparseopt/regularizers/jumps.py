"""q with a kink or a jump: the prox jumps for every step.

    Capped(theta)  q(u) = min(u, theta)
    L0()           q(u) = 1 for u > 0

The prox is soft or no thresholding, whichever has the smaller objective, and hard thresholding for large steps: where
both are equally good the smaller norm is returned. Neither q is strictly increasing. In problem (1) Capped is posed on
blocks up to theta, and L0 leaves only the zero solution.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from sparseopt.regularizers._define import Array, positive, regularizer
from sparseopt.scalar import maximum, minimum, where

__all__ = ["Capped", "L0"]

# q(u) beyond the knot, computed in other units, may exceed the ceiling by a rounding: its inverse is still the knot.
_ALMOST = 1.0 + 1e-15


@regularizer
class Capped(NamedTuple):
    """Capped l1, q(u) = min(u, theta).

    The group lasso for blocks below theta, no shrinkage above. The kink at theta makes the weak convexity infinite: the
    prox jumps for every step.

    Parameters
    ----------
    theta : float, > 0
        The knot, in the units of a block's norm.

    Notes
    -----
    For t < 2 theta the prox is soft-thresholding up to u = theta + t / 2, where it jumps by t to v = u. For larger t it
    is hard thresholding at sqrt(2 t theta). `slope` at the kink is the right one, 0.

    References
    ----------
    Zhang (2010), "Analysis of multi-stage convex relaxation for sparse regularization", J. Mach. Learn. Res. 11.

    Examples
    --------
    >>> Capped(1.0).prox(1.5, 1.0), Capped(1.0).prox(1.75, 1.0)
    (0.5, 1.75)
    """

    theta: float = 1.0

    def _check(self) -> None:
        positive("theta", self.theta, "use L2() for its limit inf or L0() for its limit 0")

    def value(self, u: Array) -> Array:
        return minimum(u, self.theta)

    def slope(self, u: Array) -> Array:
        return where(u < self.theta, 1.0, 0.0 * u)

    def inverse(self, v: Array) -> Array:
        return where(v > _ALMOST * self.theta, math.inf, minimum(v, self.theta))

    def prox(self, u: Array, t: Array) -> Array:
        soft = where(u > self.theta + 0.5 * t, u, maximum(u - t, 0.0))
        hard = where(u * u <= 2.0 * t * self.theta, 0.0, u)
        return where(t >= 2.0 * self.theta, hard, soft)

    def lifted_prox(self, u: float, t: float, rest: float) -> float:
        # phi(v) = v + rest as long as that stays below the knot.
        return minimum(maximum(u - t, 0.0), maximum(self.theta - rest, 0.0))

    def slope_at_zero(self) -> float:
        return 1.0

    def weak_convexity(self) -> float:
        return math.inf

    def increasing(self) -> bool:
        return False

    def concave(self) -> bool:
        return True

    def subadditive(self) -> bool:
        return True

    def bounded(self) -> bool:
        return True

    def ceiling(self) -> float:
        return self.theta


@regularizer
class L0(NamedTuple):
    """Count of nonzero blocks, q(u) = 1 for u > 0.

    Notes
    -----
    prox(u, t) is u beyond sqrt(2 t), else 0. q jumps at 0, so the slope there is inf although `slope` is 0 for u > 0.
    It has no inverse, and problem (1) with it has only the zero solution.

    References
    ----------
    Blumensath, Davies (2008), "Iterative thresholding for sparse approximations", J. Fourier Anal. Appl. 14.

    Examples
    --------
    >>> L0().prox(1.9, 2.0), L0().prox(2.1, 2.0)
    (0.0, 2.1)
    """

    def value(self, u: Array) -> Array:
        return where(u > 0.0, 1.0, 1.0 * u)

    def slope(self, u: Array) -> Array:
        return 0.0 * u

    def inverse(self, v: Array) -> Array:
        return where(v > 1.0, math.inf, 0.0 * v)

    def prox(self, u: Array, t: Array) -> Array:
        return where(u * u > 2.0 * t, 1.0 * u, 0.0 * (u + t))

    def lifted_prox(self, u: float, t: float, rest: float) -> float:
        return 0.0 * u

    def slope_at_zero(self) -> float:
        return math.inf

    def weak_convexity(self) -> float:
        return math.inf

    def increasing(self) -> bool:
        return False

    def concave(self) -> bool:
        # A concave function may jump up at the end of its domain: q(theta u) = 1 >= theta q(u).
        return True

    def subadditive(self) -> bool:
        return True

    def bounded(self) -> bool:
        return True

    def ceiling(self) -> float:
        return 1.0
