"""What the solver asks of all groups at once, in compiled code: u_g = ||w_g||, V = X'A the gradient, v_g = ||V_g||.

    worth       the penalty, where groups do not see each other
    stand       the same, and beyond which v_g a group is to be looked at: lam_g where u_g = 0, else 0
    judge       the largest c <= 1 with c v_g <= lam_g, and how many groups are to join the working set
    wake        whether a prox step from zero leaves zero
    prox_move   the largest scaled prox move of some blocks: `optimality.stationarity`

and of all samples, for squares: the loss, which is sum_i ||r_i||^2 / (2 s_i) with r = dL/dz = s (z + o - y).

`sparseopt.optimality` says the same with arrays, from the problem alone, and is what answers are judged by.
"""

from __future__ import annotations

import numpy as np

from sparseopt.jit import brief_kernel, lean_kernel, vectorized_kernel
from sparseopt.solvers.blocks import TIE, block_norm
from sparseopt.vectors import dot

__all__ = ["cross", "judge", "prox_move", "stand", "wake", "weighted_square", "worth"]


@brief_kernel
def worth(shape, groups, terms, ids, W):
    """Omega(W) from the groups `ids`, the only ones that may be nonzero."""
    total = 0.0
    for g in ids:
        omega = groups.omega[g]
        if omega == 0.0:
            continue
        u = block_norm(groups, g, W)
        if terms.block > 0.0:
            total += terms.block * shape.part(u, omega)
        total += 0.5 * terms.ridge * u * u
        if terms.entry > 0.0:
            for j in range(groups.indptr[g], groups.indptr[g + 1]):
                for k in range(W.shape[1]):
                    total += terms.entry * abs(W[groups.indices[j], k])
    return total


@brief_kernel
def stand(shape, groups, terms, ids, W, u, threshold):
    """Fill u and `threshold`: a sleeping group beyond it wakes, other groups are looked at in any case."""
    u[:] = 0.0
    for g in ids:
        u[g] = block_norm(groups, g, W)
    for g in range(len(u)):
        omega = groups.omega[g]
        threshold[g] = terms.block * omega * TIE if u[g] == 0.0 and omega > 0.0 else -1.0
    return worth(shape, groups, terms, ids, W)


@brief_kernel
def judge(groups, terms, u, norms, above, chosen):
    """c, the number of sleeping groups that wake and are not chosen, of chosen groups, and of nonzero ones of these.

    Groups still uncertain lie below their threshold, so they do not limit c.
    """
    c = 1.0
    wakes = 0
    size = 0
    full = 0
    for g in range(len(u)):
        strength = terms.block * groups.omega[g]
        if strength > 0.0 and norms[g] > strength:
            c = min(c, strength / norms[g])
        if chosen[g]:
            size += 1
            full += u[g] > 0.0
        elif above[g] and u[g] == 0.0 and groups.omega[g] > 0.0:
            wakes += 1
    return c, wakes, size, full


@brief_kernel
def weighted_square(rows, inverse):
    """sum of rows^2 inverse / 2 for rows (K, n) and inverse (n,)."""
    total = 0.0
    for k in range(rows.shape[0]):
        total += _weighted_square(rows[k], inverse)
    return 0.5 * total


@brief_kernel
def cross(rows, others):
    """sum of rows others, both (K, n)."""
    total = 0.0
    for k in range(rows.shape[0]):
        total += dot(rows[k], others[k])
    return total


@vectorized_kernel
def _weighted_square(row, inverse):
    total = 0.0
    for i in range(row.shape[0]):
        total += row[i] * row[i] * inverse[i]
    return total


@lean_kernel
def wake(shape, terms, groups, L, norms, ids, rest, out):
    """Whether a prox step from zero leaves zero."""
    for k in range(len(ids)):
        g = ids[k]
        below = L[g] + terms.ridge
        u = norms[g] / below
        out[k] = terms.block == 0.0 and u > 0.0
        if terms.block > 0.0 and u > 0.0:
            out[k] = shape.shrink(u, terms.block / below, groups.omega[g], rest) > 0.0


@lean_kernel
def prox_move(shape, terms, groups, L, W, V, ids, total):
    """The largest move that a prox-gradient step makes in one of the blocks `ids`, scaled by their curvatures L."""
    largest = 0.0
    for g in ids:
        omega, below = groups.omega[g], L[g] + terms.ridge
        features = groups.indices[groups.indptr[g] : groups.indptr[g + 1]]
        norm = 0.0  # of the whole step's aim, before it is shrunk
        pull = 0.0
        for j in features:
            for k in range(W.shape[1]):
                norm += _soft(L[g] * W[j, k] - V[j, k], terms.entry) ** 2
                pull += V[j, k] ** 2
        if omega == 0.0:
            largest = max(largest, np.sqrt(pull))
            continue
        u = np.sqrt(norm) / below
        factor = 1.0 / below
        if terms.block > 0.0 and u > 0.0:
            rest = max(total - shape.cost(block_norm(groups, g, W), omega), 0.0)
            factor *= shape.shrink(u, terms.block / below, omega, rest) / u
        move = 0.0
        for j in features:
            for k in range(W.shape[1]):
                move += (W[j, k] - factor * _soft(L[g] * W[j, k] - V[j, k], terms.entry)) ** 2
        largest = max(largest, L[g] * np.sqrt(move))
    return largest


@lean_kernel
def _soft(v, mu):
    return max(v - mu, 0.0) + min(v + mu, 0.0)
