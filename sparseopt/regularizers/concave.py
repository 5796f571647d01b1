"""The group lasso and its logarithm: q concave, increasing, unbounded, the class of Theorem 1.1 of arXiv 2402.17902.

    L2           q(u) = u                    the group lasso
    LogSum(eps)  q(u) = log(1 + u / eps)     reweighted group lasso

A positive stationary point v of the prox problem solves v - u + t q'(v) = 0: linear for L2, quadratic for LogSum. Only
the larger root can be a local minimum, and v = 0 is one as well whenever u <= t q'(0+): then the objective decides,
and the prox jumps. In problem (1), where q^-1(sum_g q(u_g)) couples the groups, both are again group lassos block by
block.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from sparseopt.regularizers._define import Array, positive, regularizer
from sparseopt.scalar import exp, expm1, log1p, maximum, sqrt, where

__all__ = ["L2", "LogSum"]


@regularizer
class L2(NamedTuple):
    """Group lasso, q(u) = u: the norm of the block itself.

    The only convex member of the table, and the problem that all others start from. Every nonzero block is shrunk by
    the same amount t, however large it is.

    Notes
    -----
    prox(u, t) = max(u - t, 0). phi(v) = v + rest, so problem (1) with this q is the group lasso.

    References
    ----------
    Yuan, Lin (2006), "Model selection and estimation in regression with grouped variables", J. R. Stat. Soc. B 68.

    Examples
    --------
    >>> L2().prox(3.0, 0.5)
    2.5
    """

    def value(self, u: Array) -> Array:
        return 1.0 * u

    def slope(self, u: Array) -> Array:
        return 1.0 + 0.0 * u

    def inverse(self, v: Array) -> Array:
        return 1.0 * v

    def prox(self, u: Array, t: Array) -> Array:
        return maximum(u - t, 0.0)

    def lifted_prox(self, u: float, t: float, rest: float) -> float:
        return maximum(u - t, 0.0)

    def slope_at_zero(self) -> float:
        return 1.0

    def weak_convexity(self) -> float:
        return 0.0

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


@regularizer
class LogSum(NamedTuple):
    """Log-sum penalty, q(u) = log(1 + u / eps).

    Shrinks a block of norm u by about t / (u + eps): large blocks are nearly unbiased. Tends to u / eps as eps grows
    (group lasso) and, scaled by 1 / log(1 + 1 / eps), to the count of nonzero blocks as eps falls to 0.

    Parameters
    ----------
    eps : float, > 0
        Scale, in the units of a block's norm: blocks well below eps are treated as by the group lasso, blocks well
        above it are hardly shrunk.

    Notes
    -----
    The stationary points of the prox problem solve (v - u)(v + eps) + t = 0; the larger root is the only local minimum
    with v > 0 and exists when (u + eps)^2 >= 4 t. For t <= eps^2 the prox is continuous and leaves 0 at u = t / eps.
    For t > eps^2 it jumps: the root must also beat v = 0. phi(v) = e^rest v + eps (e^rest - 1) is affine, so every
    block problem of (1) is a group lasso.

    References
    ----------
    Candes, Wakin, Boyd (2008), "Enhancing sparsity by reweighted l1 minimization", J. Fourier Anal. Appl. 14.

    Examples
    --------
    >>> LogSum(1.0).prox(3.18, 4.0), round(LogSum(1.0).prox(3.19, 4.0), 3)
    (0.0, 1.719)
    """

    eps: float = 1.0

    def _check(self) -> None:
        positive("eps", self.eps, "use L0() for its limit 0 or L2() for its limit inf")

    def value(self, u: Array) -> Array:
        return log1p(u / self.eps)

    def slope(self, u: Array) -> Array:
        return 1.0 / (self.eps + u)

    def inverse(self, v: Array) -> Array:
        return self.eps * expm1(v)

    def prox(self, u: Array, t: Array) -> Array:
        eps = self.eps
        turn = 2.0 * sqrt(t)
        discriminant = (u + eps - turn) * (u + eps + turn)
        width = sqrt(maximum(discriminant, 0.0))
        # The larger root (u - eps + width) / 2; for u < eps in the form without cancellation.
        apart = where(u < eps, eps - u + width, 1.0)
        root = where(u < eps, 2.0 * (u * eps - t) / apart, 0.5 * (u - eps + width))
        root = maximum(root, 0.0)
        # Objective at 0 minus objective at the root, written without u^2 - u^2: (v - u)^2 - u^2 = v (v - 2 u).
        gain = 0.5 * root * (2.0 * u - root) - t * log1p(root / eps)
        stays = where(t <= eps * eps, u * eps <= t, (discriminant < 0.0) | (gain <= 0.0))
        return where(stays, 0.0, root)

    def lifted_prox(self, u: float, t: float, rest: float) -> float:
        if rest > 700.0:  # e^rest is beyond every u / t
            return 0.0 * u
        return maximum(u - t * exp(rest), 0.0)

    def slope_at_zero(self) -> float:
        return 1.0 / self.eps

    def weak_convexity(self) -> float:
        return 1.0 / self.eps**2

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
