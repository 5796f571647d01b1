"""Penalties: what makes a solution group-sparse.

    Penalty     Omega(w) = lam [(1 - a) sum_g omega_g q(||w_g||) + a ||w||_1] + ridge / 2 ||w||^2
    Composite   Omega(w) = lam [(1 - a) q^-1(sum_g q(omega_g ||w_g||)) + a ||w||_1] + ridge / 2 ||w||^2

with a = l1_ratio; groups of weight 0 are left out of every term. The second is that of problem (1) of arXiv 2402.17902.
With several outputs w is a matrix (p, K), and a group is a set of its rows.

The terms work together in one prox: soft-threshold by t lam a, divide by 1 + t ridge, then shrink the block's norm.
That is exact for every nondecreasing q: for a block of given norm r, the best direction is that of the thresholded
block, whatever r is.
"""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Real
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sparseopt.groups import Groups
from sparseopt.regularizers import L2, Regularizer, Scaled, checked, get_regularizer
from sparseopt.structs import compiled

__all__ = ["Composite", "Lifted", "Penalty", "Separable", "bounded_number", "named_regularizer"]

Array = NDArray[np.float64]


@compiled
class Separable(NamedTuple):
    """How a block is shrunk when groups do not see each other: the penalty is t omega q(u).

    shrink is the prox of one norm, tangent the derivative of the penalty over t in it, cost what a block adds to `rest`
    of the others; whole(sum of part) is the penalty.
    """

    q: Regularizer

    def shrink(self, u, t, omega, rest):
        return self.q.prox(u, t * omega)

    def cost(self, u, omega):
        return 0.0

    def tangent(self, u, omega, rest):
        return omega * self.q.slope(u)

    def part(self, u, omega):
        return omega * self.q.value(u)

    def whole(self, parts):
        return parts


@compiled
class Lifted(NamedTuple):
    """How a block is shrunk in problem (1): the penalty is t q^-1(q(omega u) + rest), rest = sum of the other costs."""

    q: Regularizer

    def shrink(self, u, t, omega, rest):
        return self.q.lifted_prox(omega * u, t * omega * omega, rest) / omega

    def cost(self, u, omega):
        return self.q.value(omega * u)

    def tangent(self, u, omega, rest):
        if rest == 0.0:  # where a bounded q has lost its slope as well
            return omega
        return omega * self.q.slope(omega * u) / self.q.slope(self.q.inverse(self.q.value(omega * u) + rest))

    def part(self, u, omega):
        return self.q.value(omega * u)

    def whole(self, parts):
        return self.q.inverse(parts)


