"""Kernels of `Sweep`: a group enters or leaves a swept Gram matrix.

With S the chosen features, kept are, for all features of the pool,

    P = (X_S'DX_S + ridge)^-1,    A = P X_S'DX,    w = P X_S'Dy
    c = X'D(y - X_S w),           S_j = X_j'DX_j + ridge - X_j'DX_S A_j

A change of one group of d features is a change of rank d in each, |S| x p x d multiplications.
`sparseopt.selection.exchange_kernels` says what they are for.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sparseopt.jit import kernel, vectorized_kernel

__all__ = ["Table", "add_rows", "begin", "cholesky", "enter_group", "forward", "leave_group", "member_root"]

_KEPT = 1e-12  # what is left of a column whose square norm lost twelve digits is rounding
_INFLATED = 1e7  # the largest factor by which other members may inflate the variance of a coefficient


class Table(NamedTuple):
    """The arrays of a `Sweep`; positions number the groups of the pool, rows the features that have entered."""

    starts: NDArray[np.int64]  # features of a position, from starts[g] to starts[g + 1]
    offsets: NDArray[np.int64]  # of its block in `blocks`
    scales: NDArray[np.float64]  # diagonal of X'DX + ridge
    units: NDArray[np.float64]  # the same without what free directions explain: the diagonal of S before any member
    blocks: NDArray[np.float64]  # S, of which the lower triangles count
    pulls: NDArray[np.float64]  # c, (K, p)
    swept: NDArray[np.float64]  # A
    coefs: NDArray[np.float64]  # w
    spread: NDArray[np.float64]  # P
    columns: NDArray[np.int64]  # the feature of each row
    members: NDArray[np.int64]  # positions
    firsts: NDArray[np.int64]  # the first row of each member, and the number of rows
    inside: NDArray[np.int64]  # 1 for members, per position
    n_members: NDArray[np.int64]  # (1,) how many members
    roots: NDArray[np.float64]  # R of every block, with the reciprocal of its diagonal; 0 where a direction is dropped
    sound: NDArray[np.int64]  # 1 where nothing is dropped, per position
    reach: NDArray[np.float64]  # |R^-1 c|, per position
    stretch: NDArray[np.float64]  # |R^-1|^2, per position, the sum of its squared entries


@vectorized_kernel
def add_rows(y, sign, a, X):
    """y += sign sum_i a_i X_i, several rows at a time: y is read and written less often."""
    i, n = 0, len(a)
    while i + 3 <= n:
        p, q, r = sign * a[i], sign * a[i + 1], sign * a[i + 2]
        P, Q, R = X[i], X[i + 1], X[i + 2]
        for j in range(len(y)):
            y[j] += p * P[j] + q * Q[j] + r * R[j]
        i += 3
    if i + 2 <= n:
        p, q = sign * a[i], sign * a[i + 1]
        P, Q = X[i], X[i + 1]
        for j in range(len(y)):
            y[j] += p * P[j] + q * Q[j]
        i += 2
    if i < n:
        p, P = sign * a[i], X[i]
        for j in range(len(y)):
            y[j] += p * P[j]


@kernel
def cholesky(M, d, scales, lo):
    """The factor in place, reciprocals on its diagonal, 0 for dependent directions; whether there are none."""
    full = True
    for j in range(d):
        pivot = M[j, j]
        for m in range(j):
            pivot -= M[j, m] * M[j, m]
        if pivot > _KEPT * scales[lo + j]:
            M[j, j] = 1.0 / np.sqrt(pivot)
        else:
            M[j, j] = 0.0
            full = False
        for i in range(j + 1, d):
            value = M[i, j]
            for m in range(j):
                value -= M[i, m] * M[j, m]
            M[i, j] = value * M[j, j]
    return full


@kernel
def begin(table, free, ridge):
    """Make X_g'DX_g in `blocks` the S_g of no members: with the ridge, and without the rows Q'D^(1/2) X in `free`."""
    _shift(table, free, np.zeros((free.shape[0], table.pulls.shape[0])), -1.0)
    for g in range(len(table.starts) - 1):
        lo, d = table.starts[g], table.starts[g + 1] - table.starts[g]
        for i in range(d):
            table.blocks[table.offsets[g] + i * d + i] += ridge
            table.units[lo + i] = table.blocks[table.offsets[g] + i * d + i]


@kernel
def member_root(table, m, L):
    """L with L L' = P_ii for member m, reciprocals on its diagonal. Returns its size."""
    first, d = table.firsts[m], table.firsts[m + 1] - table.firsts[m]
    for i in range(d):
        for j in range(i + 1):
            L[i, j] = table.spread[first + i, first + j]
    for j in range(d):
        for q in range(j):
            L[j, j] -= L[j, q] * L[j, q]
        L[j, j] = 1.0 / np.sqrt(L[j, j])
        for i in range(j + 1, d):
            for q in range(j):
                L[i, j] -= L[i, q] * L[j, q]
            L[i, j] *= L[j, j]
    return d


@kernel
def forward(L, d, B):
    """B <- L^-1 B for d rows."""
    for i in range(d):
        add_rows(B[i], -1.0, L[i, :i], B)
        for k in range(B.shape[1]):
            B[i, k] *= L[i, i]


