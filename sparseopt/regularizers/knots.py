"""q that bend smoothly into a constant: the group lasso for small blocks, no shrinkage for large ones.

    MCP(gamma)          slope falls linearly from 1 to 0 at gamma
    SCAD(kappa, theta)  slope 1 up to kappa, then falls linearly to 0 at theta kappa

Both have slope 1 at 0, so lam q has the threshold of the group lasso. The knots of the literature's MCP and SCAD lie at
multiples of lam: lam Scaled(q, lam) is their form, see `Scaled`.

For steps t below 1 / rho the prox is continuous: soft-thresholding, stretched so that it meets v = u at the knot. For
larger steps the objective is concave between the knots, so the minimum lies at an end and the prox jumps; a formula
for small steps divides by 1 - t / gamma <= 0 there. Beyond the knot q has no inverse, so problem (1) is posed on
blocks up to the knot: there Theorem 1.1 of arXiv 2402.17902 needs the extra check that the solution stays below it.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from sparseopt.regularizers._define import Array, positive, regularizer
from sparseopt.regularizers._lifted import convex_lifted_prox
from sparseopt.scalar import maximum, minimum, sqrt, where

__all__ = ["MCP", "SCAD"]

# q(u) beyond the knot, computed in other units, may exceed the ceiling by a rounding: its inverse is still the knot.
_ALMOST = 1.0 + 1e-15


@regularizer
class MCP(NamedTuple):
    """Minimax concave penalty, q(u) = u - u^2 / (2 gamma) up to gamma, then gamma / 2.

    Blocks beyond gamma are not shrunk at all. Tends to the group lasso as gamma grows; as gamma falls to 0,
    (2 / gamma) q tends to the count of nonzero blocks.

    Parameters
    ----------
    gamma : float, > 0
        The knot, in the units of a block's norm. The largest concavity of q is 1 / gamma.

    Notes
    -----
    For t < gamma the prox is 0 up to t, (u - t) / (1 - t / gamma) up to gamma, then u (firm thresholding). For
    t >= gamma it is hard thresholding at sqrt(gamma t).

    References
    ----------
    Zhang (2010), "Nearly unbiased variable selection under minimax concave penalty", Ann. Statist. 38, section 2.

    Examples
    --------
    >>> MCP(4.0).prox(3.0, 2.0), MCP(4.0).prox(4.4, 5.0), MCP(4.0).prox(4.5, 5.0)
    (2.0, 0.0, 4.5)
    """

    gamma: float = 3.0

    def _check(self) -> None:
        positive("gamma", self.gamma, "use L2() for its limit inf or L0() for its limit 0")

    def value(self, u: Array) -> Array:
        below = minimum(u, self.gamma)
        return below - below * below / (2.0 * self.gamma)

    def slope(self, u: Array) -> Array:
        return maximum(1.0 - u / self.gamma, 0.0)

    def inverse(self, v: Array) -> Array:
        left = maximum(1.0 - 2.0 * v / self.gamma, 0.0)
        return where(v > _ALMOST * 0.5 * self.gamma, math.inf, 2.0 * v / (1.0 + sqrt(left)))

    def prox(self, u: Array, t: Array) -> Array:
        gamma = self.gamma
        firm = maximum(u - t, 0.0) / where(t >= gamma, 1.0, 1.0 - t / gamma)
        hard = where(u * u <= gamma * t, 0.0, u)
        return where(t >= gamma, hard, minimum(firm, u))

    def lifted_prox(self, u: float, t: float, rest: float) -> float:
        return convex_lifted_prox(self, u, t, rest)

    def slope_at_zero(self) -> float:
        return 1.0

    def weak_convexity(self) -> float:
        return 1.0 / self.gamma

    def increasing(self) -> bool:
        return False

    def concave(self) -> bool:
        return True

    def subadditive(self) -> bool:
        return True

    def bounded(self) -> bool:
        return True

    def ceiling(self) -> float:
        return 0.5 * self.gamma


@regularizer
class SCAD(NamedTuple):
    """Smoothly clipped absolute deviation, with slope 1 up to kappa and 0 beyond theta kappa.

        q(u) = u                                                         for u <= kappa,
               u - (u - kappa)^2 / (2 (theta - 1) kappa)                 for kappa <= u <= theta kappa,
               kappa (theta + 1) / 2                                     beyond.

    Small blocks are treated as by the group lasso, large ones are not shrunk.

    Parameters
    ----------
    kappa : float, > 0
        First knot, in the units of a block's norm.
    theta : float, > 1
        Second knot in multiples of the first; 3.7 is the choice of the authors.

    Notes
    -----
    For t < (theta - 1) kappa the prox is soft-thresholding at t up to the norm kappa, then linear until it meets u at
    theta kappa. For larger t it is the better of min(max(u - t, 0), kappa) and u.

    References
    ----------
    Fan, Li (2001), "Variable selection via nonconcave penalized likelihood", J. Amer. Statist. Assoc. 96, section 2.

    Examples
    --------
    >>> q = SCAD(1.0, 3.7)
    >>> q.prox(1.5, 1.0), round(q.prox(3.0, 1.0), 6), q.prox(4.0, 1.0)
    (0.5, 2.588235, 4.0)
    """

    kappa: float = 1.0
    theta: float = 3.7

    def _check(self) -> None:
        positive("kappa", self.kappa)
        if not 1.0 < self.theta < math.inf:
            raise ValueError(
                f"theta must be above 1 and finite, got {self.theta}: use Capped({self.kappa}) for theta = 1."
            )

    def value(self, u: Array) -> Array:
        below = minimum(u, self.theta * self.kappa)
        bent = maximum(below - self.kappa, 0.0)
        return below - bent * bent / (2.0 * (self.theta - 1.0) * self.kappa)

    def slope(self, u: Array) -> Array:
        fall = (self.theta * self.kappa - u) / ((self.theta - 1.0) * self.kappa)
        return minimum(maximum(fall, 0.0), 1.0)

    def inverse(self, v: Array) -> Array:
        kappa = self.kappa
        rise = maximum(v - kappa, 0.0)
        left = maximum(1.0 - 2.0 * rise / ((self.theta - 1.0) * kappa), 0.0)
        bent = minimum(v, kappa) + 2.0 * rise / (1.0 + sqrt(left))
        return where(v > _ALMOST * 0.5 * kappa * (self.theta + 1.0), math.inf, bent)

    def prox(self, u: Array, t: Array) -> Array:
        kappa = self.kappa
        width = (self.theta - 1.0) * kappa
        soft = maximum(u - t, 0.0)
        low = minimum(soft, kappa)
        stretched = low + maximum(soft - kappa, 0.0) / where(t >= width, 1.0, 1.0 - t / width)
        ceiling = 0.5 * kappa * (self.theta + 1.0)
        stays_low = 0.5 * (u - low) * (u - low) <= t * (ceiling - low)
        return where(t >= width, where(stays_low, low, u), minimum(stretched, u))

    def lifted_prox(self, u: float, t: float, rest: float) -> float:
        return convex_lifted_prox(self, u, t, rest)

    def slope_at_zero(self) -> float:
        return 1.0

    def weak_convexity(self) -> float:
        return 1.0 / ((self.theta - 1.0) * self.kappa)

    def increasing(self) -> bool:
        return False

    def concave(self) -> bool:
        return True

    def subadditive(self) -> bool:
        return True

    def bounded(self) -> bool:
        return True

    def ceiling(self) -> float:
        return 0.5 * self.kappa * (self.theta + 1.0)
