"""A regularizer in other units: lam q(u / lam).

The table's q have no strength of their own; a penalty multiplies them by lam. MCP and SCAD of the literature have
knots at multiples of lam, so their shape changes along a path: lam Scaled(MCP(gamma), lam) = lam u - u^2 / (2 gamma)
up to gamma lam.
"""

from __future__ import annotations

from typing import NamedTuple

from sparseopt.regularizers._define import Array, Regularizer, checked, positive, regularizer

__all__ = ["Scaled"]


@regularizer
class Scaled(NamedTuple):
    """The regularizer lam q(u / lam), whose knots lie lam times as far out as those of q.

    The slope at 0 does not change, so a penalty lam' * Scaled(q, lam) has the same smallest lam' with a zero solution
    as lam' * q. With lam' = lam it is what the literature calls MCP_{lam, gamma} or SCAD_{lam, a}.

    Parameters
    ----------
    q : regularizer
        The shape.
    lam : float, > 0
        The unit: norms are measured in multiples of lam.

    Notes
    -----
    prox(u, t) = lam q.prox(u / lam, t / lam), by v = lam x in the definition.

    References
    ----------
    Breheny, Huang (2015), "Group descent algorithms for nonconvex penalized linear and logistic regression models with
    grouped predictors", Stat. Comput. 25, section 2, for knots that move with lam.

    Examples
    --------
    >>> from sparseopt.regularizers import MCP
    >>> q = Scaled(MCP(3.0), 0.5)
    >>> q.slope(0.75), q.slope(1.5), q.ceiling()
    (0.5, 0.0, 0.75)
    """

    q: Regularizer
    lam: float = 1.0

    def _check(self) -> None:
        positive("lam", self.lam)
        checked(self.q)

    def value(self, u: Array) -> Array:
        return self.lam * self.q.value(u / self.lam)

    def slope(self, u: Array) -> Array:
        return self.q.slope(u / self.lam)

    def inverse(self, v: Array) -> Array:
        return self.lam * self.q.inverse(v / self.lam)

    def prox(self, u: Array, t: Array) -> Array:
        return self.lam * self.q.prox(u / self.lam, t / self.lam)

    def lifted_prox(self, u: float, t: float, rest: float) -> float:
        return self.lam * self.q.lifted_prox(u / self.lam, t / self.lam, rest / self.lam)

    def slope_at_zero(self) -> float:
        return self.q.slope_at_zero()

    def weak_convexity(self) -> float:
        return self.q.weak_convexity() / self.lam

    def increasing(self) -> bool:
        return self.q.increasing()

    def concave(self) -> bool:
        return self.q.concave()

    def subadditive(self) -> bool:
        return self.q.subadditive()

    def bounded(self) -> bool:
        return self.q.bounded()

    def ceiling(self) -> float:
        return self.lam * self.q.ceiling()
