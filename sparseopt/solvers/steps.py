"""Block steps on a quadratic model of the loss, in compiled code.

The model is kept as rows r = dL/dz, (K, n), which move linearly with the coefficients: after block g moved by d,

    r += c o (X_g d + 1 db'),     db = -m_g' d,     m_j = sum_i c_i x_ij / sum_i c_i.

The intercept is always optimal: db is what keeps 1'r = 0. It is not added to r at once but collected in sigma (its
negative), so that a step costs nothing extra: grad_j = x_j'r - sigma (sum c) m_j.

A step minimises over one block, H_g = V diag(e) V' being its (centred) curvature,

    exact      q = L2: theta = V'w solves theta_i = a_i r / ((e_i + ridge) r + lam_g) with r = ||theta||, one equation
               for r: Newton on 1 / sqrt(s(r)) - 1, s(r) = sum_i a_i^2 / ((e_i + ridge) r + lam_g)^2, which is concave,
               so that Newton's iterates rise monotonically to the root
    proximal   any q: prox-gradient steps on the model of the block with step 1 / max(e), until they stop moving
    free       omega = 0: the Newton step, directions without curvature left where they are
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from sparseopt.jit import kernel

__all__ = ["Blocks", "Model", "Partition", "Terms", "norm_of", "sweep", "sweeps"]

TIE = 1.0 + 1e-12  # a gradient that exceeds its threshold by rounding only does not wake a block
INNER_STEPS = 25  # prox-gradient steps per visit of a block; each costs d^2, a visit n d


class Partition(NamedTuple):
    """Groups as a kernel needs them."""

    indices: Any  # (p,) features, group after group
    indptr: Any  # (G + 1,)
    omega: Any  # (G,)


class Terms(NamedTuple):
    """Strengths of the penalty."""

    block: float  # lam (1 - l1_ratio)
    entry: float  # lam l1_ratio
    ridge: float
    exact: bool  # q = L2 and entry = 0


class Model(NamedTuple):
    """Curvature of the loss in z."""

    c: Any  # (n,), or (1,) if all are equal
    total: float  # sum of c, 0 without intercept
    means: Any  # (p,), filled for the features of the blocks in use; empty without intercept


class Blocks(NamedTuple):
    """Eigendecompositions of the blocks in use; block g is number slot[g]."""

    slot: Any  # (G,)
    val_at: Any  # (B,) where the eigenvalues of a block start
    vec_at: Any  # (B,) where its eigenvectors start, -1 for a block majorised by one number
    vals: Any
    vecs: Any  # V row by row


@kernel
def sweep(design, shape, groups, terms, model, blocks, order, W, rows, sigma, total, work):
    """One step in each block of `order`.

    Returns the sum of d' H d over the steps, the largest scaled prox move, and the sum of costs of problem (1).
    """
    change = 0.0
    move = 0.0
    for g in order:
        lo, hi = groups.indptr[g], groups.indptr[g + 1]
        d, n_rows = hi - lo, W.shape[1]
        slot = blocks.slot[g]
        at = blocks.val_at[slot]
        vec_at = blocks.vec_at[slot]
        e = blocks.vals[at : at + (d if vec_at >= 0 else 1)]
        V = blocks.vecs[vec_at : vec_at + d * d].reshape(d, d) if vec_at >= 0 else blocks.vecs[:0].reshape(0, 0)
        gradient, old, new = work[0, :d], work[1, :d], work[2, :d]
        a, b, here = work[3, :d], work[4, :d], work[5, :d]
        design.block_dot(groups.indices, lo, hi, rows, gradient)
        was_zero = True
        for j in range(d):
            feature = groups.indices[lo + j]
            for k in range(n_rows):
                old[j, k] = W[feature, k]
                was_zero = was_zero and old[j, k] == 0.0
                if model.total > 0.0:
                    gradient[j, k] -= sigma[k] * model.total * model.means[feature]
        omega = groups.omega[g]
        rest = 0.0
        if omega == 0.0:
            moved, first = _free_step(gradient, old, e, V, new, a)
        elif terms.exact:
            moved, first = _exact_step(gradient, old, was_zero, e, V, terms.block * omega, terms.ridge, new, a, b)
        else:
            rest = max(total - shape.cost(norm_of(old), omega), 0.0)
            moved, first = _proximal_step(gradient, old, e, V, shape, omega, rest, terms, new, a, b, here)
            total = rest + shape.cost(norm_of(new), omega)
        change += moved
        move = max(move, first)
        if moved > 0.0 or first > 0.0:
            for j in range(d):
                feature = groups.indices[lo + j]
                for k in range(n_rows):
                    W[feature, k] = new[j, k]
                    new[j, k] -= old[j, k]
                    if model.total > 0.0:
                        sigma[k] += model.means[feature] * new[j, k]
            design.block_add(groups.indices, lo, hi, new, model.c, rows)
    return change, move, total


@kernel
def sweeps(design, shape, groups, terms, model, blocks, order, W, rows, sigma, work, tol, by_move, past):
    """Sweeps until the change (or the move) is at most tol, or the stores `past` of earlier points are full.

    Returns the number of sweeps and the measure of the last one.
    """
    past_W, past_rows, past_sigma = past
    total = 0.0
    for g in range(len(groups.omega)):
        if groups.omega[g] > 0.0 and blocks.slot[g] >= 0:
            total += shape.cost(_block_norm(groups, g, W), groups.omega[g])
    measure = np.inf
    for count in range(len(past_W)):
        change, move, total = sweep(design, shape, groups, terms, model, blocks, order, W, rows, sigma, total, work)
        measure = move if by_move else change
        if measure <= tol:
            return count + 1, measure
        if len(past_W) > 1:
            at = 0
            for g in order:
                for j in range(groups.indptr[g], groups.indptr[g + 1]):
                    for k in range(W.shape[1]):
                        past_W[count, at, k] = W[groups.indices[j], k]
                    at += 1
            for k in range(W.shape[1]):
                past_sigma[count, k] = sigma[k]
                for i in range(rows.shape[1]):
                    past_rows[count, k, i] = rows[k, i]
    return len(past_W), measure


@kernel
def norm_of(block):
    """Frobenius norm of a small matrix."""
    total = 0.0
    for j in range(block.shape[0]):
        for k in range(block.shape[1]):
            total += block[j, k] * block[j, k]
    return np.sqrt(total)


@kernel
def _block_norm(groups, g, W):
    total = 0.0
    for j in range(groups.indptr[g], groups.indptr[g + 1]):
        for k in range(W.shape[1]):
            total += W[groups.indices[j], k] * W[groups.indices[j], k]
    return np.sqrt(total)


@kernel
def _rotate(V, x, out):
    """out = V'x, or x where the block has no basis."""
    for j in range(x.shape[0]):
        for k in range(x.shape[1]):
            out[j, k] = x[j, k] if V.shape[0] == 0 else 0.0
    for i in range(V.shape[0]):
        for j in range(V.shape[1]):
            for k in range(x.shape[1]):
                out[j, k] += V[i, j] * x[i, k]


