"""Sweeps over blocks on a quadratic model of the loss, in compiled code.

The model is kept as rows r = dL/dz, (K, n), which move linearly with the coefficients: after block g moved by d,

    r += c o (X_g d + 1 db'),     db = -m_g' d,     m_j = sum_i c_i x_ij / sum_i c_i.

The intercept is always optimal: db is what keeps 1'r = 0. It is not added to r at once but collected in sigma (its
negative), so that a step costs nothing extra: grad_j = x_j'r - sigma (sum c) m_j.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from sparseopt.jit import kernel, lean_kernel
from sparseopt.solvers.blocks import block_norm, free_step
from sparseopt.solvers.extrapolation import MEMORY, extrapolate, store

__all__ = ["Model", "Partition", "descend", "sweep"]

ROUNDS = 20  # extrapolations before the zero groups of the set are visited again
ROUGH = 0.3  # where the prox jumps, they are visited again once moves are this share of a visit's: some may wake


class Partition(NamedTuple):
    """Groups as a kernel needs them."""

    indices: Any  # (p,) features, group after group
    indptr: Any  # (G + 1,)
    omega: Any  # (G,)


class Model(NamedTuple):
    """Curvature of the loss in z."""

    c: Any  # (n,), or (1,) if all are equal
    total: float  # sum of c, 0 without intercept
    means: Any  # (p,), filled for the features of the blocks in use; empty without intercept
    full: Any  # (n,) c of every sample
    reciprocal: Any  # (n,) 1 / c, 0 for 0


@lean_kernel
def sweep(design, kind, shape, groups, terms, model, blocks, order, W, rows, sigma, total, work):
    """One step of some kind in each block of `order`.

    Returns the sum of d' H d over the steps, the largest scaled prox move, and the sum of costs of problem (1).
    """
    vals, vecs, n_rows = blocks.vals, blocks.vecs, W.shape[1]
    change = 0.0
    move = 0.0
    for g in order:
        lo, hi = groups.indptr[g], groups.indptr[g + 1]
        d = hi - lo
        at, vec_at = blocks.val_at[blocks.slot[g]], blocks.vec_at[blocks.slot[g]]
        design.block_dot(groups.indices, lo, hi, rows, work.columns)
        was_zero = True
        for j in range(d):
            feature = groups.indices[lo + j]
            centre = model.total * model.means[feature] if model.total > 0.0 else 0.0
            for k in range(n_rows):
                work.gradient[k, j] = work.columns[j, k] - sigma[k] * centre
                work.old[k, j] = W[feature, k]
                was_zero = was_zero and W[feature, k] == 0.0
        omega = groups.omega[g]
        if omega == 0.0:
            moved, first = free_step(work, d, vals, at, vecs, vec_at)
        else:
            moved, first, total = kind.step(work, d, was_zero, vals, at, vecs, vec_at, shape, omega, terms, total)
        change += moved
        move = max(move, first)
        if moved > 0.0 or first > 0.0:
            for j in range(d):
                feature = groups.indices[lo + j]
                for k in range(n_rows):
                    step = work.new[k, j] - work.old[k, j]
                    W[feature, k] = work.new[k, j]
                    work.columns[j, k] = step
                    if model.total > 0.0:
                        sigma[k] += model.means[feature] * step
            design.block_add(groups.indices, lo, hi, work.columns, model.c, rows)
    return change, move, total


@kernel
def descend(
    design, kind, shape, groups, terms, model, blocks, order, W, rows, sigma, work, goal, inexact, budget, by_move
):
    """Sweeps over `order`, and over its nonzero blocks with extrapolation, until one over all changes at most `goal`.

    The change is the sum of d' H d over the steps, or with `by_move` the largest scaled prox move. The goal is no
    smaller than `inexact` times the first change. Returns the number of sweeps, at most `budget`, and the change of the
    first.
    """
    total = kind.costs(shape, groups, blocks, W)
    spent = 0
    first = np.inf
    active = np.empty_like(order)
    features = 0
    for g in order:
        features += groups.indptr[g + 1] - groups.indptr[g]
    n_rows = W.shape[1]
    past_W = np.empty((MEMORY + 1, features, n_rows))
    past_rows = np.empty((MEMORY + 1, n_rows, rows.shape[1]))
    past_sigma = np.empty((MEMORY + 1, 1, n_rows))  # of the type of the others, so that one kernel combines all
    while spent < budget:
        change, move, total = sweep(
            design, kind, shape, groups, terms, model, blocks, order, W, rows, sigma, total, work
        )
        spent += 1
        measure = move if by_move else change
        if spent == 1:
            first = measure
            goal = max(goal, inexact * first)
        if measure <= goal:
            break
        count = 0
        for g in order:
            if block_norm(groups, g, W) > 0.0:
                active[count] = g
                count += 1
        if count == 0:
            continue
        nonzero = active[:count]
        enough = max(0.3 * goal, ROUGH * measure) if by_move else 0.3 * goal
        for _ in range(ROUNDS):
            if spent + MEMORY >= budget:
                break
            for at in range(MEMORY + 1):
                change, move, total = sweep(
                    design, kind, shape, groups, terms, model, blocks, nonzero, W, rows, sigma, total, work
                )
                spent += 1
                measure = move if by_move else change
                if measure <= enough:
                    break
                store(groups, nonzero, W, rows, sigma, past_W, past_rows, past_sigma, at)
            if measure <= enough:
                break
            extrapolate(shape, groups, terms, model, blocks, nonzero, W, rows, sigma, past_W, past_rows, past_sigma)
            total = kind.costs(shape, groups, blocks, W)
    return spent, first
