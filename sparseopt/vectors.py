"""Loops over vectors that compiled code shares. Sums may be taken in any order, so that vector registers are used."""

from __future__ import annotations

import numpy as np

from sparseopt.jit import vectorized_kernel

__all__ = ["add", "dot", "vanishes"]


@vectorized_kernel
def dot(a, r):
    """a'r in float64, for vectors of float32 or float64."""
    total = 0.0
    for i in range(r.shape[0]):
        total += a[i] * np.float64(r[i])
    return total


@vectorized_kernel
def add(x, a, r):
    """r += a x."""
    for i in range(r.shape[0]):
        r[i] += a * x[i]


@vectorized_kernel
def vanishes(a, zero):
    """Whether a times `zero`, of the type of a, is zero: it is NaN where a holds NaN or infinity."""
    total = zero
    for i in range(a.shape[0]):
        total += a[i] * zero
    return total == zero
