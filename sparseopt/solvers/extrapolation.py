"""Extrapolation of block coordinate descent, in compiled code.

Near a solution a sweep over the nonzero blocks is nearly linear, w_{i+1} = T(w_i). Of the last points the affine
combination sum_i a_i w_{i+1}, sum a = 1, is taken whose combined step sum_i a_i (w_{i+1} - w_i) is shortest. It is kept
if the model of F is smaller there. Rows and sigma are affine in the coefficients, so they are combined alike, without a
product with X.

Reference: Bertrand, Massias (2021), "Anderson acceleration of coordinate descent", AISTATS.
"""

from __future__ import annotations

import numpy as np

from sparseopt.jit import kernel, vectorized_kernel
from sparseopt.solvers.gradients import semidefinite_solve

__all__ = ["MEMORY", "affine_weights", "block_norm", "extrapolate", "store"]

MEMORY = 4  # sweeps between two extrapolations


@kernel
def extrapolate(shape, groups, terms, model, blocks, order, W, rows, sigma, past_W, past_rows, past_sigma):
    """Move to where a linear iteration would stop, if the model falls there; the last of the past is the present."""
    features = 0
    for g in order:
        features += groups.indptr[g + 1] - groups.indptr[g]
    weights = affine_weights(past_W.reshape(len(past_W), past_W[0].size), features * W.shape[1])
    before = _model_value(shape, groups, terms, model, blocks, W, rows, sigma)
    _combine(weights, past_W)
    _combine(weights, past_rows)
    _combine(weights, past_sigma)
    _restore(groups, order, past_W[0], W)
    if _model_value(shape, groups, terms, model, blocks, W, past_rows[0], past_sigma[0]) < before:
        rows[:] = past_rows[0]
        sigma[:] = past_sigma[0]
    else:
        _restore(groups, order, past_W[len(weights)], W)


@kernel
def affine_weights(past, size):
    """The weights, of sum one, that make the combined last steps of an iteration smallest; past is (m + 1, >= size)."""
    m = len(past) - 1
    gram = np.zeros((m, m))
    for j in range(size):
        for a in range(m):
            step = past[a + 1, j] - past[a, j]
            for b in range(a + 1):
                gram[a, b] += step * (past[b + 1, j] - past[b, j])
    trace = 0.0
    for a in range(m):
        trace += gram[a, a]
    for a in range(m):
        gram[a, a] += 1e-12 * trace + 1e-300
        for b in range(a):
            gram[b, a] = gram[a, b]
    weights = np.ones(m)
    semidefinite_solve(gram, m, weights)
    total = weights.sum()
    if not np.abs(weights).sum() < 1e4 * abs(total):  # cancellation: z and rows would no longer fit W
        weights[:] = 0.0
        weights[m - 1] = 1.0
        return weights
    return weights / total


@kernel
def _combine(weights, past):
    """past[0] = the sum of weights[i] past[i + 1]."""
    flat = past.reshape(past.shape[0], past[0].size)
    for j in range(flat.shape[1]):
        total = 0.0
        for i in range(len(weights)):
            total += weights[i] * flat[i + 1, j]
        flat[0, j] = total


@kernel
def store(groups, order, W, stored):
    """stored = the coefficients of some blocks, block after block."""
    at = 0
    for g in order:
        for j in range(groups.indptr[g], groups.indptr[g + 1]):
            for k in range(W.shape[1]):
                stored[at, k] = W[groups.indices[j], k]
            at += 1


@kernel
def _restore(groups, order, stored, W):
    at = 0
    for g in order:
        for j in range(groups.indptr[g], groups.indptr[g + 1]):
            for k in range(W.shape[1]):
                W[groups.indices[j], k] = stored[at, k]
            at += 1


@kernel
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


@kernel
def block_norm(groups, g, W):
    total = 0.0
    for j in range(groups.indptr[g], groups.indptr[g + 1]):
        for k in range(W.shape[1]):
            total += W[groups.indices[j], k] * W[groups.indices[j], k]
    return np.sqrt(total)
