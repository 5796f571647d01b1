"""What compiled code knows of blocks, and the step in one without penalty.

The loss is replaced by a quadratic with curvature H = V diag(e) V'. Blocks without a basis (one feature, or too many)
have one number e that bounds H. Small matrices lie as (K, d): a row per output, so that loops over features run along
memory.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from sparseopt.jit import lean_kernel, vectorized_kernel

__all__ = ["TIE", "Blocks", "Terms", "Work", "block_norm", "free_step", "from_basis", "norm_of", "to_basis"]

TIE = 1.0 + 1e-12  # a gradient that exceeds its threshold by rounding only does not wake a block


class Terms(NamedTuple):
    """Strengths of the penalty."""

    block: float  # lam (1 - l1_ratio)
    entry: float  # lam l1_ratio
    ridge: float


class Blocks(NamedTuple):
    """Eigendecompositions of the blocks in use; block g is number slot[g]."""

    slot: Any  # (G,)
    val_at: Any  # (B,) where the eigenvalues of a block start
    vec_at: Any  # (B,) where its eigenvectors start, -1 for a block without basis
    vals: Any
    vecs: Any  # V row by row


class Work(NamedTuple):
    """Scratch of a step, (K, d) for the largest d."""

    gradient: Any
    old: Any
    new: Any
    a: Any
    theta: Any
    here: Any
    squares: Any  # (d,)
    columns: Any  # (d, K), for the design


@lean_kernel
def free_step(work, d, vals, at, vecs, vec_at):
    """The minimiser of the model in an unpenalised block; returns d'Hd of the step, and the norm of the gradient."""
    gradient, old, new, theta = work.gradient, work.old, work.new, work.theta
    n_rows = gradient.shape[0]
    flat = vec_at < 0
    top = vals[at] if flat else vals[at + d - 1]
    moved = 0.0
    pull = 0.0
    for k in range(n_rows):
        to_basis(vecs, vec_at, d, gradient, theta, k)
        for j in range(d):
            e = vals[at if flat else at + j]
            step = 0.0
            if e > 1e-11 * top:
                step = -theta[k, j] / e
                pull += theta[k, j] * theta[k, j]
            moved += e * step * step
            theta[k, j] = step
        from_basis(vecs, vec_at, d, theta, new, k)
        for j in range(d):
            new[k, j] += old[k, j]
    return moved, np.sqrt(pull)


@lean_kernel
def norm_of(block, d):
    """Frobenius norm of the first d columns."""
    total = 0.0
    for k in range(block.shape[0]):
        for j in range(d):
            total += block[k, j] * block[k, j]
    return np.sqrt(total)


@vectorized_kernel
def to_basis(vecs, vec_at, d, x, out, k):
    """Row k of out = V'x, or x where the block has no basis."""
    if vec_at < 0:
        for j in range(d):
            out[k, j] = x[k, j]
        return
    for j in range(d):
        out[k, j] = 0.0
    for i in range(d):
        xi = x[k, i]
        for j in range(d):
            out[k, j] += vecs[vec_at + i * d + j] * xi


@vectorized_kernel
def from_basis(vecs, vec_at, d, x, out, k):
    """Row k of out = V x, or x where the block has no basis."""
    for i in range(d):
        total = x[k, i]
        if vec_at >= 0:
            total = 0.0
            for j in range(d):
                total += vecs[vec_at + i * d + j] * x[k, j]
        out[k, i] = total


@lean_kernel
def block_norm(groups, g, W):
    """||w_g||."""
    total = 0.0
    for j in range(groups.indptr[g], groups.indptr[g + 1]):
        for k in range(W.shape[1]):
            total += W[groups.indices[j], k] * W[groups.indices[j], k]
    return np.sqrt(total)
