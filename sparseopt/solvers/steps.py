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
from sparseopt.solvers.blocks import free_step
from sparseopt.solvers.lines import FAINT, LOST, Line, combine, keep, leave, search

__all__ = ["Model", "Partition", "descend", "sweep"]


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
    """Sweeps over `order`, with line searches in between, until one changes at most `goal`.

    The change is the sum of d' H d over the steps, or with `by_move` the largest scaled prox move. The goal is no
    smaller than `inexact` times the first change. Returns the number of sweeps, at most `budget`, and the change of the
    first.
    """
    total = kind.costs(shape, groups, blocks, W)
    spent = 0
    first = np.inf
    features = 0
    for g in order:
        features += groups.indptr[g + 1] - groups.indptr[g]
    line = Line(np.empty((features, W.shape[1])), np.empty_like(rows), np.empty_like(sigma))
    last = Line(np.zeros((features, W.shape[1])), np.zeros_like(rows), np.zeros_like(sigma))
    norms = np.empty((3, len(order)))
    last_exact = False
    while spent < budget:
        keep(groups, order, W, rows, sigma, line)
        change, move, total = sweep(
            design, kind, shape, groups, terms, model, blocks, order, W, rows, sigma, total, work
        )
        spent += 1
        measure = move if by_move else change
        if spent == 1:
            first = measure
            goal = max(goal, inexact * first)
        way = leave(design, groups, model, order, W, rows, sigma, line, work)
        exact = way <= FAINT
        ahead = 0.0
        again = 0.0
        if way > LOST:
            ahead = search(shape, groups, terms, model, order, W, rows, sigma, total, line, norms)
            total = kind.costs(shape, groups, blocks, W)
        # Where this way had to be exact, one that is not would spoil the slope, and the sum of both.
        if way > LOST and spent > 1 and (last_exact or not exact):
            again = search(shape, groups, terms, model, order, W, rows, sigma, total, last, norms)
            total = kind.costs(shape, groups, blocks, W)
        combine(1.0 + ahead, line, again, last)
        line, last, last_exact = last, line, exact
        if measure <= goal:
            break
    return spent, first