@dataclass(frozen=True, eq=False)
class Penalty:
    """Separable group penalty, Omega(w) = lam [(1 - a) sum_g omega_g q(||w_g||) + a ||w||_1] + ridge / 2 ||w||^2.

    Parameters
    ----------
    q : regularizer
        See `sparseopt.regularizers`.
    groups : Groups
        The partition, with weights omega; groups of weight 0 are not penalised at all.
    lam : float, >= 0
        Strength, in units of the loss per unit of the coefficients.
    l1_ratio : float in [0, 1]
        a: share of lam that acts on single coefficients (sparse group lasso), 0 by default.
    ridge : float, >= 0
        Strength of the squared norm; makes every convex problem strongly convex. 0 by default.

    Examples
    --------
    >>> from sparseopt import Groups, L2
    >>> penalty = Penalty(L2(), Groups.equal(4, 2), lam=0.5)
    >>> penalty.value([3.0, 4.0, 0.0, 0.0]) / 2**0.5
    2.5
    >>> (penalty.prox([3.0, 4.0, 0.1, 0.1], t=1 / 2**0.5) / 0.9).round(12)
    array([3., 4., 0., 0.])
    """

    q: Any
    groups: Groups
    lam: float
    l1_ratio: float = 0.0
    ridge: float = 0.0

    def __post_init__(self) -> None:
        q = checked(self.q)
        if isinstance(q, Scaled) and isinstance(q.q, L2):
            q = L2()
        if not isinstance(self.groups, Groups):
            raise TypeError(f"groups must be a Groups, got {type(self.groups).__name__}: convert it with as_groups.")
        object.__setattr__(self, "q", q)
        for name, high in (("lam", np.inf), ("l1_ratio", 1.0), ("ridge", np.inf)):
            object.__setattr__(self, name, bounded_number(name, getattr(self, name), high))

    @property
    def is_convex(self) -> bool:
        """Whether Omega is convex: q convex, for `Composite` q = L2."""
        return self.lam * (1.0 - self.l1_ratio) == 0.0 or self.q.weak_convexity() == 0.0

    @property
    def is_group_lasso(self) -> bool:
        """Whether q(u) = u, so that the dual is known: (sparse) group lasso, with or without ridge."""
        return self.lam * (1.0 - self.l1_ratio) == 0.0 or isinstance(self.q, L2)

    @property
    def shape(self) -> Separable | Lifted:
        """What kernels shrink a block with."""
        return Separable(self.q)

    @property
    def penalised(self) -> NDArray[np.bool_]:
        """Which groups the penalty sees, (n_groups,)."""
        return self.groups.weights > 0.0

    @property
    def block_strength(self) -> float:
        """lam (1 - l1_ratio), the factor of the group term."""
        return self.lam * (1.0 - self.l1_ratio)

    @property
    def entry_strength(self) -> float:
        """lam l1_ratio, the factor of the l1 norm."""
        return self.lam * self.l1_ratio

    def at(self, lam: float) -> Penalty:
        """The same penalty with another lam; the knots of a `Scaled` regularizer move with it."""
        lam = bounded_number("lam", lam, np.inf)
        other = object.__new__(type(self))  # what stays has been checked: on a path this is called for every lam
        other.__dict__.update(self.__dict__, lam=lam)
        if isinstance(self.q, Scaled) and lam > 0.0:
            object.__setattr__(other, "q", self.q._replace(lam=lam))
        return other

    def value(self, w: ArrayLike) -> float:
        """Omega(w) for w of shape (p,) or (p, K)."""
        w = np.asarray(w, dtype=np.float64)
        with np.errstate(over="ignore"):
            total = self.block_strength * self.group_term(self.groups.norms(w)) if self.block_strength else 0.0
            if self.entry_strength or self.ridge:
                seen = w[self.groups.expand(self.penalised)]
                total += self.entry_strength * np.abs(seen).sum() + 0.5 * self.ridge * np.vdot(seen, seen)
        return float(total)

    def prox(self, w: ArrayLike, t: float | ArrayLike) -> Array:
        """argmin_v ||v - w||^2 / 2 + t Omega(v), t a number or one step per group; a new array like w.

        For `Composite`, whose Omega does not separate, see `block_prox`.
        """
        return self.block_prox(w, t, w)

    def block_prox(self, w: ArrayLike, t: float | ArrayLike, at: ArrayLike) -> Array:
        """`prox` of every block, the other blocks fixed where `at` has them.

        A point w with block_prox(w - t grad L(w), t, w) = w is optimal in each block, up to the majorisation by t.
        """
        w = np.asarray(w, dtype=np.float64)
        steps = np.broadcast_to(np.asarray(t, dtype=np.float64), (len(self.groups),)) * self.penalised
        by_feature = self.groups.expand(steps).reshape(-1, *[1] * (w.ndim - 1))
        v = np.sign(w) * np.maximum(np.abs(w) - by_feature * self.entry_strength, 0.0) / (1.0 + by_feature * self.ridge)
        u = self.groups.norms(v)
        shrunk = self._shrink_norms(u, steps / (1.0 + steps * self.ridge), self.groups.norms(at))
        factor = np.divide(shrunk, u, out=np.zeros_like(u), where=u > 0.0)
        return v * self.groups.expand(factor).reshape(by_feature.shape)

    def group_term(self, u: Array) -> float:
        """sum_g omega_g q(u_g), or for `Composite` q^-1(sum_g q(omega_g u_g)), from the norms u of all groups."""
        return float(self.groups.weights @ np.where(self.penalised, self.q.value(u), 0.0))

    def _shrink_norms(self, u: Array, steps: Array, at: Array) -> Array:
        t = steps * self.block_strength * self.groups.weights
        out = u.copy()
        seen = t > 0.0
        out[seen] = self.q.prox(u[seen], t[seen])
        return out


