"""What compiled code knows of blocks, and the step in one without penalty.

The loss is replaced by a quadratic with curvature H = V diag(e) V'. Blocks without a basis (one feature, or too many)
have one number e that bounds H. Small matrices lie as (K, d): a row per output, so that loops over features run along
memory. Indices that are sums are unsigned, because Numba looks whether a signed one is negative, which takes as long as
the rest.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from sparseopt.jit import lean_kernel, vectorized_kernel

__all__ = [
    "TIE",
    "Blocks",
    "Terms",
    "Work",
    "block_norm",
    "fill_curvatures",
    "free_step",
    "from_basis",
    "norm_of",
    "to_basis",
    "work_for",
]

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
    e: Any  # (d,)
    columns: Any  # (d, K), for the design


def work_for(n_outputs: int, d: int) -> Work:
    """Scratch for blocks of at most d features."""
    small = [np.empty((n_outputs, d)) for _ in range(6)]
    return Work(
        small[0], small[1], small[2], small[3], small[4], small[5], np.empty(d), np.empty(d), np.empty((d, n_outputs))
    )


@lean_kernel
def free_step(work, d, vals, at, vecs, vec_at):
    """The minimiser of the model in an unpenalised block; returns d'Hd of the step, and the norm of the gradient."""
    gradient, old, new, theta, e = work.gradient, work.old, work.new, work.theta, work.e
    n_rows = gradient.shape[0]
    fill_curvatures(vals, at, vec_at, d, e)
    top = e[d - 1]
    moved = 0.0
    pull = 0.0
    for k in range(n_rows):
        to_basis(vecs, vec_at, d, gradient, theta, k)
        for j in range(d):
            step = 0.0
            if e[j] > 1e-11 * top:
                step = -theta[k, j] / e[j]
                pull += theta[k, j] * theta[k, j]
            moved += e[j] * step * step
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
    here, there, n = x[k], out[k], np.uint64(d)
    if vec_at < 0:
        for j in range(n):
            there[j] = here[j]
        return
    for j in range(n):
        there[j] = 0.0
    at = np.uint64(vec_at)
    for i in range(n):
        xi = here[i]
        for j in range(n):
            there[j] += vecs[at + j] * xi
        at += n


@vectorized_kernel
def from_basis(vecs, vec_at, d, x, out, k):
    """Row k of out = V x, or x where the block has no basis."""
    here, there, n = x[k], out[k], np.uint64(d)
    if vec_at < 0:
        for i in range(n):
            there[i] = here[i]
        return
    at = np.uint64(vec_at)
    for i in range(n):
        total = 0.0
        for j in range(n):
            total += vecs[at + j] * here[j]
        there[i] = total
        at += n


@vectorized_kernel
def fill_curvatures(vals, at, vec_at, d, e):
    """Fill e, (d,), with the curvatures of a block in its basis, or with the one number that bounds them."""
    step = np.uint64(vec_at >= 0)
    first = np.uint64(at)
    for j in range(np.uint64(d)):
        e[j] = vals[first + j * step]


@lean_kernel
def block_norm(groups, g, W):
    """||w_g||."""
    total = 0.0
    for j in range(groups.indptr[g], groups.indptr[g + 1]):
        for k in range(W.shape[1]):
            total += W[groups.indices[j], k] * W[groups.indices[j], k]
    return np.sqrt(total)