@kernel
def _rotate_back(V, x, out):
    """out = V x, or x where the block has no basis."""
    for i in range(x.shape[0]):
        for k in range(x.shape[1]):
            total = x[i, k] if V.shape[0] == 0 else 0.0
            for j in range(V.shape[1]):
                total += V[i, j] * x[j, k]
            out[i, k] = total


@kernel
def _exact_step(gradient, old, was_zero, e, V, lam, ridge, new, a, theta):
    """argmin of the model plus lam ||w|| + ridge ||w||^2 / 2."""
    d, n_rows = old.shape
    if was_zero and norm_of(gradient) <= lam * TIE:
        return 0.0, 0.0
    one = len(e) == 1
    top = 0.0
    for j in range(len(e)):
        top = max(top, e[j])
    _rotate(V, gradient, a)
    _rotate(V, old, theta)
    size = 0.0
    for j in range(d):
        for k in range(n_rows):
            a[j, k] = (e[0] if one else e[j]) * theta[j, k] - a[j, k]
            size += a[j, k] * a[j, k]
    size = np.sqrt(size)
    r = 0.0
    if size > lam * TIE and top + ridge > 0.0:
        r = _secular_root(a, e, one, lam, ridge, (size - lam) / (top + ridge), norm_of(theta))
    moved = 0.0
    move = 0.0
    for j in range(d):
        ej = e[0] if one else e[j]
        factor = r / ((ej + ridge) * r + lam) if r > 0.0 else 0.0
        for k in range(n_rows):
            step = a[j, k] * factor - theta[j, k]
            theta[j, k] += step
            moved += ej * step * step
            move += step * step
    _rotate_back(V, theta, new)
    return moved, top * np.sqrt(move)


