"""The root of an increasing function of one variable: Newton's method inside a bracket that only shrinks."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

__all__ = ["increasing_root"]


def increasing_root(function: Callable[[float], tuple[float, float]], low: float, high: float) -> float:
    """b in [low, high] with g(b) = 0, where `function(b)` gives (g(b), g'(b)), g(low) <= 0 <= g(high).

    A Newton step that leaves the bracket, or is more than half as long as the step before it, becomes a bisection: a
    handful of evaluations for smooth g, and never more than 200. g may be flat or have kinks.
    """
    b = 0.5 * (low + high)
    before = np.inf
    for _ in range(200):
        g, slope = function(b)
        if g == 0.0:
            return b
        low, high = (low, b) if g > 0.0 else (b, high)
        step = -g / slope if slope > 0.0 else np.inf
        new = b + step
        if not low < new < high or abs(step) > 0.5 * before:
            new = 0.5 * (low + high)
            step = new - b
        if new == b or abs(step) <= np.finfo(float).eps * abs(b):
            return new
        b, before = new, abs(step)
    return b