@dataclass(frozen=True, eq=False)
class Composite(Penalty):
    """The penalty of problem (1), Omega(w) = lam q^-1(sum_g q(omega_g ||w_g||)), with the optional terms of `Penalty`.

    One active group costs lam omega_g ||w_g||, whatever q is; further groups cost less than in the group lasso. For q
    strictly increasing, subadditive and q(0) = 0, Theorem 1.1 of arXiv 2402.17902 ties its minimisers to those of the
    group lasso. For bounded q the value is inf as soon as the sum exceeds the ceiling of q.

    Notes
    -----
    Not convex unless q is L2; convex in each block, the others fixed, for the q with 1 / q' convex. The prox of the
    whole does not separate, so only block solvers apply.

    Examples
    --------
    >>> from sparseopt import Groups, LogSum
    >>> groups = Groups.equal(2, 1)
    >>> round(Composite(LogSum(1.0), groups, lam=1.0).value([3.0, 1.0]), 12)  # (1 + 3)(1 + 1) - 1
    7.0
    """

    @property
    def is_convex(self) -> bool:
        """Whether Omega is known to be convex: for q = L2."""
        return self.is_group_lasso

    @property
    def shape(self) -> Separable | Lifted:
        """What kernels shrink a block with."""
        return Separable(self.q) if self.is_group_lasso else Lifted(self.q)

    def prox(self, w: ArrayLike, t: float | ArrayLike) -> Array:
        """Only for q = L2; TypeError otherwise, because the groups do not separate."""
        if not self.is_group_lasso:
            raise TypeError(f"Composite of {self.q} has no prox of its own: use block_prox, or solve by bcd.")
        return super().prox(w, t)

    def group_term(self, u: Array) -> float:
        """q^-1(sum_g q(omega_g u_g)) from the norms u of all groups."""
        sizes = self.groups.weights * u
        if self.is_group_lasso or np.count_nonzero(sizes) <= 1:  # q^-1(q(a)) = a, where a bounded q has lost its digits
            return float(sizes.sum())
        return float(self.q.inverse(float(self._costs(u).sum())))

    def _shrink_norms(self, u: Array, steps: Array, at: Array) -> Array:
        if self.is_group_lasso:
            return super()._shrink_norms(u, steps, at)
        out = u.copy()
        costs = self._costs(at)
        total = float(costs.sum())
        shape = self.shape
        for g in np.flatnonzero(steps * self.block_strength * self.groups.weights):
            rest = max(total - float(costs[g]), 0.0)
            t = float(steps[g]) * self.block_strength
            out[g] = shape.shrink(float(u[g]), t, float(self.groups.weights[g]), rest)
        return out

    def _costs(self, u: Array) -> Array:
        """q(omega_g u_g), 0 for groups that the penalty does not see."""
        return np.where(self.penalised, self.q.value(self.groups.weights * u), 0.0)


def named_regularizer(penalty: Any, lam: float, **params: float) -> Any:
    """`get_regularizer`, with the names "mcp" and "scad" meaning the penalties whose knots are multiples of lam."""
    q = get_regularizer(penalty, **params)
    return Scaled(q, lam) if penalty in ("mcp", "scad") and lam > 0.0 else q


def bounded_number(name: str, value: Any, high: float) -> float:
    """`value` as a float, if it is a number between 0 and high; the error names the argument."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number, got {value!r}: pass a float.")
    number = float(value)
    if not 0.0 <= number <= high or number == np.inf:
        bound = "finite and >= 0" if high == np.inf else f"between 0 and {high:g}"
        raise ValueError(f"{name} is {value}: pass a number that is {bound}.")
    return number
