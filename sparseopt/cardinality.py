"""At most k groups: the constraint that selection works under, in the part of a penalty.

    Omega(w) = ridge / 2 sum_g ||w_g||^2     if at most k penalised groups have w_g != 0,    inf otherwise

over the groups of positive weight. Groups of weight 0 are always in: not counted, not removed, not shrunk. The prox
keeps the k groups that are worth most, shrunk by the ridge. Its conjugate, from which lower bounds of the optimum come,

    Omega*(v) = (sum of the k largest ||v_g||^2) / (2 ridge),    inf if v != 0 on a group of weight 0,

is also that of the perspective relaxation: the k-support norm of the block norms, squared.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from numbers import Integral
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sparseopt.groups import Groups
from sparseopt.penalty import bounded_number

__all__ = ["AtMost", "group_count"]

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class AtMost:
    """Constraint to at most k groups, with an optional ridge.

    Parameters
    ----------
    groups : Groups
        The partition. Groups of weight 0 are always in; positive weights do not matter here, only to selectors that
        compare gradients.
    k : int, >= 0
        How many groups of positive weight may be nonzero.
    ridge : float, >= 0
        Strength of the squared norm of penalised groups. 0 by default.

    Raises
    ------
    ValueError, TypeError
        If k or ridge is not as described.

    Examples
    --------
    >>> from sparseopt import Groups
    >>> one = AtMost(Groups.equal(4, 2), k=1)
    >>> one.value([3.0, 4.0, 0.0, 0.0]), one.value([3.0, 4.0, 0.1, 0.0])
    (0.0, inf)
    >>> one.prox([3.0, 4.0, 0.1, 0.1], t=1.0)
    array([3., 4., 0., 0.])
    """

    groups: Groups
    k: int
    ridge: float = 0.0

    lam: ClassVar[float] = 0.0
    l1_ratio: ClassVar[float] = 0.0
    block_strength: ClassVar[float] = 0.0
    entry_strength: ClassVar[float] = 0.0
    is_group_lasso: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not isinstance(self.groups, Groups):
            raise TypeError(f"groups must be a Groups, got {type(self.groups).__name__}: convert it with as_groups.")
        object.__setattr__(self, "k", group_count("k", self.k))
        object.__setattr__(self, "ridge", bounded_number("ridge", self.ridge, np.inf))

    @property
    def penalised(self) -> NDArray[np.bool_]:
        """Which groups count, (n_groups,): those of positive weight."""
        return self.groups.weights > 0.0

    @property
    def is_convex(self) -> bool:
        """Whether the constraint can be left out: k covers all groups that count."""
        return self.k >= int(np.count_nonzero(self.penalised))

    def at(self, k: float) -> AtMost:
        """The same constraint with another k."""
        return replace(self, k=int(k))

    def value(self, w: ArrayLike) -> float:
        """Omega(w) for w of shape (p,) or (p, K)."""
        w = np.asarray(w, dtype=np.float64)
        if np.count_nonzero(self.groups.norms(w)[self.penalised]) > self.k:
            return float("inf")
        seen = w[self.groups.expand(self.penalised)]
        return float(0.5 * self.ridge * np.vdot(seen, seen))

    def prox(self, w: ArrayLike, t: float | ArrayLike) -> Array:
        """argmin_v sum_g ||v_g - w_g||^2 / (2 t_g) + Omega(v).

        Keeps the k groups of largest ||w_g||^2 / (t_g (1 + t_g ridge)). t is a number or one step per group, > 0; ties
        go to the group with the smaller number.
        """
        w = np.asarray(w, dtype=np.float64)
        steps = np.broadcast_to(np.asarray(t, dtype=np.float64), (len(self.groups),))
        worth = self.groups.norms(w) ** 2 / (steps * (1.0 + steps * self.ridge))
        kept = ~self.penalised
        kept[np.flatnonzero(self.penalised)[np.argsort(-worth[self.penalised], kind="stable")[: self.k]]] = True
        return self._shrunk(w, steps, kept)

    def block_prox(self, w: ArrayLike, t: float | ArrayLike, at: ArrayLike) -> Array:
        """`prox` of every block, the other blocks fixed where `at` has them: zero where k others are active already."""
        w = np.asarray(w, dtype=np.float64)
        steps = np.broadcast_to(np.asarray(t, dtype=np.float64), (len(self.groups),))
        active = (self.groups.norms(at) > 0.0) & self.penalised
        others = np.count_nonzero(active) - active
        return self._shrunk(w, steps, ~self.penalised | (others < self.k))

    def _shrunk(self, w: Array, steps: Array, kept: NDArray[np.bool_]) -> Array:
        factor = kept / (1.0 + steps * self.ridge * self.penalised)
        out: Array = w * self.groups.expand(factor).reshape(-1, *[1] * (w.ndim - 1))
        return out


def group_count(name: str, value: object) -> int:
    """`value` as an integer >= 0; the error names the argument."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, Integral):
        raise TypeError(f"{name} must be an integer, got {value!r}.")
    if value < 0:
        raise ValueError(f"{name} is {value}: pass an integer >= 0.")
    return int(value)
