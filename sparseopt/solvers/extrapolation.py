"""Extrapolation of the iteration over models of a loss that is not quadratic.

Near a solution the iteration is nearly linear, w_{i+1} = T(w_i). Of the last points the affine combination
sum_i a_i w_{i+1}, sum a = 1, is taken whose combined step sum_i a_i (w_{i+1} - w_i) is shortest.

Reference: Bertrand, Massias (2021), "Anderson acceleration of coordinate descent", AISTATS.
"""

from __future__ import annotations

import numpy as np

from sparseopt.jit import kernel
from sparseopt.solvers.gradients import semidefinite_solve
from sparseopt.vectors import dot

__all__ = ["MEMORY", "affine_weights"]

MEMORY = 4  # iterations between two extrapolations


@kernel
def affine_weights(past, features):
    """The weights, of sum one, that make the combined last steps of an iteration smallest; past is (m + 1, p, K)."""
    m = len(past) - 1
    size = features * past.shape[2]
    steps = np.empty((m, size))
    for a in range(m):
        before, after, step = past[a].ravel(), past[a + 1].ravel(), steps[a]
        for j in range(size):
            step[j] = after[j] - before[j]
    gram = np.empty((m, m))
    for a in range(m):
        for b in range(a + 1):
            gram[a, b] = dot(steps[a], steps[b])
    trace = 0.0
    for a in range(m):
        trace += gram[a, a]
    for a in range(m):
        gram[a, a] += 1e-12 * trace + 1e-300
        for b in range(a):
            gram[b, a] = gram[a, b]
    weights = np.ones(m)
    semidefinite_solve(gram, m, weights)
    total = 0.0
    absolute = 0.0
    for a in range(m):
        total += weights[a]
        absolute += abs(weights[a])
    cancels = not absolute < 1e4 * abs(total)  # z and rows would no longer fit W
    for a in range(m):
        weights[a] = (1.0 if a == m - 1 else 0.0) if cancels else weights[a] / total
    return weights
