"""Masks and what weight decay on them leaves of a block's norm: q(a) = min over w of decay(w) + a^2 / factor(w)^2.

Each mask is written as the network has it (a factor m = f(w) in front of the block, and the cost of w), beside the q
of the package that its minimum should be. The minimum itself is found from values alone, by golden sections.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import lambertw

from sparseopt import L2, Expm1Mask, LambertW, Power

__all__ = ["MASKS", "Mask", "expm1_logit", "least", "mask_minimum"]

Array = NDArray[np.float64]
Map = Callable[[Array], Array]


@dataclass(frozen=True)
class Mask:
    """A mask m = factor(w) on a block that costs decay(w); the block itself costs the square of its norm.

    `value` is q, `best(a)` the w of the minimum, `low` and `high` the range of w to search, on a log scale if `log`.
    """

    name: str
    factor: Map
    decay: Map
    value: Map
    best: Map
    low: float
    high: float
    log: bool = True

    def cost(self, w: Any, a: Any) -> Any:
        """decay(w) + a^2 / factor(w)^2: the weight decay of the mask and of the block u / m with ||u|| = a."""
        return self.decay(w) + (a / self.factor(w)) ** 2


def expm1_logit(a: Array) -> Array:
    """The w > 0 with w (e^w - 1)^3 e^-w = a^2, by bisection on a logarithmic scale."""
    target = 2.0 * np.log(np.asarray(a, dtype=np.float64))
    low, high = np.full_like(target, np.log(1e-40)), np.full_like(target, np.log(700.0))
    for _ in range(200):
        middle = 0.5 * (low + high)
        w = np.exp(middle)
        below = middle + 3.0 * np.log(np.expm1(w)) - w < target
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    return np.exp(0.5 * (low + high))


def least(f: Map, low: Array, high: Array, steps: int = 110) -> tuple[Array, Array]:
    """Where a unimodal f of an array is least between low and high, elementwise, and its value there."""
    share = 0.5 * (np.sqrt(5.0) - 1.0)
    x, y = high - share * (high - low), low + share * (high - low)
    fx, fy = f(x), f(y)
    for _ in range(steps):
        left = fx <= fy
        low, high = np.where(left, low, x), np.where(left, y, high)
        new = np.where(left, high - share * (high - low), low + share * (high - low))
        fnew = f(new)
        x, fx, y, fy = (
            np.where(left, new, y),
            np.where(left, fnew, fy),
            np.where(left, x, new),
            np.where(left, fx, fnew),
        )
    return np.where(fx <= fy, x, y), np.minimum(fx, fy)


def mask_minimum(mask: Mask, a: Array) -> Array:
    """min over w of decay(w) + a^2 / factor(w)^2, from values alone."""
    ends = (mask.low, mask.high) if not mask.log else (np.log(mask.low), np.log(mask.high))
    low, high = (np.full_like(a, end) for end in ends)
    with np.errstate(over="ignore"):  # far from the minimum the cost may be inf
        return least(lambda x: mask.cost(np.exp(x) if mask.log else x, a), low, high)[1]


_DECAYS = {0.5: "√|w|", 1.0: "|w|", 2.0: "w²"}


def _power(s: float) -> Mask:
    """The mask w with decay |w|^s: q(a) = (1 + s/2) (2/s)^(s / (s + 2)) a^(2 s / (s + 2))."""
    factor = (1.0 + 0.5 * s) * (2.0 / s) ** (s / (s + 2.0))
    q = Power(2.0 * s / (s + 2.0)) if s < 2.0 else L2()
    return Mask(
        f"w, decay {_DECAYS[s]}",
        lambda w: w,
        lambda w: w**s,
        lambda a: factor * q.value(a),
        lambda a: (2.0 * a * a / s) ** (1.0 / (s + 2.0)),
        1e-6,
        1e6,
    )


MASKS: dict[str, Mask] = {
    "exp": Mask(
        "eʷ, decay w²",
        np.exp,
        np.square,
        LambertW().value,
        lambda a: 0.5 * np.real(lambertw(2.0 * a * a)),
        -1.0,
        50.0,
        log=False,
    ),
    "l1": _power(1.0),
    "identity": _power(2.0),
    "half": _power(0.5),
    "expm1": Mask("eʷ − 1, decay w²", np.expm1, np.square, Expm1Mask().value, expm1_logit, 1e-12, 50.0),
}