@kernel
def enter_group(table, g, row):
    """Let the group at position g enter, row = X_g'DX; by how much the objective falls, -1 if it depends on members.

    It depends where a coefficient, of the group or of a member, would have its variance inflated by more than 1e7:
    then nothing has changed.
    """
    starts, count = table.starts, table.n_members[0]
    lo, d, rank = starts[g], starts[g + 1] - starts[g], table.firsts[count]
    n_outputs = table.pulls.shape[0]
    A, P, w = table.swept, table.spread, table.coefs
    chosen = np.empty((d, rank))
    for i in range(d):
        for a in range(rank):
            chosen[i, a] = row[i, table.columns[a]]
    R = row - chosen @ A[:rank]  # X_g'D(X - X_S A), then L^-1 of it
    L = np.empty((d, d))
    for i in range(d):
        for j in range(d):
            L[i, j] = table.blocks[table.offsets[g] + i * d + j]
    if not cholesky(L, d, table.scales, lo):
        return -1.0
    forward(L, d, R)
    back = np.zeros((d, d))  # L^-1
    for i in range(d):
        back[i, i] = 1.0
    forward(L, d, back)
    cross = np.zeros((rank, d))  # A_Sg L'^-1
    for a in range(rank):
        for i in range(d):
            for j in range(i + 1):
                cross[a, i] += A[a, lo + j] * back[i, j]
        inflated = P[a, a]
        for i in range(d):
            inflated += cross[a, i] * cross[a, i]
        if inflated * table.units[table.columns[a]] > _INFLATED:
            return -1.0
    for j in range(d):
        inflated = 0.0
        for i in range(j, d):
            inflated += back[i, j] * back[i, j]
        if inflated * table.units[lo + j] > _INFLATED:
            return -1.0
    e = np.empty((d, n_outputs))
    for k in range(n_outputs):
        for i in range(d):
            e[i, k] = table.pulls[k, lo + i]
    forward(L, d, e)
    across = cross.T.copy()
    for a in range(rank):
        add_rows(A[a], -1.0, cross[a], R)
        add_rows(w[a], -1.0, cross[a], e)
        add_rows(P[a, :rank], 1.0, cross[a], across)
    for j in range(d):
        at = rank + j
        table.columns[at] = lo + j
        A[at] = 0.0
        w[at] = 0.0
        add_rows(A[at], 1.0, back[:, j], R)
        add_rows(w[at], 1.0, back[:, j], e)
        for b in range(d):
            P[at, rank + b] = 0.0
            for i in range(max(j, b), d):
                P[at, rank + b] += back[i, j] * back[i, b]
        for a in range(rank):
            value = 0.0
            for i in range(j, d):
                value -= cross[a, i] * back[i, j]
            P[at, a] = P[a, at] = value
    _shift(table, R, e, -1.0)
    table.members[count] = g
    table.firsts[count + 1] = rank + d
    table.inside[g] = 1
    table.n_members[0] = count + 1
    return 0.5 * (e * e).sum()


@kernel
def leave_group(table, m):
    """Let member m leave; by how much the objective rises."""
    count = table.n_members[0]
    first, end, rank = table.firsts[m], table.firsts[m + 1], table.firsts[count]
    d = end - first
    A, P, w = table.swept, table.spread, table.coefs
    L = np.empty((d, d))
    member_root(table, m, L)
    E, e, cross = A[first:end].copy(), w[first:end].copy(), P[first:end, :rank].copy()
    forward(L, d, E)
    forward(L, d, e)
    forward(L, d, cross)
    for a in range(rank):
        if first <= a < end:
            continue
        to = a if a < first else a - d
        if to != a:
            A[to] = A[a]
            w[to] = w[a]
            table.columns[to] = table.columns[a]
        add_rows(A[to], -1.0, cross[:, a], E)
        add_rows(w[to], -1.0, cross[:, a], e)
        add_rows(P[a, :rank], -1.0, cross[:, a], cross)
        for b in range(first):
            P[to, b] = P[a, b]
        for b in range(end, rank):
            P[to, b - d] = P[a, b]
    _shift(table, E, e, 1.0)
    table.inside[table.members[m]] = 0
    for q in range(m, count - 1):
        table.members[q] = table.members[q + 1]
        table.firsts[q + 1] = table.firsts[q + 2] - d
    table.n_members[0] = count - 1
    return 0.5 * (e * e).sum()


@kernel
def _shift(table, E, e, sign):
    """c += sign E'e, and S_g += sign E_g'E_g for every group, in its lower triangle."""
    starts, blocks = table.starts, table.blocks
    for k in range(e.shape[1]):
        add_rows(table.pulls[k], sign, e[:, k], E)
    for g in range(len(starts) - 1):
        lo, d, at = starts[g], starts[g + 1] - starts[g], table.offsets[g]
        for i in range(d):
            for j in range(i + 1):
                total = 0.0
                for r in range(E.shape[0]):
                    total += E[r, lo + i] * E[r, lo + j]
                blocks[at + i * d + j] += sign * total
