"""Extrapolation of block coordinate descent, in compiled code.

Near a solution a sweep over the nonzero blocks is nearly linear, w_{i+1} = T(w_i). Of the last points the affine
combination sum_i a_i w_{i+1}, sum a = 1, is taken whose combined step sum_i a_i (w_{i+1} - w_i) is shortest. It is kept
if the model of F is smaller there. Rows and sigma are affine in the coefficients, so they are combined alike, without a
product with X.

Reference: Bertrand, Massias (2021), "Anderson acceleration of coordinate descent", AISTATS.
"""

from __future__ import annotations

import numpy as np

from sparseopt.jit import kernel, lean_kernel, vectorized_kernel
from sparseopt.solvers.blocks import block_norm
from sparseopt.solvers.gradients import semidefinite_solve
from sparseopt.vectors import add, dot

__all__ = ["MEMORY", "affine_weights", "extrapolate", "store"]

MEMORY = 4  # sweeps between two extrapolations


@kernel
def extrapolate(shape, groups, terms, model, blocks, order, W, rows, sigma, past_W, past_rows, past_sigma):
    """Move to where a linear iteration would stop, if the model falls there; the last of the past is the present."""
    features = 0
    for g in order:
        features += groups.indptr[g + 1] - groups.indptr[g]
    weights = affine_weights(past_W, features)
    before = _model_value(shape, groups, terms, model, blocks, W, rows, sigma)
    _combine(weights, past_W)
    _combine(weights, past_rows)
    _combine(weights, past_sigma)
    _restore(groups, order, past_W[0], W)
    if _model_value(shape, groups, terms, model, blocks, W, past_rows[0], past_sigma[0, 0]) < before:
        for k in range(len(rows)):
            sigma[k] = past_sigma[0, 0, k]
            for i in range(rows.shape[1]):
                rows[k, i] = past_rows[0, k, i]
    else:
        _restore(groups, order, past_W[len(weights)], W)


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


@lean_kernel
def _combine(weights, past):
    """past[0] = the sum of weights[i] past[i + 1]."""
    combined = past[0].ravel()
    for j in range(len(combined)):
        combined[j] = 0.0
    for i in range(len(weights)):
        add(past[i + 1].ravel(), weights[i], combined)


@lean_kernel
def store(groups, order, W, rows, sigma, past_W, past_rows, past_sigma, i):
    """Keep the present point as number i of the past: coefficients of some blocks, block after block."""
    # Loops, because a slice that is assigned to brings along the code that words its error.
    for k in range(len(rows)):
        past_sigma[i, 0, k] = sigma[k]
        for j in range(rows.shape[1]):
            past_rows[i, k, j] = rows[k, j]
    at = 0
    for g in order:
        for j in range(groups.indptr[g], groups.indptr[g + 1]):
            for k in range(W.shape[1]):
                past_W[i, at, k] = W[groups.indices[j], k]
            at += 1


@lean_kernel
def _restore(groups, order, stored, W):
    at = 0
    for g in order:
        for j in range(groups.indptr[g], groups.indptr[g + 1]):
            for k in range(W.shape[1]):
                W[groups.indices[j], k] = stored[at, k]
            at += 1


@lean_kernel
def _model_value(shape, groups, terms, model, blocks, W, rows, sigma):
    """The model of F up to a constant: sum of r^2 / (2 c) over the true rows, plus Omega."""
    value = 0.0
    for k in range(rows.shape[0]):
        value += 0.5 * _weighted_square(rows[k], sigma[k], model.full, model.reciprocal)
    parts = 0.0
    nonzero = 0
    entries = 0.0
    squares = 0.0
    for g in range(len(groups.omega)):
        if groups.omega[g] > 0.0 and blocks.slot[g] >= 0:
            u = block_norm(groups, g, W)
            if u > 0.0:
                nonzero += 1
                parts += shape.part(u, groups.omega[g])
                squares += u * u
                if terms.entry > 0.0:
                    for j in range(groups.indptr[g], groups.indptr[g + 1]):
                        for k in range(W.shape[1]):
                            entries += abs(W[groups.indices[j], k])
    if terms.block > 0.0 and nonzero > 0:
        value += terms.block * shape.whole(parts)
    return value + terms.entry * entries + 0.5 * terms.ridge * squares


@vectorized_kernel
def _weighted_square(row, shift, full, inverse):
    total = 0.0
    for i in range(row.shape[0]):
        true = row[i] - shift * full[i]
        total += true * true * inverse[i]
    return total
