"""How far along a way F falls, where the loss is not quadratic.

    f(t) = L(z + t dz) + Omega(W + t dW),    f'(t) = <dL/dz(z + t dz), dz> + the slope of Omega from the right

`lowest` doubles t while f' < 0, then takes the secant of the last two slopes. Slopes tell on which side of a minimum a
point lies when values differ by rounding only. The searches inside a quadratic model are those of `lines`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sparseopt.jit import brief_kernel
from sparseopt.solvers.blocks import block_norm
from sparseopt.solvers.lines import FURTHEST

__all__ = ["Way", "lowest", "penalty_slope"]

Array = NDArray[np.float64]


class Way(NamedTuple):
    """A direction in which a point may move."""

    W: Array  # (p, K)
    b: Array  # (K,)
    z: Array  # (n, K)

    def plus(self, share: float, other: Way, times: float) -> Way:
        """share self + times other."""
        return Way(*(share * a + times * b for a, b in zip(self, other, strict=True)))


def lowest(slope: Callable[[float], float]) -> float:
    """The t > 0 near which a function stops falling, 0 where it does not fall at first."""
    low, low_slope, high = 0.0, slope(0.0), 1.0
    if not low_slope < 0.0:
        return 0.0
    high_slope = slope(high)
    while high_slope < 0.0 and high < FURTHEST:
        low, low_slope, high = high, high_slope, 2.0 * high
        high_slope = slope(high)
    if not 0.0 <= high_slope < np.inf:
        return low
    return low + (high - low) * low_slope / (low_slope - high_slope)


@brief_kernel
def penalty_slope(shape, groups, terms, ids, W, way, t, sign):
    """The slope in t, from the right, of Omega(W + t sign way); only the groups `ids` may be nonzero."""
    costs = 0.0
    if terms.block > 0.0:
        for g in ids:
            if groups.omega[g] > 0.0:
                costs += shape.cost(_moved(groups, g, W, way, t * sign)[0], groups.omega[g])
    slope = 0.0
    for g in ids:
        omega = groups.omega[g]
        length = block_norm(groups, g, way)
        if omega == 0.0 or length == 0.0:
            continue
        u, along, entries = _moved(groups, g, W, way, t * sign)
        along *= sign
        slope += terms.ridge * along
        if terms.entry > 0.0:
            slope += terms.entry * (sign * entries[0] + entries[1])
        if terms.block > 0.0:
            others = max(costs - shape.cost(u, omega), 0.0)
            slope += terms.block * shape.tangent(u, omega, others) * (along / u if u > 0.0 else length)
    return slope


@brief_kernel
def _moved(groups, g, W, way, t):
    """Of w + t d: its norm, <w + t d, d>, and the slope of its entries' sizes: of nonzero ones, and of others."""
    square = 0.0
    along = 0.0
    signed = 0.0
    leaving = 0.0
    for j in range(groups.indptr[g], groups.indptr[g + 1]):
        for k in range(W.shape[1]):
            d = way[groups.indices[j], k]
            w = W[groups.indices[j], k] + t * d
            square += w * w
            along += w * d
            if w > 0.0:
                signed += d
            elif w < 0.0:
                signed -= d
            else:
                leaving += abs(d)
    return np.sqrt(square), along, (signed, leaving)