@kernel
def _secular_root(a, e, one, lam, ridge, low, guess):
    """r with sum_i a_i^2 / ((e_i + ridge) r + lam)^2 = 1, given a lower bound of it."""
    if lam == 0.0:
        total = 0.0
        for j in range(a.shape[0]):
            ej = (e[0] if one else e[j]) + ridge
            for k in range(a.shape[1]):
                total += (a[j, k] / ej) ** 2 if ej > 0.0 else 0.0
        return np.sqrt(total)
    r = max(low, guess)
    for count in range(100):
        s = 0.0
        slope = 0.0
        for j in range(a.shape[0]):
            ej = (e[0] if one else e[j]) + ridge
            below = ej * r + lam
            part = 0.0
            for k in range(a.shape[1]):
                part += a[j, k] * a[j, k]
            part /= below * below
            s += part
            slope += part * ej / below
        step = s * (np.sqrt(s) - 1.0) / slope if slope > 0.0 else 0.0
        if count > 0 and step <= 1e-15 * r:  # the iterates rise after the first step: the rest is rounding
            break
        r = max(r + step, low)
    return r


@kernel
def _free_step(gradient, old, e, V, new, theta):
    """The minimiser of the model in an unpenalised block."""
    d, n_rows = old.shape
    top = 0.0
    for j in range(len(e)):
        top = max(top, e[j])
    _rotate(V, gradient, theta)
    moved = 0.0
    move = 0.0
    for j in range(d):
        ej = e[0] if len(e) == 1 else e[j]
        for k in range(n_rows):
            step = -theta[j, k] / ej if ej > 1e-11 * top else 0.0
            moved += ej * step * step
            move += theta[j, k] * theta[j, k] if ej > 1e-11 * top else 0.0
            theta[j, k] = step
    _rotate_back(V, theta, new)
    for j in range(d):
        for k in range(n_rows):
            new[j, k] += old[j, k]
    return moved, np.sqrt(move)


@kernel
def _proximal_step(gradient, old, e, V, shape, omega, rest, terms, new, a, b, here):
    """Prox-gradient steps on the model plus block q-term, l1 term and ridge."""
    d, n_rows = old.shape
    L = 0.0
    for j in range(len(e)):
        L = max(L, e[j])
    L = max(L, 1e-300)
    for j in range(d):
        for k in range(n_rows):
            new[j, k] = old[j, k]
            here[j, k] = gradient[j, k]
    first = 0.0
    moved = 0.0
    for count in range(INNER_STEPS if V.shape[0] > 1 else 1):
        u = 0.0
        for j in range(d):
            for k in range(n_rows):
                v = L * new[j, k] - here[j, k]
                v = (max(v - terms.entry, 0.0) + min(v + terms.entry, 0.0)) / (L + terms.ridge)
                a[j, k] = v
                u += v * v
        u = np.sqrt(u)
        factor = 0.0
        if u > 0.0:
            shrunk = shape.shrink(u, terms.block / (L + terms.ridge), omega, rest) if terms.block > 0.0 else u
            factor = shrunk / u
        step = 0.0
        travelled = 0.0
        for j in range(d):
            for k in range(n_rows):
                a[j, k] *= factor
                step += (a[j, k] - new[j, k]) ** 2
                new[j, k] = a[j, k]
                a[j, k] -= old[j, k]
                travelled += a[j, k] * a[j, k]
        step = np.sqrt(step)
        travelled = np.sqrt(travelled)
        if count == 0:
            first = L * step
        moved = L * travelled * travelled
        if step <= 0.02 * travelled or step == 0.0 or V.shape[0] <= 1:
            break
        _rotate(V, a, b)
        for j in range(d):
            for k in range(n_rows):
                b[j, k] *= e[j]
        _rotate_back(V, b, a)
        for j in range(d):
            for k in range(n_rows):
                here[j, k] = gradient[j, k] + a[j, k]
    return moved, first
